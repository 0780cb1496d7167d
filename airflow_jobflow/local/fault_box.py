"""The faults that are on, applied to each call.

Invariants:

- A call that a fault refuses, holds or drops never reached the service, except a lost answer and a canned response
  that takes effect, whose calls did.
- Every call that arrives is counted, also a refused one.
- Faults end by themselves after `Faults.lasts`, whether or not a call arrives, and release what they hold.
- No lock is held while a call is held, and none is taken while the own one is held.
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
"""How a service says that it was called too often; the others say ``ThrottlingException`` with 400."""

BROKEN: Final[Mapping[str, str]] = {
    "batch": "ServerException",
    "ecs": "ServerException",
    "glue": "InternalServiceException",
    "logs": "ServiceUnavailableException",
}
"""How a service says that it is broken; the others say ``InternalFailure``."""


class ConnectionDropped(Exception):
    """The connection of this call is to be closed without an answer."""


class FaultBox:
    """The faults that are on, what is left of those that run out, and the count of all calls. Thread-safe.

    :param clock: seconds, by which `lasts` and rates are measured.
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
        self._to_refuse = faults.run_task_failures
        self._to_interrupt = faults.interrupt_spot
        self._bucket = TokenBucket(faults.calls_per_second, self._clock)
        self._failing = [Failing(each) for each in faults.fail_starts]
        self._canned = [Canned(each, self._clock) for each in faults.respond_with]

    def _current(self) -> Faults:
        """The faults that are on now; call it with the lock held."""
        if self._ends_at is not None and self._clock() >= self._ends_at:
            self._reset(Faults())
        return self._faults

    @property
    def faults(self) -> Faults:
        """The faults that are on."""
        with self._lock:
            return self._current()

    def set(self, faults: Faults) -> None:
        """Have these faults from now on, and let go of the calls that hang."""
        with self._lock:
            self._reset(faults)

    def count(self) -> Counter[str]:
        """How many calls arrived, by name."""
        with self._lock:
            return self._calls.copy()

    def before(self, call: Call, account: str) -> CannedResponse | None:
        """Count a call, and apply the faults to it before it is served.

        :returns: what to answer in place of the result, if anything.
        :raises AwsError: the answer, if the call is refused.
        :raises ConnectionDropped: there is to be no answer.
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
                self._refuse(call)
            held = min(faults.hang or 0.0, self._seconds_left())
        if concerned and held > 0:
            released.wait(held)
        return canned

    def loses_answer(self, call: Call) -> bool:
        """Return whether the answer to a call that was served gets lost."""
        with self._lock:
            if self._current().outage:
                return True
            if self._to_lose == 0 or not self._concerns(call):
                return False
            self._to_lose -= 1
            return True

    def hides(self, age: float, *names: str) -> bool:
        """Return whether something cannot be found.

        :param age: seconds since it was started.
        :param names: its id, ARN, …
        """
        with self._lock:
            faults = self._current()
        return age < faults.visible_after or any(means(each, name) for each in faults.missing for name in names)

    def refuses_tasks(self) -> str | None:
        """Why a RunTask that is in order starts nothing; None if it does."""
        with self._lock:
            faults = self._current()
            if self._to_refuse == 0:
                return None
            self._to_refuse -= 1
            return faults.run_task_reason

    def fails_start(self, *names: str | None) -> StartReason | None:
        """Why an attempt or a task fails to start; None if it does not.

        :param names: by which it is known; those that are None do not count.
        """
        known = [name for name in names if name]
        with self._lock:
            self._current()
            failing = next((each.failure for each in self._failing if each.fails(known)), None)
        return start_reason(failing.reason) if failing else None

    def interrupts_spot(self, words: str) -> bool:
        """Return whether a new task on FARGATE_SPOT, known by `words`, is to be interrupted."""
        with self._lock:
            faults = self._current()
            if self._to_interrupt == 0 or faults.interrupt_spot_with not in words:
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

    def _refuse(self, call: Call) -> None:
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
