"""Reads many log streams with few calls: one reader for all streams of a connection and region. asyncio only.

The rate limit is shared fairly: the stream that has been due for longest gets the next call. A stream with new lines is
due again soon, one without new lines after growing pauses, and one with more pages at once, but behind all that are due
already.

Invariants:

- A stream's pages are delivered in order, and its position moves only with a delivered page. So a call that fails, or
  a burst, loses nothing.
- The next page of a stream is requested when the subscriber asks for it. At most ``MAX_PAGES`` pages are in memory, so
  a slow subscriber costs time and not memory.
- A stream ends when its job has ended and a later call has returned its last page, or when calls for it are refused
  repeatedly. Throttling, 5xx, timeouts and a stream that does not exist yet end nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from airflow_jobflow.faults import CallError, Fault

log = logging.getLogger(__name__)

MIN_INTERVAL, MAX_INTERVAL = 2.0, 10.0
"""Seconds until the next call for a stream: after one that returned lines, and at most after many that did not."""

INTERVAL_GROWTH = 1.5
"""The factor by which the interval grows with each call that returns no lines."""

ARRIVAL = 5.0
"""Seconds after the end of a job for which its log is read: the last lines of a job arrive late."""

MISSING_NOTICE = 60.0
"""Seconds after which the subscriber is notified of a stream that does not exist. Most appear within seconds."""

MAX_PAGES = 32
"""The most pages that are requested, or delivered and not yet processed, for all streams of a reader."""

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


@dataclass(frozen=True, slots=True)
class Page:
    """What a call returned of a stream.

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


Fetch = Callable[[Source, Position], Awaitable[Page]]
"""Makes one call for the page at a position. Raises CallError."""


class Limiter(Protocol):
    """The rate limit of the calls."""

    async def acquire(self) -> float:
        """Wait for the turn of the next call."""


