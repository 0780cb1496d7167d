"""Events that shorten waits: one listener reads a queue of events for all watchers that they may concern.

The caller passes functions that receive, delete and release messages, and for each watcher a function that returns
which of its jobs an event concerns. The listener knows neither AWS nor Airflow.

- A message about a job that is watched here makes that job be described, and is deleted.
- Nobody here may wait for the job because another process does. Then the message is released at once, and this process
  pauses for a moment so that another one receives it. After ``MAX_RECEIVES`` deliveries it is deleted: nobody seems to
  wait for it, and more processes than that should not share a queue.
- A message that is not an event about a job is deleted.
- While messages can be received, watchers poll jobs without events only every ``event_poll_interval`` seconds.

Invariants:

- An event publishes nothing to a wait, it only requests a describe call. Late, duplicate, reordered and false events
  cost one call.
- A lost event costs only time: polling finds the change.
- Messages for other processes are released even if others could not be deleted.
- While the queue cannot be read, jobs are polled at the intervals of their waits. One log line reports that, and one
  that it is over. The queue is tried again and again, with growing pauses; also after a bug in this module.
- The listener ends with its last watcher. If it crashes, jobs are polled at the intervals of their waits.
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

LONG_POLL = 20.0
"""Seconds for which a receive waits for a message while the queue can be read: the maximum of SQS."""

MAX_RECEIVES = 3
"""How often a message that nobody waits for is received before it is deleted."""

MAX_MESSAGES = 10
"""The most messages in a receive."""

RELEASE_PAUSE = 0.25
"""Seconds for which this process receives nothing after it has released messages, unless more are waiting."""

FAILURES_TOLERATED = 1
"""How many receives in a row may fail before jobs are polled at their waits' intervals: lost connections are common."""

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True)
class Message(Generic[Event]):
    """A message of the queue.

    :param receipt: the handle by which it is deleted or released.
    :param event: what it reports; None if it is not an event about a job.
    :param receives: how often it has been received, by any process.
    :param excerpt: its beginning, for the log.
    """

    receipt: str
    event: Event | None
    receives: int
    excerpt: str


Receive = Callable[[float], Awaitable[Sequence[Message[Event]] | None]]
"""Receives messages, waiting for the first for the given seconds; None if there is no queue, for good. Raises
CallError."""

Change = Callable[[Sequence[str]], Awaitable[object]]
"""Deletes or releases the messages with these receipts, of which there is at least one. Raises CallError."""

FindJobs = Callable[[Event, KeysView[str]], Mapping[str, bool]]
"""Returns which of the watched jobs an event concerns, and whether each is to be described at once."""


