"""Operators and sensors make objects of their rendered parameters: for one execution, and not for copies."""

from __future__ import annotations

from functools import cached_property
from typing import Any


class MakesObjects:
    """An operator or sensor that makes its objects anew for each execution. List it before Airflow's base class.

    Airflow copies a task before each execution, and deep-copies it with its DAG; users pickle tasks, and execute one
    more than once in their own code. The objects are cached properties. They cannot be copied: the report refers to its
    task, and modules and loggers can be neither deep-copied nor pickled.

    Relies on ``BaseOperator.__getstate__`` and ``__deepcopy__`` taking what is in ``__dict__`` (3.2.1, 3.3.2).
    """

    _was_executed = False

    def _begin_execution(self) -> None:
        """Drop the objects of an earlier execution. The parameters may have changed since."""
        if self._was_executed:
            for name in _made(self):
                del vars(self)[name]
        self._was_executed = True

    def __getstate__(self) -> dict[str, Any]:
        """Return what a shallow copy and a pickle have."""
        state: Any = super().__getstate__()
        made = _made(self)
        return {name: value for name, value in state.items() if name not in made}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a deep copy.

        :param memo: the copies that were made already.
        """
        base: Any = super()
        made = {name: vars(self).pop(name) for name in _made(self)}
        try:
            return base.__deepcopy__(memo)
        finally:
            vars(self).update(made)


def _made(task: object) -> set[str]:
    return {name for name in vars(task) if isinstance(getattr(type(task), name, None), cached_property)}
