"""Apply the active faults to each call.

Invariants:

- A call that a fault rejects, delays or drops has not reached the service. The exceptions are lost responses and canned
  responses that take effect.
- Every received call is counted, including rejected ones.
- Faults end after `Faults.lasts` even if no call arrives, and then release the calls that they delay.
- No lock is held while a call is delayed, and no other lock is acquired while this one is held.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.call import Call, means
from airflow_jobflow.local.denials import denial, expired
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.fault_limits import Canned, Failing, TokenBucket
from airflow_jobflow.local.faults import CannedResponse, Faults
from airflow_jobflow.local.start_failures import StartReason, start_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METADATA: Final = "metadata"
"""The service that issues credentials, whose requests are not signed."""

THROTTLED: Final[Mapping[str, tuple[str, int]]] = {
    "batch": ("TooManyRequestsException", 429),
    "s3": ("SlowDown", 503),
    "ec2": ("RequestLimitExceeded", 503),
}
"""Error code and HTTP status for throttling. All other services respond with ``ThrottlingException`` and 400."""

BROKEN: Final[Mapping[str, str]] = {
    "batch": "ServerException",
    "ecs": "ServerException",
    "glue": "InternalServiceException",
    "logs": "ServiceUnavailableException",
}
"""Error code for internal errors. All other services respond with ``InternalFailure``."""


class ConnectionDropped(Exception):
    """Raised to close the connection without a response."""


class FaultBox:
    """The active faults, the remaining uses of limited ones, and the number of calls. Thread-safe.

    :param clock: returns seconds; used for `lasts` and rates. Default: the monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._released = threading.Event()
        self._reset(Faults())

    def _reset(self, faults: Faults) -> None:
        self._released.set()
        self._faults = faults
        self._ends_at = None if faults.lasts is None else self._clock() + faults.lasts
        self._released = threading.Event()
        self._seen = 0
        self._to_lose = faults.lose_answers
        self._to_expire = faults.expired_calls
        self._to_reject = faults.run_task_failures
        self._to_interrupt = faults.interrupt_spot
        self._bucket = TokenBucket(faults.calls_per_second, self._clock)
        self._failing = [Failing(each) for each in faults.fail_starts]
        self._canned = [Canned(each, self._clock) for each in faults.respond_with]

    def _current(self) -> Faults:
        """Return the active faults; call it with the lock held."""
        if self._ends_at is not None and self._clock() >= self._ends_at:
            self._reset(Faults())
        return self._faults

    @property
    def faults(self) -> Faults:
        """The active faults."""
        with self._lock:
            return self._current()

    def set(self, faults: Faults) -> None:
        """Replace the active faults, and release delayed calls.

        :param faults: the new faults.
        """
        with self._lock:
            self._reset(faults)

    def count(self) -> Counter[str]:
        """Return the number of received calls by name."""
        with self._lock:
            return self._calls.copy()

    def before(self, call: Call, account: str) -> CannedResponse | None:
        """Count a call, and apply the faults that come before it is served.

        :param call: the call.
        :param account: the caller's account.
        :return: the response to send instead of the result, if any.
        :raises AwsError: the call is rejected.
        :raises ConnectionDropped: there must be no response.
        """
        with self._lock:
            self._calls[call.name] += 1
            faults, released = self._current(), self._released
            if faults.outage:
                raise ConnectionDropped
            if call.service != METADATA:
                self._check_credentials(call)
            self._check_permissions(call, account)
            canned = next((each.response for each in self._canned if each.answers(call)), None)
            concerned = self._concerns(call)
            if concerned and canned is None:
                self._reject(call)
            delay = min(faults.hang or 0.0, self._seconds_left())
        if concerned and delay > 0:
            released.wait(delay)
        return canned

    def loses_answer(self, call: Call) -> bool:
        """Return whether the response to a served call is lost; if so, count it.

        :param call: the call.
        """
        with self._lock:
            if self._current().outage:
                return True
            if self._to_lose == 0 or not self._concerns(call):
                return False
            self._to_lose -= 1
            return True

    def hides(self, age: float, *names: str) -> bool:
        """Return whether a fault hides something.

        :param age: seconds since it was started.
        :param names: its id, ARN, …
        """
        with self._lock:
            faults = self._current()
        return age < faults.visible_after or any(means(each, name) for each in faults.missing for name in names)

    def rejects_tasks(self) -> str | None:
        """Return why a valid RunTask call must not start anything, or None; count it."""
        with self._lock:
            faults = self._current()
            if self._to_reject == 0:
                return None
            self._to_reject -= 1
            return faults.run_task_reason

    def fails_start(self, *names: str | None) -> StartReason | None:
        """Return why an attempt or a task must fail to start, or None; count it.

        :param names: its ids and names; None values are ignored.
        """
        known = [name for name in names if name]
        with self._lock:
            self._current()
            failing = next((each.failure for each in self._failing if each.fails(known)), None)
        return start_reason(failing.reason) if failing else None

    def interrupts_spot(self, text: str) -> bool:
        """Return whether a new task on Spot capacity must be interrupted; if so, count it.

        :param text: contains the names of the task, for `Faults.interrupt_spot_with`.
        """
        with self._lock:
            faults = self._current()
            if self._to_interrupt == 0 or faults.interrupt_spot_with not in text:
                return False
            self._to_interrupt -= 1
            return True

    def _seconds_left(self) -> float:
        return math.inf if self._ends_at is None else self._ends_at - self._clock()

    def _concerns(self, call: Call) -> bool:
        return not self._faults.actions or call.is_one_of(self._faults.actions)

    def _check_credentials(self, call: Call) -> None:
        has_expired = self._to_expire > 0 or call.key_expired
        self._to_expire -= self._to_expire > 0
        if has_expired or (self._faults.expired_access_key and call.access_key == self._faults.expired_access_key):
            raise expired()

    def _check_permissions(self, call: Call, account: str) -> None:
        faults = self._faults
        if not faults.denied:
            return
        for action in call.permissions:
            if call.is_one_of(faults.denied, action):
                resource = call.named(faults.denied_resources)
                if resource is not None or not faults.denied_resources:
                    raise denial(call, action, account, resource)

    def _reject(self, call: Call) -> None:
        faults = self._faults
        self._seen += 1
        if self._bucket.is_over():
            code, status = THROTTLED.get(call.service, ("ThrottlingException", 400))
            too_many = status == HTTPStatus.TOO_MANY_REQUESTS
            raise AwsError(code, "Too Many Requests" if too_many else "Rate exceeded", status)
        if faults.error_every and self._seen % faults.error_every == 0:
            raise AwsError(BROKEN.get(call.service, "InternalFailure"), "Internal error", 500)
        if faults.drop_every and self._seen % faults.drop_every == 0:
            raise ConnectionDropped
