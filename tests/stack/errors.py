"""The error of a stack, and a function that waits for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE: Final = 180.0
"""Seconds in which a service must become healthy, on a busy machine."""
LOOK_EVERY: Final = 0.5

T = TypeVar("T")


class StackError(Exception):
    """The stack is in a wrong state; the message says which, with the last lines of the log."""


def eventually(look: Callable[[], T], what: str, patience: float = PATIENCE, every: float = LOOK_EVERY) -> T:
    """Call a function until its result is true, and return it.

    :raises StackError: the result was not true within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {patience:.0f} s")
        time.sleep(every)
    return seen
