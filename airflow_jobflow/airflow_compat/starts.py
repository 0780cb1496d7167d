"""Starts in the triggerer: Airflow 3.3 has them; the scheduler of Airflow 3.2 starts every task on a worker.

3.2 has the code for it commented out (read in 3.2.0 to 3.2.2: ``DagRun.schedule_tis``). Its triggers have no ``task``
and render no templates.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import OperatorPartial as OperatorPartial  # noqa: PLC0414 -- for ``sensors``


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
