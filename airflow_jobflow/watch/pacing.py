"""How often a service may be called: a budget that throttling halves and quiet time wins back.

Pure: the caller brings the time. What always holds: two calls are never closer together than the budget allows, so
no stretch of a second holds more calls than ``calls_per_second``, rounded up; and the pace never falls to nothing.
"""

from __future__ import annotations

RECOVERY = 60.0
"""Seconds in which a pace at its slowest wins back the whole budget. Slow, so that a service that throttles at less
than the budget is asked a little too often once in many calls, not in every other one."""

SLOWEST = 0.1
"""Calls a second that remain however much the service throttles: a wait must end even then."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds that jobs rest after a call that failed in passing, doubling from the first to the longest."""


class Pace:
    """The pace of one service's calls.

    :param calls_per_second: the budget; above 0.
    """

    def __init__(self, calls_per_second: float) -> None:
        self.budget = calls_per_second
        self.rate = calls_per_second
        """Calls a second allowed at present: the budget, or less after throttling."""
        self._next_call = float("-inf")
        self._slowed_at = float("-inf")
        self._grown_at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until the next call may go out."""
        return max(0.0, self._next_call - now)

    def spend(self, now: float) -> None:
        """Count a call that goes out now."""
        self._next_call = now + 1 / self.rate

    def throttled(self, now: float, sent_at: float) -> None:
        """Halve the pace, once for all the calls that were on their way when it was last halved."""
        if sent_at < self._slowed_at:
            return
        self.rate = max(self.rate / 2, min(SLOWEST, self.budget))
        self._slowed_at = self._grown_at = now
        self._next_call = max(self._next_call, now + 1 / self.rate)

    def answered(self, now: float) -> None:
        """Win back pace for the quiet time since the last answer."""
        if self.rate < self.budget:
            self.rate = min(self.budget, self.rate + self.budget * (now - self._grown_at) / RECOVERY)
        self._grown_at = now


def pause(failures: int) -> float:
    """Seconds to rest after the given number of failed calls in a row: 1, 2, 4 … 30."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
