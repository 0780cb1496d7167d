"""Events that cut a wait short: one listener reads a queue of them for all watchers that it may concern.

The caller hands in how messages are received, deleted and given back, and for each watcher what of its jobs an event is
about. The listener knows neither AWS nor Airflow.

How it goes: a message about a job that is waited for here has that job looked at, and is deleted. One that nobody here
waits for may be another process's: it goes back to the queue at once, and for a moment this process receives nothing,
so that another one does. When it has been received ``ENOUGH`` times it is taken for nobody's, and deleted: more
processes than that do not do well with one queue. What is no event of a job's is deleted. While messages are received,
the watchers sweep at the slow pace.

What always holds:

- An event tells a wait nothing: it only calls for a look. Late, doubled, reordered and false ones cost that look.
- A lost event costs time only: the slow sweep finds what it would have told.
- As long as the queue cannot be read, the watchers look at the waits' own pace; one line in the log says so, and one
  that it is over. The queue is asked again and again, less and less often. That goes for a bug here, too.
- The listener ends with the last watcher; if it dies, the watchers are back at the waits' own pace.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from airflow_jobflow.faults import CallError
from airflow_jobflow.polling.watcher import Watcher

log = logging.getLogger(__name__)

POLL = 20.0
"""Seconds for which a receive waits for a message, while the queue answers; the longest that SQS knows."""

ENOUGH = 3
"""How often a message that nobody waits for is received before it is deleted."""

MOST = 10
"""The most messages in a receive."""

TURN = 0.25
"""Seconds in which this process receives nothing, after it gave back what may be another's; none if more is waiting."""

PATIENCE = 2
"""How many receives in a row must fail before the queue counts as out of reach: a lost connection costs nothing."""

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True)
class Message(Generic[Event]):
    """A message of the queue.

    :param handle: what it is deleted and given back by.
    :param event: what it tells; None if it tells of no job.
    :param receives: how often it has been received by now, by whomever.
    :param excerpt: its beginning, for the log.
    """

    handle: str
    event: Event | None
    receives: int
    excerpt: str


Receive = Callable[[float], Awaitable[Sequence[Message[Event]] | None]]
"""Receives messages, waiting for the first for the given seconds; None where there is no queue, and never will be.
Raises CallError."""

Handle = Callable[[Sequence[str]], Awaitable[object]]
"""Does something with the messages of these handles, of which there is at least one. Raises CallError."""

About = Callable[[Event, KeysView[str]], Mapping[str, bool]]
"""Tells which of the jobs that are waited for an event is about, and whether each is to be looked at at once."""


class Listener(Generic[Event]):
    """Listens to one queue. Belongs to the event loop it is first joined on.

    :param receive: receives messages.
    :param delete: deletes messages.
    :param release: gives messages back to the queue, to be received again at once.
    :param slow_pace: seconds between two looks at a job that no event tells of.
    :param wake: wakes all in this process whom an event concerns, and tells whether there are any; by default the
        listener's own watchers.
    :param pause: returns the seconds to wait after so many failures in a row.
    :param close: called when the last watcher has left.
    """

    def __init__(
        self,
        receive: Receive[Event],
        delete: Handle,
        release: Handle,
        *,
        slow_pace: float = 300.0,
        wake: Callable[[Event], bool] | None = None,
        pause: Callable[[int], float] = lambda failures: min(30.0, 2.0 ** min(failures - 1, 10)),
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._receive = receive
        self._delete = delete
        self._release = release
        self._slow_pace = slow_pace
        self._wake = wake or self.wake
        self._pause = pause
        self._close = close
        self._watchers: dict[Watcher[Any], About[Event]] = {}
        self._flows = False
        """Whether the queue answers."""
        self._failures = 0
        self._lost = False
        """Whether the log says that the queue is out of reach."""
        self._stranger_seen = self._untidy = False
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the listener has run and is over; it can then not be joined again."""
        return self._task is not None and (self._task.done() or not self._watchers)

    def join(self, watcher: Watcher[Any], about: About[Event]) -> None:
        """Wake a watcher's jobs from now on, until it leaves.

        :param watcher: whom to wake.
        :param about: what an event is about.
        """
        if self.ended:
            raise RuntimeError("the listener has ended")
        self._watchers[watcher] = about
        watcher.sweep_every(self._slow_pace if self._flows else None)
        if self._task is None:
            # A context of its own: otherwise its log lines would land in the log of the task that came first.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._task.add_done_callback(self._over)

    def leave(self, watcher: Watcher[Any]) -> None:
        """Wake this watcher's jobs no more."""
        self._watchers.pop(watcher, None)
        if not self._watchers and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                # Whether the queue can be read is to be known at once, not after a long wait for a message.
                messages = await self._receive(POLL if self._flows else 0.0)
                if messages is None:
                    return
                await self._take(messages)
            except Exception as error:  # noqa: BLE001 -- a message it cannot make sense of, or a bug: said in the log
                await self._failed(error)
            else:
                self._answered()

    def _over(self, task: asyncio.Task[None]) -> None:
        """Leave the watchers to themselves, whatever ended the listener. A callback, as the watcher's."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("The event listener has died; jobs are polled at their own poll_interval", exc_info=error)
        self._flow(None)
        self._close()

    async def _take(self, messages: Sequence[Message[Event]]) -> None:
        """Wake whom the messages are about, and have the queue rid of all that is no other process's."""
        done: list[str] = []
        others: list[str] = []
        for message in messages:
            if message.event is None:
                self._note_stranger(message)
                done.append(message.handle)
            elif self._wake(message.event) or message.receives >= ENOUGH:
                done.append(message.handle)
            else:
                others.append(message.handle)
        try:
            if done:
                await self._delete(done)
            if others:
                await self._release(others)
                await asyncio.sleep(TURN if len(messages) < MOST else 0)
        except CallError as error:
            # What is not off the queue comes again, and wakes or goes back again: no harm but the calls.
            if not self._untidy:
                log.warning(
                    "Can receive events, but not delete or return them, so they will be delivered again: %s", error
                )
            self._untidy = True
            await asyncio.sleep(self._pause(1))

    def wake(self, event: Event) -> bool:
        """Wake the jobs of the listener's watchers that an event is about; return whether there are any."""
        known = False
        for watcher, about in self._watchers.items():
            for job_id, at_once in about(event, watcher.job_ids).items():
                watcher.wake(job_id, at_once=at_once)
                known = True
        return known

    def _note_stranger(self, message: Message[Event]) -> None:
        if not self._stranger_seen:
            log.warning(
                "Deleted a message about no job from the event queue; others like it are deleted silently: %r",
                message.excerpt,
            )
        self._stranger_seen = True

    def _answered(self) -> None:
        self._failures = 0
        if not self._flows:
            log.info("Receiving events: jobs without events are polled every %g s", self._slow_pace)
            self._lost = False
            self._flow(self._slow_pace)

    async def _failed(self, error: Exception) -> None:
        """Rest after a receive that failed; say so once, when it has failed again."""
        self._failures += 1
        if self._failures >= PATIENCE and not self._lost:
            log.warning(
                "Cannot receive events; until that works, jobs are polled at their own poll_interval: %s",
                error,
                exc_info=None if isinstance(error, CallError) else error,
            )
            self._lost = True
            self._flow(None)
        await asyncio.sleep(self._pause(self._failures))

    def _flow(self, slow_pace: float | None) -> None:
        """Tell all watchers their pace: the slow one where events flow, None where they do not."""
        self._flows = slow_pace is not None
        for watcher in self._watchers:
            watcher.sweep_every(slow_pace)
