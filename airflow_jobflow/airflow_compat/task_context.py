"""What the contexts of tasks and triggers have in Airflow 3.3, and may lack in 3.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.sdk import Context


def task_state_store(context: Context) -> Any | None:
    """Return the store that keeps a task's state between its tries.

    Its methods raise ``airflow.sdk.exceptions.AirflowRuntimeError`` when Airflow does not answer (3.3.2).

    :param context: what Airflow passes to ``execute``.
    :return: has ``get(key)`` and ``set(key, value)``; None where Airflow has no such store (3.2.1).
    """
    return context.get("task_state_store")


def without_task_state_store(context: Context) -> Context:
    """Return a context without the store, for a trigger: Airflow does not answer a trigger's requests to it.

    Relies on the context being a dict (3.3.2).

    :param context: what Airflow passes to a trigger's ``render_template_fields``.
    """
    return cast("Context", {name: value for name, value in context.items() if name != "task_state_store"})


def clear_number(context: Context) -> int:
    """Return how often a task of the DAG run was cleared.

    Documented in ``airflow.sdk.types.DagRunProtocol`` from 3.3 on; 3.2.1 has it without documenting it.

    :param context: what Airflow passes to ``execute``.
    :return: 0 if nothing was cleared, or if Airflow does not say.
    """
    return int(getattr(context["dag_run"], "clear_number", 0) or 0)


def is_mapped(context: Context) -> bool:
    """Return whether the task instance is one of a mapped task.

    Documented in ``airflow.sdk.types.RuntimeTaskInstanceProtocol`` from 3.3 on; 3.2.1 has it without documenting it.

    :param context: what Airflow passes to ``execute``.
    """
    return bool(context["ti"].is_mapped)


def asset_state_store(trigger: Any) -> Any | None:
    """Return the store that keeps the state of the asset that a trigger watches.

    Where several assets share the trigger, the store of the first by name: the trigger fires each event for all of
    them. Relies on ``AssetStateStoreAccessors._by_name``, because the public interface needs the assets' names, which a
    trigger does not know (3.3.2).

    :param trigger: a ``BaseEventTrigger``.
    :return: has ``get(key)`` and ``set(key, value)``; None where Airflow has no such store (3.2.1), or outside a
        triggerer.
    """
    by_name = getattr(getattr(trigger, "asset_state_store", None), "_by_name", {})
    return by_name[min(by_name)] if by_name else None
