"""Whether a task can do without a worker: whether it may start, and end, in the triggerer.

A worker process is what a wait costs most, so one runs only for what needs one. What Airflow leaves out where a task
ends in the triggerer, and what it cannot render there, is listed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf

LEFT_OUT = (
    "outlets",
    "map_index_template",
    "multiple_outputs",
    "returns_dag_result",
    "on_success_callback",
    "has_on_success_callback",
    "on_execute_callback",
    "has_on_execute_callback",
    "pre_execute",
    "post_execute",
    "_pre_execute_hook",
    "_post_execute_hook",
)
"""What of a task takes effect only on a worker that ends it: as parameters, as attributes, and as Airflow serializes
them."""

ON_A_WORKER_FROM_THE_START = (
    "on_execute_callback",
    "multiple_outputs",
    "pre_execute",
    "post_execute",
    "_pre_execute_hook",
    "_post_execute_hook",
    "returns_dag_result",
    "inlets",
    "render_template_as_native_obj",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
)
"""What of it takes effect on a worker that starts it, or on its way to one, or cannot be seen in what Airflow
serializes."""

RENDERED = {
    "run_id", "params", "dag_run", "var", "conn", "ds", "ds_nodash", "ts", "ts_nodash", "logical_date",
    "data_interval_start", "data_interval_end", "macros", "dag", "task", "ti", "task_instance",
}  # fmt: skip
"""What a template may ask for, and is given in the triggerer as on a worker."""

OF_THE_INSTANCE = {"dag_id", "task_id", "run_id", "map_index", "try_number", "xcom_pull"}
"""What of ``ti`` a template may ask for; of ``xcom_pull`` more is asked, see ``renderable``."""


def end_setting() -> str:
    """Return ``[jobflow] end_in_trigger``: ``auto`` or ``never``."""
    return str(conf.get("jobflow", "end_in_trigger"))


def may_end(task: Any, *, is_mapped: bool) -> bool:
    """Say whether a task loses nothing when it ends successfully in the triggerer.

    Asks for Airflow's listeners, which loads plugins the first time: not for an event loop.

    :param task: the operator, or what Airflow has serialized of it.
    :param is_mapped: whether this is one of the instances of a mapped task. If not, and another task is mapped over
        what it returns, a worker has to say how long that is.
    """
    from airflow.sdk.listener import get_listener_manager

    return (
        end_setting() != "never"
        and not _any(task, LEFT_OUT)
        and (is_mapped or not _feeds_a_mapped_task(task))
        and not (_keeps_state(task) and conf.getboolean("state_store", "clear_on_success", fallback=False))
        and not get_listener_manager().has_listeners
    )


def may_start(task_class: type, given: Mapping[str, Any]) -> bool:
    """Say whether a task loses nothing when it starts in the triggerer.

    A start there passes by the limits of its pool, and the triggerers of its queue, for Airflow gives it none.

    :param given: its parameters, or the attributes that Airflow keeps them in.
    """
    return (
        is_ours(task_class)
        and not any(given.get(name) for name in ON_A_WORKER_FROM_THE_START)
        and given.get("pool") in (None, BaseOperator.pool)
        and not _has_jinja_of_its_own(given.get("_dag") or given.get("dag"))
        and not conf.getboolean("triggerer", "queues_enabled", fallback=False)
    )


def is_ours(task_class: type) -> bool:
    """Say whether a class is of this package: one that is derived from it may do anything in methods of its own."""
    return task_class.__module__.startswith(f"{__package__}.")


def renderable(value: object, *, natively: bool = False) -> bool:
    """Say whether Airflow renders a value in the triggerer as it does on a worker, if it holds a template.

    An XComArg is resolved on a worker only, an ``xcom_pull`` that does not say ``map_indexes`` never returns, and all
    that is rendered comes out as text.

    :param natively: whether the DAG has ``render_template_as_native_obj``.
    """
    if isinstance(value, str):
        return "{" not in value or (not natively and _template_renderable(value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and renderable(each, natively=natively) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(renderable(each, natively=natively) for each in value)
    return value is None or isinstance(value, bool | int | float | timedelta | datetime)


def _template_renderable(template: str) -> bool:
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    try:
        tree = Environment(autoescape=True).parse(template)
        asked_for = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError:
        return False  # a worker knows more filters, or says what is wrong with it
    instances = [name for name in tree.find_all(nodes.Name) if name.name in ("ti", "task_instance")]
    asked = [each for each in tree.find_all(nodes.Getattr) if each.node in instances]
    pulls = [each for each in tree.find_all(nodes.Getattr) if each.attr == "xcom_pull"]
    complete = [
        call
        for call in tree.find_all(nodes.Call)
        if call.node in pulls and any(keyword.key == "map_indexes" for keyword in call.kwargs)
    ]
    return (
        asked_for <= RENDERED
        and len(asked) == len(instances)
        and all(each.attr in OF_THE_INSTANCE for each in asked)
        and len(complete) == len(pulls)
    )


def _any(task: object, names: tuple[str, ...]) -> bool:
    """Say whether a task has any of these."""
    return any(_own(getattr(task, name, None)) for name in names)


def _own(value: object) -> bool:
    """Say whether a value is there, and is not a method that Airflow's base class has for all."""
    inherited = (BaseOperator.pre_execute, BaseOperator.post_execute)
    return bool(value) and getattr(value, "__func__", None) not in inherited


def _keeps_state(task: object) -> bool:
    """Say whether a task keeps a record of its job in Airflow's store, as the operators do."""
    return hasattr(task, "durable")


def _has_jinja_of_its_own(dag: Any) -> bool:
    """Say whether a DAG renders templates by rules that Airflow does not serialize."""
    from jinja2 import StrictUndefined

    return dag is not None and bool(dag.jinja_environment_kwargs or dag.template_undefined is not StrictUndefined)


def _feeds_a_mapped_task(task: Any) -> bool:
    if isinstance(task, BaseOperator) and not task.has_dag():  # type: ignore[no-untyped-call]  # Airflow's is untyped
        return False
    return next(iter(task.iter_mapped_dependants()), None) is not None
