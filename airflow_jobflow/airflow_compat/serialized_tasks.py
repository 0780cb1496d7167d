"""Tasks as Airflow serializes them, which is how a trigger sees its task. Airflow 3.3 and newer: see ``starts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MAPPING_FIELDS = frozenset(
    {
        "_disallow_kwargs_override", "_expand_input_attr", "_is_sensor", "_needs_expansion", "_operator_name",
        "_task_module", "downstream_task_ids", "end_date", "expand_input", "op_kwargs_expand_input",
        "operator_extra_links", "params", "partial_kwargs", "start_date", "start_from_trigger", "start_trigger_args",
        "task_id", "task_type", "template_ext", "template_fields", "template_fields_renderers", "ui_color",
        "ui_fgcolor",
    }
)  # fmt: skip
"""Fields of a serialized mapped task that are known here: they identify it, or ``mapped_over`` reads them."""


class UnsupportedMapping(Exception):
    """A task is mapped in a way that only a worker resolves; says in which."""


@dataclass(frozen=True)
class MappedOver:
    """The one parameter that a task is mapped over.

    :param parameter: its name.
    :param items: the list that it is mapped over; None if ``task_id`` returned the list.
    :param task_id: the task whose result it is mapped over.
    :param key: the key of the result's XCom.
    :param is_mapped: whether that task is mapped itself, so that each of its instances returned one item.
    """

    parameter: str
    items: list[Any] | None = None
    task_id: str = ""
    key: str = ""
    is_mapped: bool = False


def mapped_over(task: Any) -> MappedOver | None:
    """Return what a serialized task is mapped over.

    Relies on ``SerializedMappedOperator.expand_input``, on ``get_closest_mapped_task_group``, and on
    ``SchedulerPlainXComArg`` (3.3.2).

    :param task: ``BaseTrigger.task``.
    :return: None if it is not mapped.
    :raises UnsupportedMapping: it is mapped in another way than over one parameter, by a list or a task's result.
    """
    from airflow.serialization.definitions.xcom_arg import SchedulerPlainXComArg

    if not task.is_mapped:
        return None
    if unknown := unknown_mapping_fields(task):
        raise UnsupportedMapping(f"it is mapped with {', '.join(sorted(unknown))}, which is not known here")
    if task.get_closest_mapped_task_group() is not None:
        raise UnsupportedMapping("it is in a mapped task group")
    over = task.expand_input.value
    if not isinstance(over, Mapping) or len(over) != 1:
        raise UnsupportedMapping("it is mapped over more than one parameter, or by expand_kwargs")
    [(parameter, items)] = over.items()
    if isinstance(items, SchedulerPlainXComArg):
        of: Any = items.operator
        return MappedOver(parameter, task_id=of.task_id, key=items.key, is_mapped=of.is_mapped)
    if not isinstance(items, list):
        raise UnsupportedMapping(f"it is mapped over a {type(items).__name__}, not a list")
    return MappedOver(parameter, items)


def unknown_mapping_fields(task: Any) -> set[str]:
    """Return the fields of a serialized task that say something of its mapping which is unknown here.

    Relies on ``SerializedMappedOperator.get_serialized_fields`` (3.2.1, 3.3.2). A newer Airflow may have more fields.

    :param task: ``BaseTrigger.task``.
    :return: the names of fields with a value; none if the task is not mapped.
    """
    if not task.is_mapped:
        return set()
    return {name for name in type(task).get_serialized_fields() - _MAPPING_FIELDS if getattr(task, name, None)}


def dag_renders_natively(task: Any) -> bool:
    """Return whether the DAG of a serialized task has ``render_template_as_native_obj``.

    Relies on ``SerializedDAG.render_template_as_native_obj`` (3.3.2).

    :param task: ``BaseTrigger.task``.
    """
    return bool(task.dag.render_template_as_native_obj)
