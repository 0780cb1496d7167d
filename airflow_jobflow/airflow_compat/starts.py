"""Starts in the triggerer: Airflow 3.3 has them; the scheduler of Airflow 3.2 starts every task on a worker.

3.2 has the code for it commented out (read in 3.2.0 to 3.2.2: ``DagRun.schedule_tis``). Its triggers have no ``task``
and render no templates.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import OperatorPartial as OperatorPartial  # noqa: PLC0414 -- for ``sensors``
    from airflow.triggers.base import StartTriggerArgs


@functools.cache
def are_available() -> bool:
    """Return whether a task can start in the triggerer: in Airflow 3.3.2 it can, in 3.2.1 it cannot."""
    from airflow.triggers.base import BaseTrigger  # not at the top: a worker that imports a DAG file needs no triggers

    return hasattr(BaseTrigger, "render_template_fields")


def arguments_of(partial: OperatorPartial) -> dict[str, Any]:
    """Return the arguments of a task that is about to be mapped, by name. To change them is to change the task.

    Relies on ``OperatorPartial.kwargs`` (3.2.1, 3.3.2).

    :param partial: what ``BaseOperator.partial`` returned.
    """
    return partial.kwargs


class Rules(Protocol):
    """Decides how tasks of a class start."""

    def start_trigger_args(
        self, task_class: type, given: Mapping[str, Any], *, is_partial: bool = False
    ) -> StartTriggerArgs | None:
        """Return how a task starts in the triggerer; None if a worker is needed, or during construction.

        :param task_class: the class of the task.
        :param given: its parameters or its attributes, by name.
        :param is_partial: whether it is about to be mapped, so that parameters are missing. Default False.
        """


class OfInstance(property):
    """A property that is None on the class itself.

    For a mapped task, Airflow reads ``start_trigger_args`` and ``start_from_trigger`` of the operator's class. 3.2.1
    then tries to serialize the property object.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the value for an instance; None for the class.

        :param instance: the instance, or None.
        :param owner: the class.
        """
        return None if instance is None else super().__get__(instance, owner)


class StartsInTriggerer:
    """An operator or a sensor that can start in the triggerer. List it before Airflow's base class.

    Airflow reads ``start_trigger_args`` and ``start_from_trigger`` when it serializes the DAG.
    """

    start_rules: ClassVar[Rules]
    """Decides how tasks of this class start."""

    @OfInstance
    def start_trigger_args(self) -> StartTriggerArgs | None:
        """How to start in the triggerer; None if a worker is needed, or while the task is being constructed."""
        return self.start_rules.start_trigger_args(type(self), vars(self))

    @OfInstance
    def start_from_trigger(self) -> bool:
        """Whether it starts in the triggerer."""
        return self.start_trigger_args is not None

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Prepare a mapped task. Its instances start in the triggerer as a single task does.

        :param kwargs: the parameters that all instances share.
        :return: what ``expand`` is called on.
        """
        base: Any = super()
        mapped: OperatorPartial = base.partial(**kwargs)
        arguments = arguments_of(mapped)
        given = {**_default_args(arguments, kwargs.get("default_args")), **arguments}
        args = cls.start_rules.start_trigger_args(cls, given, is_partial=True)
        arguments |= {"start_from_trigger": args is not None, "start_trigger_args": args}
        return mapped


def _default_args(arguments: Mapping[str, Any], of_task: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ``default_args`` of a task that is about to be mapped.

    Airflow merges only the arguments that every operator has; instances on workers get the others later.
    """
    sources = [getattr(arguments.get(name), "default_args", None) for name in ("dag", "task_group")]
    return {name: value for source in (*sources, of_task) for name, value in (source or {}).items()}
