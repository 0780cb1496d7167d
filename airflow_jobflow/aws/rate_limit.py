"""How often AWS may be called: one rate for all callers, halved by throttling, recovering while calls succeed.

Callers in any thread and on any event loop wait in one queue. A scope with one call waits no longer than a map with a
thousand, because a map has only a few calls in the queue at a time. Further calls of a function that has started come
first, because it holds a thread.

Invariants:

- Calls are ``1 / rate`` seconds apart, except that a call makes up for a timer that was late. So in any second there
  are at most as many calls as the rate, rounded up, plus one.
- The rate never falls to zero: a wait must end even while AWS throttles every call.
- Nothing blocks the queue: a cancelled caller leaves it, and a caller that does not take its turn loses it.
- All methods may be called from any thread, and from a signal handler. A caller in a signal handler does not wait for
  the callers of its own thread that it has interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable

RECOVERY = 60.0
"""Seconds in which the slowest rate grows back to the whole budget. Long, so that a service that throttles below the
budget rejects one call in many instead of every other one."""

MIN_RATE = 0.1
"""Calls a second that remain however often AWS throttles."""

FIRST_DELAY, MAX_DELAY = 1.0, 30.0
"""Seconds before a failed call is repeated: the first upper bound, which doubles, and the last."""

EARLY = 1e-6
"""Seconds by which a call may come too early, so that rounding does not set timers of zero length."""

OVERDUE = 5.0
"""Seconds after which the next caller goes ahead of one that has not taken its turn: its event loop is blocked or has
ended, or its thread was interrupted by a signal handler that itself waits."""


class _Ticket:
    """A caller's place in the queue.

    :param wake: makes the caller check again; callable from any thread and any signal handler.
    :param blocks: whether the caller blocks its thread.
    :param goes_on: whether this is a further call of a function that has started. Default False.
    """

    __slots__ = ("blocks", "goes_on", "queued", "thread", "waited", "wake")

    def __init__(self, wake: Callable[[], object], *, blocks: bool, goes_on: bool = False) -> None:
        self.wake = wake
        self.blocks = blocks
        self.goes_on = goes_on
        self.thread = threading.get_ident()
        self.queued = False
        self.waited = False
        """Whether it had to wait."""


class RateLimiter:
    """The rate of one kind of calls of one client.

    :param calls_per_second: the budget; above 0.
    :param clock: returns the time in seconds.
    """

    def __init__(self, calls_per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = calls_per_second
        self.rate = calls_per_second
        """Calls a second that are allowed now: the budget, or less after throttling."""
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread inside a method
        self._queue: deque[_Ticket] = deque()
        self._first_since = float("-inf")
        """When the first in the queue became the first."""
        self._next_call = float("-inf")
        self._slowed_at = self._grown_at = float("-inf")

    async def acquire(self) -> float:
        """Wait for a turn without blocking the event loop.

        :return: when the turn came, in seconds by the limiter's clock.
        """
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

        ticket = _Ticket(wake, blocks=False)
        try:
            while (rest := self._rest(ticket)) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await event.wait()
                event.clear()
        finally:
            self._leave(ticket)
        return self._clock()

    def acquire_blocking(self, *, goes_on: bool = False) -> float:
        """Wait for a turn, blocking this thread.

        :param goes_on: whether this is a further call of a function that has started. It then comes before calls of
            functions that have not: it holds one of a few threads, which otherwise might all wait here. Default False.
        :return: when the turn came, in seconds by the limiter's clock.
        """
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()  # unlike an Event, it may be set by a signal handler
        ticket = _Ticket(lambda: woken.put(None), blocks=True, goes_on=goes_on)
        try:
            while (rest := self._rest(ticket)) > 0:
                with contextlib.suppress(queue.Empty):
                    woken.get(timeout=rest)
        finally:
            self._leave(ticket)
        return self._clock()

    def throttled(self, sent_at: float) -> None:
        """Halve the rate, unless the call was sent before it was last halved.

        :param sent_at: when the throttled call was sent, in seconds by the limiter's clock.
        """
        with self._lock:
            if sent_at < self._slowed_at:
                return
            now = self._clock()
            self.rate = max(self.rate / 2, min(MIN_RATE, self.budget))
            self._slowed_at = self._grown_at = now
            self._next_call = max(self._next_call, now + 1 / self.rate)

    def succeeded(self) -> None:
        """Raise the rate for the time since the last call that succeeded."""
        with self._lock:
            now = self._clock()
            if self.rate < self.budget:
                self.rate = min(self.budget, self.rate + self.budget * (now - self._grown_at) / RECOVERY)
            self._grown_at = now

    def _rest(self, ticket: _Ticket) -> float:
        """Take the turn if it has come, and return 0; otherwise return the seconds after which to check again.

        Only the first in the queue sets a timer for its turn. The others are woken, or check whether it is overdue.
        """
        with self._lock:
            now = self._clock()
            if not ticket.queued:
                self._enter(ticket, now)
            while not self._is_next(ticket) and now >= max(self._next_call, self._first_since) + OVERDUE:
                self._skip(self._queue[0], ticket)
            if not self._is_next(ticket):
                rest = max(self._next_call, self._first_since) + OVERDUE - now
            elif now < self._next_call - EARLY:
                rest = self._next_call - now
            else:
                # Timers are always a little late. The next turn makes up for that, but not for a long pause.
                latest = now - 0.5 / self.rate if ticket.waited else now
                self._next_call = max(self._next_call, latest) + 1 / self.rate
                self._leave(ticket)
                rest = 0.0
            ticket.waited = True
            return rest

    def _is_next(self, ticket: _Ticket) -> bool:
        """Return whether the only callers ahead in the queue are those that cannot continue before this one does."""
        for other in list(self._queue):  # a signal handler may change it meanwhile
            if other is ticket:
                return True
            if not (ticket.blocks and other.thread == ticket.thread):
                return False
        return False

    def _skip(self, overdue: _Ticket, ticket: _Ticket) -> None:
        """Remove a caller that has not taken its turn from the queue, and all others on its blocked event loop."""
        if overdue.blocks or overdue.thread == ticket.thread:
            self._leave(overdue)
            return
        for other in [each for each in self._queue if each.thread == overdue.thread and not each.blocks]:
            self._leave(other)

    def _enter(self, ticket: _Ticket, now: float) -> None:
        ticket.queued = True
        if ticket.waited:  # it was removed as overdue, and is back
            self._queue.appendleft(ticket)
        elif ticket.goes_on:
            waiting = list(self._queue)  # a signal handler may change it meanwhile
            self._queue.insert(sum(1 for _ in itertools.takewhile(lambda each: each.goes_on, waiting)), ticket)
        else:
            self._queue.append(ticket)
        if self._queue[0] is ticket:
            self._first_since = now

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            if not ticket.queued:
                return
            was_first = self._queue[0] is ticket
            self._queue.remove(ticket)
            ticket.queued = False
            if was_first and self._queue:
                self._first_since = self._clock()
                self._queue[0].wake()


def backoff(failures: int, longest: float = MAX_DELAY) -> float:
    """Return the upper bound of the seconds to wait after so many failures in a row: 1, 2, 4 … 30.

    :param failures: at least 1.
    :param longest: the largest bound, in seconds.
    """
    return min(longest, FIRST_DELAY * 2.0 ** min(failures - 1, 10))


def full_jitter(seconds: float) -> float:
    """Return a random time up to the given one, so that callers that failed together do not retry together.

    :param seconds: the longest time.
    """
    return random.uniform(0, seconds)  # noqa: S311 -- spreads calls, protects nothing
