"""Faults of the local AWS: what every service of AWS does to its callers now and then, switched on at will.

What always holds: a call that a fault refuses, holds or drops never reached the service, except a lost
answer, whose call took effect. Every call that arrives is counted, also a refused one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.ecs_model import CAPACITY_UNAVAILABLE
from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. ``Faults()`` is nothing; all that is given goes wrong together.

    :param actions: the calls that `calls_per_second`, `error_every`, `hang`, `drop_every` and `lose_answers`
        concern: ``batch.DescribeJobs``, ``DescribeJobs`` or ``batch.*``; all if empty.
    :param calls_per_second: calls over this rate are throttled.
    :param error_every: every n-th call is answered with a 500; 1 is every call.
    :param hang: seconds for which every call is held before it is served; released when the faults change or
        the server stops.
    :param drop_every: the connection of every n-th call is closed without an answer.
    :param lose_answers: the next so many calls take effect, then their connections are closed without an
        answer.
    :param visible_after: seconds for which a new Batch job or ECS task cannot be found.
    :param expired_calls: the next so many calls are refused, whatever they are, because the credentials have
        expired.
    :param expired_access_key: access key id that has expired.
    :param denied: calls, written as for `actions`, that the caller is not allowed to make.
    :param run_task_failures: the next so many RunTask calls start nothing and say so in ``failures``, with status 200.
    :param run_task_reason: what they say there.
    :param interrupt_spot: the next so many tasks started on FARGATE_SPOT are interrupted as soon as they run.
    :param interrupt_spot_with: of them only those with this text in their family, group, ``startedBy`` or overrides.
    """

    actions: tuple[str, ...] = ()
    calls_per_second: float | None = None
    error_every: int | None = None
    hang: float | None = None
    drop_every: int | None = None
    lose_answers: int = 0
    visible_after: float = 0.0
    expired_calls: int = 0
    expired_access_key: str | None = None
    denied: tuple[str, ...] = ()
    run_task_failures: int = 0
    run_task_reason: str = CAPACITY_UNAVAILABLE
    interrupt_spot: int = 0
    interrupt_spot_with: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``POST /jobflow-local/faults`` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Faults:
        """The faults of a JSON object; ValueError if it names one there is not."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"No such fault: {', '.join(unknown)}. There are: {', '.join(sorted(known))}")
        lists = {name: tuple(values[name]) for name in ("actions", "denied") if name in values}
        return cls(**{**values, **lists})


class ConnectionDropped(Exception):
    """The connection of this call is to be closed without an answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that arrived: ``batch``, ``DescribeJobs``, and whose access key signed it."""

    service: str
    action: str
    access_key: str = ""

    @property
    def name(self) -> str:
        """As faults and counts write it: ``batch.DescribeJobs``."""
        return f"{self.service}.{self.action}"

    def is_one_of(self, patterns: tuple[str, ...]) -> bool:
        """Whether one of the patterns means it."""
        return any(pattern in (self.name, self.action, f"{self.service}.*") for pattern in patterns)


class FaultBox:
    """The faults that are on, what is left of those that run out, and the count of all calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self.faults = Faults()
        self._reset(Faults())

    def _reset(self, faults: Faults) -> None:
        self.faults = faults
        self._released = threading.Event()
        self._seen = 0
        self._to_lose = faults.lose_answers
        self._to_expire = faults.expired_calls
        self._to_refuse = faults.run_task_failures
        self._to_interrupt = faults.interrupt_spot
        self._tokens = max(1.0, faults.calls_per_second or 0)
        self._refilled_at = time.monotonic()

    def set(self, faults: Faults) -> None:
        """Have these faults from now on, and let go of the calls that hang."""
        with self._lock:
            released = self._released
            self._reset(faults)
        released.set()

    def count(self) -> Counter[str]:
        """How many calls arrived, by name."""
        with self._lock:
            return self._calls.copy()

    def before(self, call: Call, account: str) -> None:
        """Count a call, and have it meet its fault before it is served.

        :raises AwsError: the answer, if it is refused.
        :raises ConnectionDropped: if there is to be none.
        """
        with self._lock:
            self._calls[call.name] += 1
            faults, released = self.faults, self._released
            self._check_credentials(call, account)
            if not call.is_one_of(faults.actions) and faults.actions:
                return
            self._seen += 1
            if faults.calls_per_second is not None and not self._take_token(faults.calls_per_second):
                code, status = THROTTLED.get(call.service, ("ThrottlingException", 400))
                too_many = status == HTTPStatus.TOO_MANY_REQUESTS
                raise AwsError(code, "Too Many Requests" if too_many else "Rate exceeded", status)
            if faults.error_every and self._seen % faults.error_every == 0:
                raise AwsError(BROKEN.get(call.service, "InternalFailure"), "Internal error", 500)
            if faults.drop_every and self._seen % faults.drop_every == 0:
                raise ConnectionDropped
        if faults.hang:
            released.wait(faults.hang)

    def loses_answer(self, call: Call) -> bool:
        """Whether the answer to a call that was served gets lost."""
        with self._lock:
            concerned = not self.faults.actions or call.is_one_of(self.faults.actions)
            if not concerned or self._to_lose == 0:
                return False
            self._to_lose -= 1
            return True

    def refuses_tasks(self) -> str | None:
        """Why a RunTask that is in order starts nothing; None if it does."""
        with self._lock:
            if self._to_refuse == 0:
                return None
            self._to_refuse -= 1
            return self.faults.run_task_reason

    def interrupts_spot(self, words: str) -> bool:
        """Whether a new task on FARGATE_SPOT, known by `words`, is to be interrupted."""
        with self._lock:
            if self._to_interrupt == 0 or self.faults.interrupt_spot_with not in words:
                return False
            self._to_interrupt -= 1
            return True

    def _check_credentials(self, call: Call, account: str) -> None:
        faults = self.faults
        expired = self._to_expire > 0
        self._to_expire -= expired
        if expired or (faults.expired_access_key and call.access_key == faults.expired_access_key):
            raise AwsError("ExpiredTokenException", "The security token included in the request is expired")
        if call.is_one_of(faults.denied):
            raise AwsError(
                "AccessDeniedException",
                f"User: arn:aws:iam::{account}:user/local is not authorized to perform: "
                f"{call.service}:{call.action} on resource: *",
                403,
            )

    def _take_token(self, rate: float) -> bool:
        """Token bucket: `rate` a second, at most a second's worth (but one) at once."""
        moment = time.monotonic()
        self._tokens = min(max(1.0, rate), self._tokens + (moment - self._refilled_at) * rate)
        self._refilled_at = moment
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
