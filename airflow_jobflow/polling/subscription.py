"""The two ends of a wait: what a waiter holds, and what the watcher keeps of a job that is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from airflow_jobflow.polling.errors import WatchError

Answer = TypeVar("Answer")


class Subscription(Generic[Answer]):
    """One waiter's view of its jobs: iterate for ``(job_id, answer)``, or ``(job_id, WatchError)``, at each change.

    An error is the last word on its job. The iteration itself never ends: leave it when you know enough, by leaving
    the ``with`` block of the wait.
    """

    # Small on purpose: there are thousands, and Python's garbage collector stops the event loop to walk them all.
    __slots__ = ("_arrived", "_errors", "_last", "_leave", "_news", "interval", "job_ids")

    def __init__(
        self, job_ids: tuple[str, ...], interval: float, leave: Callable[[str, Subscription[Answer]], None]
    ) -> None:
        self.job_ids = job_ids
        self.interval = interval
        self._leave = leave
        self._arrived: asyncio.Future[None] | None = None
        """Whom to tell that there is news; an asyncio.Event would cost ten thousand waits twice the memory."""
        self._last: dict[str, Answer] = {}
        """What was read last of each job."""
        self._news: dict[str, Answer] = {}
        self._errors: dict[str, WatchError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for job_id in self.job_ids:
            self._leave(job_id, self)

    def __aiter__(self) -> Subscription[Answer]:
        return self

    async def __anext__(self) -> tuple[str, Answer | WatchError]:
        while not (self._news or self._errors):
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._news:
            job_id, news = next(iter(self._news.items()))
            self._last[job_id] = self._news.pop(job_id)
            return job_id, news
        job_id = next(iter(self._errors))
        return job_id, self._errors.pop(job_id)

    def tell(self, job_id: str, news: Answer) -> None:
        """Take in what a call answered; the watcher's side of the wait."""
        if self._last.get(job_id) != news:
            self._news[job_id] = news
            self._wake()
        else:
            self._news.pop(job_id, None)

    def fail(self, job_id: str, error: WatchError) -> None:
        """Take in the last word on a job; the watcher's side of the wait."""
        self._errors[job_id] = error
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class PolledJob(Generic[Answer]):
    """A job that somebody waits for: the watcher's side of one or more waits."""

    __slots__ = (
        "alone",
        "described_at",
        "due",
        "forgotten",
        "interval",
        "job_id",
        "known_of",
        "missing_since",
        "order",
        "queued",
        "waits",
        "woken_at",
    )

    def __init__(self, job_id: str, order: int) -> None:
        self.job_id = job_id
        self.order = order
        """Its place among those that are due at the same time."""
        self.interval = float("inf")
        """Seconds between two looks: the shortest of its waits' intervals, or the slow pace."""
        self.due: float | None = None
        """When it is to be looked at; tells its place in the heap from those it has left behind."""
        self.queued = False
        """Whether it stands on the agenda; if not, a call is on its way."""
        self.forgotten = False
        """Whether nobody waits for it any more, or its last word has been said."""
        self.alone = False
        """Whether a call for it alone was refused, so that it is kept out of the calls for others."""
        self.missing_since: float | None = None
        self.described_at = self.known_of = float("-inf")
        """When the newest call was sent, and the newest that was answered; calls about a job may overlap."""
        self.woken_at: float | None = None
        """When an event, or a new wait, last called for a look; None once that is long enough ago to be slow again."""
        self.waits: list[Subscription[Answer]] = []
