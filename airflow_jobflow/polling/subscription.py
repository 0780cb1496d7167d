"""The two ends of a wait: the subscription that the waiter iterates, and the watcher's record of each job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from airflow_jobflow.polling.errors import WatchError

Answer = TypeVar("Answer")


class Subscription(Generic[Answer]):
    """One wait for jobs. Iterate it for ``(job_id, answer)`` or ``(job_id, WatchError)`` each time a job changes.

    After an error, nothing more follows about its job. The iteration never ends by itself: break out of it, and leave
    the ``with`` block of the subscription to unsubscribe.

    :param job_ids: the jobs' ids.
    :param interval: seconds between two describe calls for one job.
    :param unsubscribe: called for each job when the ``with`` block is left.
    """

    # Small on purpose: there are thousands, and Python's garbage collector stops the event loop to walk them all.
    __slots__ = ("_arrived", "_errors", "_last", "_pending", "_unsubscribe", "interval", "job_ids")

    def __init__(
        self, job_ids: tuple[str, ...], interval: float, unsubscribe: Callable[[str, Subscription[Answer]], None]
    ) -> None:
        self.job_ids = job_ids
        self.interval = interval
        self._unsubscribe = unsubscribe
        self._arrived: asyncio.Future[None] | None = None
        """Set when something arrives. An asyncio.Event would cost ten thousand waits twice the memory."""
        self._last: dict[str, Answer] = {}
        """The answer that was returned last, by job."""
        self._pending: dict[str, Answer] = {}
        self._errors: dict[str, WatchError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for job_id in self.job_ids:
            self._unsubscribe(job_id, self)

    def __aiter__(self) -> Subscription[Answer]:
        return self

    async def __anext__(self) -> tuple[str, Answer | WatchError]:
        while not (self._pending or self._errors):
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._pending:
            job_id, answer = next(iter(self._pending.items()))
            self._last[job_id] = self._pending.pop(job_id)
            return job_id, answer
        job_id = next(iter(self._errors))
        return job_id, self._errors.pop(job_id)

    def publish(self, job_id: str, answer: Answer) -> None:
        """Record what a call returned for a job, for the waiter if it differs from the last. Called by the watcher.

        :param job_id: the job's id.
        :param answer: what the call returned.
        """
        if self._last.get(job_id) != answer:
            self._pending[job_id] = answer
            self._wake()
        else:
            self._pending.pop(job_id, None)

    def fail(self, job_id: str, error: WatchError) -> None:
        """Record a terminal error for a job. Called by the watcher.

        :param job_id: the job's id.
        :param error: why the job cannot be watched any longer.
        """
        self._errors[job_id] = error
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class PolledJob(Generic[Answer]):
    """A job for which there is at least one wait: what the watcher knows about it.

    :param job_id: the job's id.
    :param order: breaks the tie between jobs that are due at the same time.
    """

    __slots__ = (
        "answered_sent_at",
        "due",
        "interval",
        "job_id",
        "missing_since",
        "order",
        "polled_alone",
        "queued",
        "removed",
        "sent_at",
        "waits",
        "woken_at",
    )

    def __init__(self, job_id: str, order: int) -> None:
        self.job_id = job_id
        self.order = order
        self.interval = float("inf")
        """Seconds between two polls: the shortest of its waits' intervals, or ``event_poll_interval``."""
        self.due: float | None = None
        """When it is polled next, which distinguishes its current entry in the schedule from outdated ones."""
        self.queued = False
        """Whether it is scheduled; if not, a call for it is under way."""
        self.removed = False
        """Whether no wait is left, or all have failed."""
        self.polled_alone = False
        """Whether a call for it alone was refused, so that other jobs do not share its calls."""
        self.missing_since: float | None = None
        """Since when the service does not know it; None if it does."""
        self.sent_at = self.answered_sent_at = float("-inf")
        """When the newest call for it was sent, and the newest that was answered. Calls for a job may overlap."""
        self.woken_at: float | None = None
        """When an event or a new wait last requested a poll; None once ``event_poll_interval`` applies again."""
        self.waits: list[Subscription[Answer]] = []