class Stream(Generic[Source]):
    """A subscription to one log stream: a context manager, to iterate for pages with lines.

    Iterating ends after the last page; it raises ``CallError`` if the stream cannot be read. A page without lines is
    delivered only to say that the stream is missing.

    :param reader: its reader.
    :param source: names the stream.
    :param position: where to start.
    :param order: breaks the tie between streams that are due at the same time.
    """

    def __init__(self, reader: LogReader[Source], source: Source, position: Position, order: int) -> None:
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
        self._followed_at = _now()
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
            self._reader.schedule(self, min(self.due, max(_now(), self._ended_at + ARRIVAL)))

    def received(self, page: Page, sent_at: float) -> float | None:
        """Record the response of a call, and deliver it if it has lines.

        :param page: what the call returned.
        :param sent_at: when it was sent, in seconds of the event loop's clock.
        :return: when the next call is due; None for none, for the page has to be processed first, or was the last.
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
        now = _now()
        if error.fault is Fault.THROTTLED:  # the rate limiter holds back the next call
            return now + MIN_INTERVAL
        if error.fault is Fault.TRANSIENT:
            self._failures += 1
            return now + min(MAX_PAUSE, 2.0 ** min(self._failures, 10))
        self._refusals += 1
        if self._refusals >= MAX_REFUSALS or now >= self._ended_at + MAX_PAUSE:
            self.fail(error)
            return None
        if error.fault is Fault.REJECTED and self.position.token:  # a token expires after 24 hours
            self.position = replace(self.position, token=None)
            return now
        return now + min(MAX_PAUSE, REFUSED_PAUSE * 2.0 ** (self._refusals - 1))

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
        """Return a time, or an earlier one at which the last lines have arrived."""
        return min(due, max(_now(), self._ended_at + ARRIVAL))

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class LogReader(Generic[Source]):
    """Reads log streams. Belongs to the event loop of its first subscription, and ends with its last one.

    :param fetch: makes one call.
    :param limiter: the rate limit of the calls.
    :param close: called when the reader has ended. Default: nothing.
    """

    def __init__(self, fetch: Fetch[Source], limiter: Limiter, *, close: Callable[[], object] = lambda: None) -> None:
        self._fetch = fetch
        self._limiter = limiter
        self._close = close
        self._streams: set[Stream[Source]] = set()
        self._due: list[tuple[float, int, Stream[Source]]] = []
        self._orders = itertools.count()
        self._slots = asyncio.Semaphore(MAX_PAGES)
        self._changed = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the reader has run and ended. It then accepts no subscriptions."""
        return self._runner is not None and (self._runner.done() or not self._streams)

    def subscribe(self, source: Source, position: Position = Position()) -> Stream[Source]:
        """Read a stream until the ``with`` block of the subscription is left.

        :param source: names the stream.
        :param position: where to start. Default: at the beginning.
        :return: the subscription, for a ``with`` statement.
        :raises RuntimeError: the reader has ended.
        """
        if self.ended:
            raise RuntimeError("the log reader has ended")
        stream = Stream(self, source, position, next(self._orders))
        self._streams.add(stream)
        self.schedule(stream, _now())
        if self._runner is None:
            # In a context of its own: otherwise its lines would go to the log of the task that subscribed first.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._runner.add_done_callback(self._finish)
        return stream

    def unsubscribe(self, stream: Stream[Source]) -> None:
        """Stop reading a stream.

        :param stream: the subscription.
        """
        self._release_slot(stream)
        stream.due = None
        self._streams.discard(stream)
        if not self._streams and self._runner is not None:
            self._runner.cancel()  # it may be waiting for the rate limiter

    def schedule(self, stream: Stream[Source], due: float) -> None:
        """Set when the next call for a stream is due.

        :param stream: the subscription.
        :param due: in seconds of the event loop's clock.
        """
        stream.due = due
        heapq.heappush(self._due, (due, stream.order, stream))
        self._changed.set()

    def release(self, stream: Stream[Source]) -> None:
        """Schedule the next call for a stream whose delivered page was processed.

        :param stream: the subscription.
        """
        if stream.is_held:
            self._release_slot(stream)
            if not stream.is_over:
                self.schedule(stream, stream.next_due())

    def _release_slot(self, stream: Stream[Source]) -> None:
        if stream.is_held:
            stream.is_held = False
            self._slots.release()

    async def _run(self) -> None:
        while self._streams:
            if (seconds := self._due_in()) > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if seconds == float("inf") else seconds):
                        await self._changed.wait()
                continue
            await self._slots.acquire()
            await self._limiter.acquire()
            if self._due_in() > 0:  # the stream was unsubscribed meanwhile
                self._slots.release()
                continue
            _, _, stream = heapq.heappop(self._due)
            stream.due = None
            call = asyncio.create_task(self._read(stream))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _due_in(self) -> float:
        """Return the seconds until the next call is due, after removing outdated entries; infinity if none is."""
        while self._due and self._due[0][2].due != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] - _now() if self._due else float("inf")

    async def _read(self, stream: Stream[Source]) -> None:
        """Make one call for a stream, and record what it returns."""
        sent_at = _now()
        try:
            due = stream.received(await self._fetch(stream.source, stream.position), sent_at)
        except CallError as error:
            due = stream.failed(error)
        except Exception as error:  # a response that fetch cannot read, or a bug
            log.exception("Unexpected error while reading log stream %s", stream.source)
            due = stream.failed(CallError(Fault.REJECTED, f"unexpected error: {error!r}"))
        except asyncio.CancelledError:
            if self.ended:
                raise
            # Nobody cancelled this task, so something that fetch awaits was cancelled.
            due = stream.failed(CallError(Fault.TRANSIENT, "the call was cancelled"))
        finally:
            if not stream.is_held:
                self._slots.release()
        if stream not in self._streams:
            self._release_slot(stream)
        elif due is not None:
            self.schedule(stream, due)

    def _finish(self, runner: asyncio.Task[None]) -> None:
        """End the streams that are left, whatever ended the runner.

        A callback, because a runner that is cancelled before it starts executes no ``finally``.
        """
        cause = None if runner.cancelled() else runner.exception()
        if cause is not None:
            log.error("The log reader crashed; jobs' logs are no longer copied", exc_info=cause)
        for stream in self._streams:
            stream.fail(CallError(Fault.TRANSIENT, f"the log reader ended: {cause!r}"))
        for call in self._calls:
            call.cancel()
        self._close()


def _now() -> float:
    return asyncio.get_running_loop().time()
