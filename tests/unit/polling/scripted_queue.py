"""A scripted queue of events, which the listener's tests use instead of SQS.

It delivers a message to one receiver at a time, and again after the visibility timeout. It supports long polling, and
fails as scripted. An event here is a job's id and whether the job must be described at once.
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

VISIBILITY_TIMEOUT = 30.0
"""Seconds after which a message that was neither deleted nor released can be received again."""


def about(event: Event, known: KeysView[str]) -> Mapping[str, bool]:
    """Return which job an event concerns, if a wait for it exists."""
    job_id, at_once = event
    return {job_id: at_once} if job_id in known else {}


@dataclass
class QueuedMessage:
    """A message in the queue."""

    event: Event | None
    hidden_until: float
    receives: int = 0


@dataclass
class Queue:
    """A queue whose calls fail as scripted."""

    messages: dict[str, QueuedMessage] = field(default_factory=dict)
    plan: deque[Fault | Exception] = field(default_factory=deque)
    """The faults of the next receive calls, one each; later calls succeed."""
    down: Fault | None = None
    """The fault of every receive call."""
    delete_fault: Fault | None = None
    """The fault of every call that deletes or releases messages."""
    undeletable: Fault | None = None
    """The fault of every call that deletes messages, while others succeed."""
    exists: bool = True
    receives: list[float] = field(default_factory=list)
    """The times of receive calls."""
    received: list[tuple[float, str]] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    _sent: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0

    def send(self, event: Event | None, delay: float = 0.0) -> None:
        """Send a message that can be received after a delay."""
        self._count += 1
        self.messages[f"{self._count}"] = QueuedMessage(event, now() + delay)
        self._sent.set()

    def send_event(self, job_id: str, *, at_once: bool = True, delay: float = 0.0) -> None:
        """Send an event."""
        self.send((job_id, at_once), delay)

    def listener(self, **settings: Any) -> Listener[Event]:
        """Return a listener to this queue."""
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
            hidden = [each.hidden_until for each in self.messages.values() if each.hidden_until > now()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([*hidden, patience]) - now()):
                    await self._sent.wait()
        return messages

    def _take(self) -> list[Message[Event]]:
        messages: list[Message[Event]] = []
        for handle, queued in list(self.messages.items()):
            if queued.hidden_until <= now() and len(messages) < 10:
                queued.receives += 1
                queued.hidden_until = now() + VISIBILITY_TIMEOUT
                self.received.append((now(), handle))
                messages.append(Message(handle, queued.event, queued.receives, "an excerpt"))
        return messages

    async def delete(self, handles: Sequence[str]) -> None:
        """Delete messages."""
        self._fail_if_scripted()
        if self.undeletable:
            raise CallError(self.undeletable, f"scripted: {self.undeletable.value}")
        for handle in handles:
            self.messages.pop(handle, None)

    async def release(self, handles: Sequence[str]) -> None:
        """Release messages."""
        self._fail_if_scripted()
        for handle in handles:
            if handle in self.messages:
                self.messages[handle].hidden_until = now()
                self._sent.set()

    def _fail_if_scripted(self) -> None:
        if self.delete_fault:
            raise CallError(self.delete_fault, f"scripted: {self.delete_fault.value}")