class Listener(Generic[Event]):
    """Listens to one queue. Belongs to the event loop of its first subscription.

    :param receive: receives messages.
    :param delete: deletes messages.
    :param release: returns messages to the queue, to be received again at once.
    :param event_poll_interval: seconds between two describe calls for a job without events. Default 300.
    :param wake: wakes all jobs in this process that an event concerns, and returns whether there are any. Default: the
        listener's own watchers.
    :param pause: returns the seconds to wait after so many failures in a row. Default: 1, 2, 4 … 30.
    :param close: called when the last watcher has unsubscribed.
    """

    def __init__(
        self,
        receive: Receive[Event],
        delete: Change,
        release: Change,
        *,
        event_poll_interval: float = 300.0,
        wake: Callable[[Event], bool] | None = None,
        pause: Callable[[int], float] = lambda failures: min(30.0, 2.0 ** min(failures - 1, 10)),
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._receive = receive
        self._delete = delete
        self._release = release
        self._event_poll_interval = event_poll_interval
        self._wake = wake or self.wake
        self._pause = pause
        self._close = close
        self._watchers: dict[Watcher[Any], FindJobs[Event]] = {}
        self._is_receiving = False
        """Whether the queue can be read."""
        self._failures = 0
        self._logged_failure = False
        self._logged_unreadable = self._logged_change_failure = False
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the listener has run and ended. It then accepts no subscriptions."""
        return self._task is not None and (self._task.done() or not self._watchers)

    def subscribe(self, watcher: Watcher[Any], find_jobs: FindJobs[Event]) -> None:
        """Wake a watcher's jobs from now on, until it unsubscribes.

        :param watcher: the watcher.
        :param find_jobs: returns which of its jobs an event concerns.
        :raises RuntimeError: the listener has ended.
        """
        if self.ended:
            raise RuntimeError("the listener has ended")
        self._watchers[watcher] = find_jobs
        watcher.set_event_poll_interval(self._event_poll_interval if self._is_receiving else None)
        if self._task is None:
            # A context of its own: otherwise its log lines would land in the log of the task that subscribed first.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._task.add_done_callback(self._finish)

    def unsubscribe(self, watcher: Watcher[Any]) -> None:
        """Stop waking a watcher's jobs.

        :param watcher: the watcher.
        """
        self._watchers.pop(watcher, None)
        if not self._watchers and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                # The first receive does not wait, so that it is known at once whether the queue can be read.
                messages = await self._receive(LONG_POLL if self._is_receiving else 0.0)
                if messages is None:
                    return
                await self._handle(messages)
            except Exception as error:  # noqa: BLE001 -- an unreadable message, or a bug; it is logged
                await self._failed(error)
            else:
                self._succeeded()

    def _finish(self, task: asyncio.Task[None]) -> None:
        """Let the watchers poll without events, whatever ended the listener. A callback, as the watcher's."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("The event listener crashed; jobs are polled at their own poll_interval", exc_info=error)
        self._set_receiving(is_receiving=False)
        self._close()

    async def _handle(self, messages: Sequence[Message[Event]]) -> None:
        """Wake the jobs that messages concern; delete these messages, and release those for other processes."""
        handled: list[str] = []
        others: list[str] = []
        for message in messages:
            if message.event is None:
                self._log_unreadable(message)
                handled.append(message.receipt)
            elif self._wake(message.event) or message.receives >= MAX_RECEIVES:
                handled.append(message.receipt)
            else:
                others.append(message.receipt)
        failures: list[CallError] = []
        for change, receipts in ((self._delete, handled), (self._release, others)):
            try:
                if receipts:
                    await change(receipts)
            except CallError as error:  # the other change concerns other messages
                failures.append(error)
        if failures:
            # The queue delivers the messages again, and they are handled again: that costs only calls.
            if not self._logged_change_failure:
                log.warning(
                    "Can receive events, but not delete or return them, so they will be delivered again: %s",
                    failures[0],
                )
            self._logged_change_failure = True
            await asyncio.sleep(self._pause(1))
        elif others:
            await asyncio.sleep(RELEASE_PAUSE if len(messages) < MAX_MESSAGES else 0)

    def wake(self, event: Event) -> bool:
        """Wake the jobs of the listener's watchers that an event concerns.

        :param event: the event.
        :return: whether there are any.
        """
        found = False
        for watcher, find_jobs in self._watchers.items():
            for job_id, at_once in find_jobs(event, watcher.job_ids).items():
                watcher.wake(job_id, at_once=at_once)
                found = True
        return found

    def _log_unreadable(self, message: Message[Event]) -> None:
        if not self._logged_unreadable:
            log.warning(
                "Deleted a message about no job from the event queue; others like it are deleted silently: %r",
                message.excerpt,
            )
        self._logged_unreadable = True

    def _succeeded(self) -> None:
        self._failures = 0
        if not self._is_receiving:
            log.info("Receiving events: jobs without events are polled every %g s", self._event_poll_interval)
            self._logged_failure = False
            self._set_receiving(is_receiving=True)

    async def _failed(self, error: Exception) -> None:
        """Pause after a receive that failed; fall back to polling, and log that once, if it has failed again."""
        self._failures += 1
        if self._failures > FAILURES_TOLERATED and not self._logged_failure:
            log.warning(
                "Cannot receive events; until that works, jobs are polled at their own poll_interval: %s",
                error,
                exc_info=None if isinstance(error, CallError) else error,
            )
            self._logged_failure = True
            self._set_receiving(is_receiving=False)
        await asyncio.sleep(self._pause(self._failures))

    def _set_receiving(self, *, is_receiving: bool) -> None:
        """Record whether the queue can be read, and set how often all watchers poll jobs without events."""
        self._is_receiving = is_receiving
        for watcher in self._watchers:
            watcher.set_event_poll_interval(self._event_poll_interval if is_receiving else None)
