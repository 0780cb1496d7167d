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
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.log_stream import START, Page, Position, Source, Stream, now

log = logging.getLogger(__name__)

MAX_PAGES = 32
"""The most pages that are requested, or delivered and not yet processed, for all streams of a reader."""

Fetch = Callable[[Source, Position], Awaitable[Page]]
"""Makes one call for the page at a position. Raises CallError."""


class Limiter(Protocol):
    """The rate limit of the calls."""

    async def acquire(self) -> float:
        """Wait for the turn of the next call."""


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

    def subscribe(self, source: Source, position: Position = START) -> Stream[Source]:
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
        self.schedule(stream, now())
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
        return self._due[0][0] - now() if self._due else float("inf")

    async def _read(self, stream: Stream[Source]) -> None:
        """Make one call for a stream, and record what it returns."""
        sent_at = now()
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
