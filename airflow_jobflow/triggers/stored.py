"""Triggers that can be made from what another version of this package has stored of them.

Airflow stores a trigger as the path of its class and the keyword arguments that ``serialize`` returned. In a rolling
upgrade, and after a rollback, a triggerer reads what another version wrote. A TypeError would fail the wait of a job
that is well.

Invariants:

- An argument that a version added later has a default, so that what an earlier version stored can be read.
- In a triggerer, arguments of another version are ignored, with one line in its log.
- Elsewhere, an unknown argument is a TypeError as usual: a typo in a DAG file must not be ignored.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

log = logging.getLogger(__name__)


class Stored:
    """Mixin of the triggers that Airflow stores. Goes before Airflow's base class.

    A subclass has only keyword arguments, and keeps each in an attribute of its name.
    """

    argument_names: ClassVar[tuple[str, ...]] = ()
    """The names of the keyword arguments, with those that are passed on to the base classes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.items()
            own = [name for name, each in parameters if each.kind is each.KEYWORD_ONLY]
            cls.argument_names = (*own, *(name for name in cls.argument_names if name not in own))
            cls.__init__ = _tolerant(cls.__init__)  # type: ignore[method-assign]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class, and all arguments that are needed to make this trigger again elsewhere."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {name: getattr(self, name) for name in cls.argument_names}


def _tolerant(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def made(self: Stored, *args: Any, **kwargs: Any) -> None:
        unknown = sorted(kwargs.keys() - set(self.argument_names))
        if unknown and _in_triggerer():
            _report(type(self).__name__, unknown)
            kwargs = {name: value for name, value in kwargs.items() if name not in unknown}
        init(self, *args, **kwargs)

    return made


def _in_triggerer() -> bool:
    """Return whether this is called on an event loop: a triggerer makes its triggers there, and nobody else does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_reported: set[str] = set()


def _report(trigger: str, unknown: Sequence[str]) -> None:
    """Log, once, that arguments are ignored."""
    line = f"{trigger} ignores arguments that another version of airflow-jobflow has stored: {', '.join(unknown)}"
    if line not in _reported:
        _reported.add(line)
        log.warning("%s", line)
