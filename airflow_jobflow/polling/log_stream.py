"""One subscription to a log stream: when its next call is due, and when it ends. See ``log_reader``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from airflow_jobflow.faults import CallError, Fault

MIN_INTERVAL, MAX_INTERVAL = 2.0, 10.0
"""Seconds until the next call for a stream: after one that returned lines, and at most after many that did not."""

INTERVAL_GROWTH = 1.5
"""The factor by which the interval grows with each call that returns no lines."""

ARRIVAL = 5.0
"""Seconds after the end of a job for which its log is read: the last lines of a job arrive late."""

MISSING_NOTICE = 60.0
"""Seconds after which the subscriber is notified of a stream that does not exist. Most appear within seconds."""

MAX_REFUSALS = 4
"""How many calls for a stream are refused in a row before it ends."""

REFUSED_PAUSE, MAX_PAUSE = 5.0, 30.0
"""Seconds before a refused call is repeated; doubled each time. The longest pause before any call is repeated."""

Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream was read.

    :param token: names the next page. Default None: the first page.
    :param timestamp: of the newest event that was read, in milliseconds since the epoch. From there reading continues
        if the token has expired. Default 0: the beginning.
    """

    token: str | None = None
    timestamp: int = 0


START = Position()
"""The beginning of a stream."""


@dataclass(frozen=True, slots=True)
class Page:
    """The response of one call for a stream.

    :param lines: the lines.
    :param position: how far the stream was read with this page.
    :param is_last: whether the stream has no more pages now. Default True.
    :param is_behind: whether the next page is read at once, because it is likely to have lines. Default False.
    :param missing: why there is no such stream; empty if there is. Default empty.
    """

    lines: Sequence[str]
    position: Position
    is_last: bool = True
    is_behind: bool = False
    missing: str = ""


class Schedule(Protocol[Source]):
    """What a stream needs from its reader."""

    def schedule(self, stream: Stream[Source], due: float) -> None:
        """Set when the next call for a stream is due.

        :param stream: the subscription.
        :param due: in seconds of the event loop's clock.
        """

    def release(self, stream: Stream[Source]) -> None:
        """Schedule the next call for a stream whose delivered page was processed.

        :param stream: the subscription.
        """

    def unsubscribe(self, stream: Stream[Source]) -> None:
        """Stop reading a stream.

        :param stream: the subscription.
        """


class Stream(Generic[Source]):
    """A subscription to one log stream: a context manager, to iterate for pages with lines.

    Iterating ends after the last page; it raises ``CallError`` if the stream cannot be read. A page without lines is
    delivered only to say that the stream is missing.

    :param reader: its reader.
    :param source: names the stream.
    :param position: where to start.
    :param order: breaks the tie between streams that are due at the same time.
    """

    def __init__(self, reader: Schedule[Source], source: Source, position: Position, order: int) -> None:
        self.source = source
        self.position = position
        """How far it was read, including the page that was delivered last."""
        self.order = order
        self.due: float | None = None
        """When the next call is due; None while one is under way, or its page is being processed."""
        self.is_held = False
        """Whether the page that was delivered last is still being processed."""
        self.is_over = False
        self._reader = reader
        self._followed_at = now()
        self._ended_at = float("inf")
        self._interval = MIN_INTERVAL
        self._next_due = self._followed_at
        self._failures = self._refusals = 0
        self._was_missing = False
        """Whether the subscriber was notified that the stream is missing."""
        self._page: Page | None = None
        self._error: CallError | None = None
        self._arrived: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.unsubscribe(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page:
        self._reader.release(self)
        while self._page is None and self._error is None and not self.is_over:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._page is not None:
            page, self._page = self._page, None
            return page
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def end(self, at: float) -> None:
        """Read to the end and then stop, because the job has ended.

        :param at: when it ended, in seconds of the event loop's clock.
        """
        self._ended_at = min(self._ended_at, at)
        if self.due is not None:
            self._reader.schedule(self, min(self.due, max(now(), self._ended_at + ARRIVAL)))

    def received(self, page: Page, sent_at: float) -> float | None:
        """Record the response of a call, and deliver it if it has lines.

        :param page: what the call returned.
        :param sent_at: when it was sent, in seconds of the event loop's clock.
        :return: when the next call is due; None if the page must be processed first, or was the last one.
        """
        self._failures = self._refusals = 0
        self._interval = MIN_INTERVAL if page.lines else min(MAX_INTERVAL, self._interval * INTERVAL_GROWTH)
        self.position = page.position
        self.is_over = page.is_last and sent_at >= self._ended_at + ARRIVAL
        due = sent_at if page.is_behind else sent_at + self._interval
        is_missing_for_long = self.is_over or sent_at >= self._followed_at + MISSING_NOTICE
        is_news = bool(page.missing) and not self._was_missing and is_missing_for_long
        self._was_missing = self._was_missing or is_news
        if page.lines or is_news:
            self._page, self.is_held = page, True
            self._next_due = due
        self._wake()
        return None if self.is_held or self.is_over else self._not_after_the_end(due)

    def failed(self, error: CallError) -> float | None:
        """Record a call that failed.

        :param error: the failure.
        :return: when it is repeated; None if it is not.
        """
        at = now()
        if error.fault is Fault.THROTTLED:  # the rate limiter holds back the next call
            return at + MIN_INTERVAL
        if error.fault is Fault.TRANSIENT:
            self._failures += 1
            return at + min(MAX_PAUSE, 2.0 ** min(self._failures, 10))
        self._refusals += 1
        if self._refusals >= MAX_REFUSALS or at >= self._ended_at + MAX_PAUSE:
            self.fail(error)
            return None
        if error.fault is Fault.REJECTED and self.position.token:  # a token expires after 24 hours
            self.position = replace(self.position, token=None)
            return at
        return at + min(MAX_PAUSE, REFUSED_PAUSE * 2.0 ** (self._refusals - 1))

    def fail(self, error: CallError) -> None:
        """End the stream, because it cannot be read.

        :param error: why.
        """
        self.is_over, self._error = True, error
        self._wake()

    def next_due(self) -> float:
        """Return when the next call is due after a page that was processed."""
        return self._not_after_the_end(self._next_due)

    def _not_after_the_end(self, due: float) -> float:
        """Return the earlier one of a time and the time at which the last lines have arrived."""
        return min(due, max(now(), self._ended_at + ARRIVAL))

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def now() -> float:
    """Return the time of the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
