"""A scripted queue of events: what the listener's tests run on instead of SQS.

It gives a message to one receiver at a time and again when its time is over, waits for messages as long as it is
asked to, and fails in the ways that a test says. An event here is a job's id and whether it is to be described at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.wakeups import Listener, Message
from tests.unit.polling.scripted import now

Event = tuple[str, bool]

FORGOTTEN = 30.0
"""Seconds after which a message that was neither deleted nor given back can be received again."""


def about(event: Event, known: KeysView[str]) -> Mapping[str, bool]:
    """Return which job an event concerns, if there is a wait for it."""
    job_id, at_once = event
    return {job_id: at_once} if job_id in known else {}


@dataclass
class Letter:
    """A message in the queue."""

    event: Event | None
    hidden_until: float
    receives: int = 0


@dataclass
class Queue:
    """A queue whose calls fail in the ways that a test says."""

    letters: dict[str, Letter] = field(default_factory=dict)
    plan: deque[Fault | Exception] = field(default_factory=deque)
    """How the next receives fail, one each; after that they are answered."""
    down: Fault | None = None
    """How every receive fails."""
    untidy: Fault | None = None
    """How every call fails that deletes or gives back."""
    undeletable: Fault | None = None
    """How every call fails that deletes, while others work."""
    exists: bool = True
    receives: list[float] = field(default_factory=list)
    """When receives were made."""
    received: list[tuple[float, str]] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    _sent: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0

    def send(self, event: Event | None, delay: float = 0.0) -> None:
        """Put a message in, to be received after a delay."""
        self._count += 1
        self.letters[f"{self._count}"] = Letter(event, now() + delay)
        self._sent.set()

    def send_event(self, job_id: str, *, at_once: bool = True, delay: float = 0.0) -> None:
        """Put an event in."""
        self.send((job_id, at_once), delay)

    def listener(self, **settings: Any) -> Listener[Event]:
        """Make a listener to this queue."""
        return Listener(
            self.receive,
            self.delete,
            self.release,
            close=lambda: self.closed.append(now()),
            **settings,
        )

    async def receive(self, seconds: float) -> Sequence[Message[Event]] | None:
        """Receive up to ten messages; wait for the first for the given seconds."""
        self.receives.append(now())
        if not self.exists:
            return None
        if fault := self.plan.popleft() if self.plan else self.down:
            raise fault if isinstance(fault, Exception) else CallError(fault, f"scripted: {fault.value}")
        patience = now() + seconds
        while not (messages := self._take()) and now() < patience:
            self._sent.clear()
            hidden = [each.hidden_until for each in self.letters.values() if each.hidden_until > now()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([*hidden, patience]) - now()):
                    await self._sent.wait()
        return messages

    def _take(self) -> list[Message[Event]]:
        messages: list[Message[Event]] = []
        for handle, letter in list(self.letters.items()):
            if letter.hidden_until <= now() and len(messages) < 10:
                letter.receives += 1
                letter.hidden_until = now() + FORGOTTEN
                self.received.append((now(), handle))
                messages.append(Message(handle, letter.event, letter.receives, "an excerpt"))
        return messages

    async def delete(self, handles: Sequence[str]) -> None:
        """Delete messages."""
        self._tidy()
        if self.undeletable:
            raise CallError(self.undeletable, f"scripted: {self.undeletable.value}")
        for handle in handles:
            self.letters.pop(handle, None)

    async def release(self, handles: Sequence[str]) -> None:
        """Give messages back."""
        self._tidy()
        for handle in handles:
            if handle in self.letters:
                self.letters[handle].hidden_until = now()
                self._sent.set()

    def _tidy(self) -> None:
        if self.untidy:
            raise CallError(self.untidy, f"scripted: {self.untidy.value}")
