"""Limits of faults: number of uses, share and rate. Not thread-safe: `fault_box` holds a lock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.call import Call, means

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_jobflow.local.faults import CannedResponse, StartFailure

ROUNDING: Final = 1e-9
"""Compensates for rounding errors of shares such as 0.1."""


class TokenBucket:
    """Limits calls to a rate. The bucket holds the calls of one second, and at least one.

    :param rate: calls per second; None for no limit.
    :param clock: returns seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = max(1.0, rate or 0)
        self._refilled_at = clock()

    def is_over(self) -> bool:
        """Count a call; return whether it exceeds the rate."""
        if self._rate is None:
            return False
        now = self._clock()
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False


class Canned:
    """A canned response and its remaining uses.

    :param response: the response.
    :param clock: returns seconds.
    """

    def __init__(self, response: CannedResponse, clock: Callable[[], float]) -> None:
        self.response = response
        self._left = response.calls
        self._bucket = TokenBucket(response.calls_per_second, clock)

    def answers(self, call: Call) -> bool:
        """Return whether this is the response to a call; if so, count it.

        :param call: the call.
        """
        response = self.response
        if self._left == 0 or not (call.is_one_of(response.actions) or not response.actions):
            return False
        if response.resources and call.named(response.resources) is None:
            return False
        if response.calls_per_second is not None and not self._bucket.is_over():
            return False
        if self._left is not None:
            self._left -= 1
        return True


class Failing:
    """A start failure and its remaining uses.

    :param failure: the failure.
    """

    def __init__(self, failure: StartFailure) -> None:
        self.failure = failure
        self._left = failure.starts
        self._seen = 0

    def fails(self, names: Sequence[str]) -> bool:
        """Return whether a start must fail, and count it.

        :param names: the ids and names of what is started.
        """
        failure = self.failure
        if self._left == 0 or (failure.jobs and not any(means(each, name) for each in failure.jobs for name in names)):
            return False
        before, self._seen = self._seen, self._seen + 1
        if math.floor(self._seen * failure.rate + ROUNDING) == math.floor(before * failure.rate + ROUNDING):
            return False
        if self._left is not None:
            self._left -= 1
        return True
