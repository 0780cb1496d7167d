"""Which features of Airflow a task uses, including features of a newer Airflow that are unknown here.

A feature is a parameter, a field, an attribute or a method that Airflow's operators declare. A task uses it if its
value is not the declared default, whether a DAG file, ``default_args`` or a policy has set it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator

from airflow_jobflow.airflow_compat.serialized_tasks import unknown_mapping_fields

_INIT_ARGUMENTS = "_BaseOperator__init_kwargs"
"""Where an operator keeps its constructor's arguments: they include parameters that it stores under other names."""


def features_in_use(task: Any, *, besides: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of the features that a task uses.

    Relies on ``BaseOperator`` being a dataclass, on its ``__init_kwargs``, on ``get_serialized_fields`` of serialized
    tasks, and on ``SerializedMappedOperator.partial_kwargs`` (3.2.1, 3.3.2).

    :param task: an operator; a task as Airflow has serialized it; or the arguments or attributes of a sensor, by name.
    :param besides: names to leave out. Default none.
    """
    used: set[str] = set()
    if isinstance(task, BaseOperator | Mapping):
        declared = _declared(BaseOperator if _is_plain_operator(task) else BaseSensorOperator)
        values = task if isinstance(task, Mapping) else vars(task)
        given = values.get(_INIT_ARGUMENTS, {})
    else:
        used |= unknown_mapping_fields(task)
        declared = _declared_by_serialized()
        values, given = (task.partial_kwargs if task.is_mapped else vars(task)), {}
    used |= {
        name
        for source in (values, given)
        for name, value in source.items()
        if name in declared and name not in besides and not _is_default(value, declared[name])
    }
    return used - besides


def feeds_mapped_task(task: Any) -> bool:
    """Return whether another task is mapped over the result of a task.

    Relies on ``iter_mapped_dependants`` of operators and of serialized tasks (3.2.1, 3.3.2).

    :param task: an operator, or a task as Airflow has serialized it. An operator without a DAG feeds nothing.
    """
    if isinstance(task, BaseOperator) and not task.has_dag():  # type: ignore[no-untyped-call]  # Airflow's is untyped
        return False
    return next(iter(task.iter_mapped_dependants()), None) is not None


def renders_natively(operator: BaseOperator) -> bool:
    """Return whether the templates of an operator render to Python objects, as the operator itself or its DAG says.

    Relies on ``Templater._should_render_native`` (3.2.1, 3.3.2).

    :param operator: the operator. Without a DAG, only its own parameter counts.
    """
    return bool(operator._should_render_native(operator.get_dag()))  # noqa: SLF001 -- there is no public way


def has_listeners() -> bool:
    """Return whether a plugin listens to what workers do with tasks, as OpenLineage's does.

    Loads plugins on its first call: not for an event loop. Relies on ``airflow.sdk.listener`` (3.2.1, 3.3.2).
    """
    from airflow.sdk.listener import get_listener_manager

    return bool(get_listener_manager().has_listeners)


def dag_in(values: Mapping[str, Any]) -> Any | None:
    """Return the DAG in the arguments or the attributes of an operator.

    Relies on ``BaseOperator._dag`` (3.2.1, 3.3.2): ``dag`` itself is a property, so it is no attribute of an instance.

    :param values: by name.
    :return: None if the operator belongs to no DAG yet.
    """
    return values.get("_dag") or values.get("dag")


def _is_plain_operator(task: Any) -> bool:
    return isinstance(task, BaseOperator) and not isinstance(task, BaseSensorOperator)


@functools.cache
def _declared(base: type) -> Mapping[str, Sequence[Any]]:
    """Return the features that an operator class of Airflow declares, with their defaults.

    A parameter may have another default than the attribute that keeps it: ``pool`` has None and ``default_pool``. A
    private attribute counts only if it is a field: the others are caches.
    """
    declared: dict[str, list[Any]] = {}
    for each in base.__mro__[:-1]:
        attributes = {name: value for name, value in vars(each).items() if not name.startswith("_")}
        fields = vars(each).get("__dataclass_fields__", {}).values()
        parameters = inspect.signature(each).parameters.values() if "__init__" in vars(each) else ()
        for name, default in (
            *((name, value) for name, value in attributes.items() if not _is_computed(value)),
            *((field.name, _default(field)) for field in fields if not field.name.startswith("_BaseOperator__")),
            *((each.name, each.default) for each in parameters if each.kind is not each.VAR_KEYWORD),
        ):
            declared.setdefault(name, []).append(default)
    return declared


@functools.cache
def _declared_by_serialized() -> Mapping[str, Sequence[Any]]:
    """Return the features that a serialized task may have, with their defaults.

    Where a field has no default, Airflow sets it to None when it reads a task that lacks the field.
    """
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator

    base: Any = SerializedBaseOperator
    declared: dict[str, list[Any]] = {name: [None] for name in base.get_serialized_fields()}
    for each in base.__mro__[:-1]:
        for name, value in vars(each).items():
            if (name in declared or not name.startswith("_")) and not _is_computed(value):
                declared.setdefault(name, []).append(value)
    return declared


def _is_computed(attribute: object) -> bool:
    """Return whether an attribute of a class is computed, so that what an instance has of it is a cached result."""
    return isinstance(attribute, property | functools.cached_property | classmethod | staticmethod)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_default(value: Any, defaults: Sequence[Any]) -> bool:
    """Return whether a value is one of the defaults. Airflow keeps None as an empty collection."""
    is_empty = isinstance(value, Collection) and not value
    for default in defaults:
        if value is default or (is_empty and (default is None or (isinstance(default, Collection) and not default))):
            return True
        try:
            if value == default:
                return True
        except Exception:  # noqa: BLE001, S112 -- whatever a value's comparison raises, it is not the default
            continue
    return False
