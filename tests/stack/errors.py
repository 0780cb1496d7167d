"""What goes wrong with a stack, and waiting until something is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE: Final = 180.0
"""Seconds in which a service must be healthy, on a busy machine."""
LOOK_EVERY: Final = 0.5

T = TypeVar("T")


class StackError(Exception):
    """The stack is not as it must be; the message says what is wrong, with the log's last lines."""


def eventually(look: Callable[[], T], what: str, patience: float = PATIENCE, every: float = LOOK_EVERY) -> T:
    """Look until what is seen is true, and return it.

    :raises StackError: it has not come true within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {patience:.0f} s")
        time.sleep(every)
    return seen
