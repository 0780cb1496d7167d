"""Deliver events in a thread, so that services do not wait for EventBridge."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

Event = TypeVar("Event")

LAST_EVENTS: Final = 5.0
"""Seconds for the delivery of the last events: with thousands of messages in queues, each event takes long."""


class Publisher(Generic[Event]):
    """Delivers events one after the other.

    :param name: the name of the thread.
    :param deliver: called with each event.
    """

    def __init__(self, name: str, deliver: Callable[[Event], None]) -> None:
        self._deliver = deliver
        self._waiting: SimpleQueue[Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event.

        :param event: the event.
        """
        self._waiting.put(event)

    def close(self) -> None:
        """Deliver the last events, at most for `LAST_EVENTS` seconds, and end the thread."""
        self._waiting.put(None)
        self._thread.join(LAST_EVENTS)
        if self._thread.is_alive():
            self._waiting = SimpleQueue()
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._deliver(event)
