"""What waits hold, kept out of the garbage collector's full rounds.

A full collection walks every object there is, and a triggerer's event loop stands still meanwhile: for ten thousand
waits, each some seventy KB of mostly Airflow's own, for over a second. None of it is garbage while the wait lasts, and
nearly all is freed by reference counting when it ends.

What always holds: objects are freed as before. Garbage in cycles among what was spared is not found any more, but what
was spared grows only when there are more waits than ever before in this process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEP = 500
"""How many more waits there are each time that all there is by then is spared."""


class Spared:
    """Counts waits, and spares what they hold.

    :param freeze: takes all objects there are out of the collector's rounds.
    """

    def __init__(self, freeze: Callable[[], object] = gc.freeze) -> None:
        self._freeze = freeze
        self._waits = 0
        self._spared = 0
        """How many waits there were when what they hold was spared last."""

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Count a wait for as long as it lasts."""
        self._waits += 1
        if self._waits >= self._spared + STEP:
            self._freeze()
            self._spared = self._waits
        try:
            yield
        finally:
            self._waits -= 1


spared = Spared()
"""Of this process."""
