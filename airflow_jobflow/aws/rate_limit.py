"""How often AWS may be called: one rate for all callers, halved by throttling, recovering while calls succeed.

Callers wait in a queue, so that each gets its turn: a scope with one call waits no longer than a map with a thousand,
because a map has only a few calls waiting at a time.

Invariants:

- No stretch of a second holds more calls than the rate, rounded up, plus one.
- The rate never falls to zero: a wait must end even while AWS throttles every call.
- All methods may be called from any thread, and from a signal handler.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable

RECOVERY = 60.0
"""Seconds in which the slowest rate grows back to the whole budget. Slow, so that a service that throttles below the
budget rejects one call in many, not every other one."""

MIN_RATE = 0.1
"""Calls a second that remain however often AWS throttles."""

FIRST_DELAY, MAX_DELAY = 1.0, 30.0
"""Seconds before a failed call is repeated: the first upper bound, which doubles, and the last."""


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
        self._next_call = float("-inf")
        self._slowed_at = self._grown_at = float("-inf")
        self._newest = self._head = 0
        """Number of the newest ticket, and of the one whose turn is next."""
        self._abandoned: set[int] = set()

    async def acquire(self) -> float:
        """Wait for a turn without blocking the event loop.

        :return: the time at which the turn came, by the limiter's clock.
        """
        ticket = self._enter()
        try:
            while (rest := self._rest(ticket)) > 0:  # noqa: ASYNC110 -- the queue spans threads, and events do not
                await asyncio.sleep(rest)
        except BaseException:
            self._abandon(ticket)
            raise
        return self._clock()

    def acquire_blocking(self) -> float:
        """Wait for a turn, blocking this thread.

        :return: the time at which the turn came, by the limiter's clock.
        """
        ticket = self._enter()
        try:
            while (rest := self._rest(ticket)) > 0:
                time.sleep(rest)
        except BaseException:
            self._abandon(ticket)
            raise
        return self._clock()

    def throttled(self, sent_at: float) -> None:
        """Halve the rate, once for all the calls that were already sent when it was last halved.

        :param sent_at: when the throttled call got its turn.
        """
        with self._lock:
            if sent_at < self._slowed_at:
                return
            now = self._clock()
            self.rate = max(self.rate / 2, min(MIN_RATE, self.budget))
            self._slowed_at = self._grown_at = now
            self._next_call = max(self._next_call, now + 1 / self.rate)

    def succeeded(self) -> None:
        """Let the rate recover for the time since the last call that AWS answered."""
        with self._lock:
            now = self._clock()
            if self.rate < self.budget:
                self.rate = min(self.budget, self.rate + self.budget * (now - self._grown_at) / RECOVERY)
            self._grown_at = now

    def _enter(self) -> int:
        with self._lock:
            ticket = self._newest
            self._newest += 1
            return ticket

    def _rest(self, ticket: int) -> float:
        """Take the turn if it has come, and return 0; else return the seconds after which to ask again."""
        with self._lock:
            now = self._clock()
            rest = self._next_call - now + (ticket - self._head) / self.rate
            if ticket > self._head:
                return max(rest, 0.2 / self.rate)  # those before it are late: not for long
            if rest > 0:
                return rest
            # A timer is a little late each time: the next turn makes up for that, but not for a long pause.
            self._next_call = max(self._next_call, now - 0.5 / self.rate) + 1 / self.rate
            self._advance(ticket)
            return 0.0

    def _abandon(self, ticket: int) -> None:
        with self._lock:
            if ticket == self._head:
                self._advance(ticket)
            elif ticket > self._head:
                self._abandoned.add(ticket)

    def _advance(self, ticket: int) -> None:
        self._head = ticket + 1
        while self._head in self._abandoned:
            self._abandoned.discard(self._head)
            self._head += 1


def backoff(failures: int, longest: float = MAX_DELAY) -> float:
    """Return the upper bound of the seconds to wait after so many failures in a row: 1, 2, 4 … 30.

    :param failures: at least 1.
    :param longest: the largest bound, in seconds.
    """
    return min(longest, FIRST_DELAY * 2.0 ** min(failures - 1, 10))


def full_jitter(seconds: float) -> float:
    """Return a random number of seconds up to the given one, so that callers that failed together do not return
    together.
    """
    return random.uniform(0, seconds)  # noqa: S311 -- spreads calls, protects nothing
