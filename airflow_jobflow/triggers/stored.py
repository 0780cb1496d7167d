"""Triggers that can be created from what another version of this package has stored.

Airflow stores a trigger as the path of its class and the keyword arguments that ``serialize`` returned. In a rolling
upgrade, and after a rollback, a triggerer reads what another version wrote. A TypeError would fail the wait of a
healthy job.

Invariants:

- An argument that a later version added has a default, so that what an earlier version stored can be read.
- An argument that was renamed is read under its old name, and stored under its new name.
- In a triggerer, other unknown arguments are ignored, with one line in its log.
- Elsewhere, an unknown argument is a TypeError as usual: a typo in a DAG file must not be ignored.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

log = logging.getLogger(__name__)

RENAMED_ARGUMENTS: Final[Mapping[str, str]] = {
    "family": "job_group",
    "noted": "progress_digest",
    "returns": "result_kind",
    "tells": "reports_progress",
    "told": "reported_statuses",
}
"""The current name of each argument that an earlier version stored under another name."""


class Stored:
    """Mixin for triggers that Airflow stores. List it before Airflow's base class.

    A subclass has only keyword arguments, and keeps each in an attribute of the same name.
    """

    argument_names: ClassVar[tuple[str, ...]] = ()
    """The names of the keyword arguments, including those that are passed on to the base classes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.items()
            own = [name for name, each in parameters if each.kind is each.KEYWORD_ONLY]
            cls.argument_names = (*own, *(name for name in cls.argument_names if name not in own))
            cls.__init__ = _tolerant(cls.__init__)  # type: ignore[method-assign]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class, and the arguments that recreate this trigger elsewhere."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {name: getattr(self, name) for name in cls.argument_names}


def _tolerant(init: Callable[..., None]) -> Callable[..., None]:
    """Return an ``__init__`` that, in a triggerer, accepts arguments of other versions."""

    @functools.wraps(init)
    def tolerant_init(self: Stored, *args: Any, **kwargs: Any) -> None:
        unknown = kwargs.keys() - set(self.argument_names)
        if unknown and _in_triggerer():
            renamed = {
                RENAMED_ARGUMENTS[name]: kwargs[name]
                for name in unknown
                if RENAMED_ARGUMENTS.get(name) in self.argument_names
            }
            if ignored := sorted(name for name in unknown if RENAMED_ARGUMENTS.get(name) not in renamed):
                _log_ignored(type(self).__name__, ignored)
            kwargs = renamed | {name: value for name, value in kwargs.items() if name not in unknown}
        init(self, *args, **kwargs)

    return tolerant_init


def _in_triggerer() -> bool:
    """Return whether this runs on an event loop. Only a triggerer creates its triggers on one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_logged: set[str] = set()


def _log_ignored(trigger: str, names: Sequence[str]) -> None:
    """Log, once, that arguments are ignored."""
    line = f"{trigger} ignores arguments that another version of airflow-jobflow has stored: {', '.join(names)}"
    if line not in _logged:
        _logged.add(line)
        log.warning("%s", line)
