"""A retry policy that decides by the reason why a job failed.

Use it on a task, or for all tasks in ``default_args``. For errors of other operators, Airflow decides::

    default_args = {"retries": 3, "retry_policy": JobRetryPolicy()}

On Airflow 3.2, which has no retry policies, operators and sensors of this package apply it themselves: see
``airflow_compat.retry_policy``. ``RetryDecision`` is Airflow's own class if Airflow has one.

Requests that AWS rejects never reach the policy: such errors fail a task at once (``airflow_jobflow.exceptions``).
``retries`` still limits how often a task is retried.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.airflow_compat.retry_policy import RetryDecision, RetryPolicy
from airflow_jobflow.exceptions import JobFailed, JobflowError, JobTimeout, SubmissionError, WaitError
from airflow_jobflow.jobs.causes import BY_CAUSE, Blame, Diagnosis
from airflow_jobflow.jobs.changes import CAUSES

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["JobRetryPolicy", "RetryDecision"]

MAX_EXPONENT: Final = 20
"""The most often that a delay is doubled, so that it stays a number."""

TRANSIENT: Final = Blame.TRANSIENT.name.lower()
"""The name of the delay after errors other than a failure of the job."""

RETRIED: dict[type[JobflowError], str] = {
    SubmissionError: "The job could not be started just now",
    WaitError: "The job could not be described; the next try continues with it",
}
"""Errors that a later try may solve, with the reason that is logged."""


class _Policy(StrEnum):
    """What the policy decides for a job that failed."""

    RETRY = "another try"
    FAIL = "no other try"
    DEFAULT = "as the task says"


BY_BLAME: dict[Blame, _Policy] = {
    Blame.CAPACITY: _Policy.RETRY,
    Blame.TRANSIENT: _Policy.RETRY,
    Blame.CONFIGURATION: _Policy.FAIL,
    Blame.COMMAND: _Policy.DEFAULT,
    Blame.PERSON: _Policy.DEFAULT,
    Blame.UNKNOWN: _Policy.DEFAULT,
}
"""The decision by who or what caused the failure. An unknown cause is no reason to give up."""

DELAYS: Final = (
    *BY_CAUSE,
    *(cause.name for cause in CAUSES.values()),
    *(blame.name.lower() for blame in Blame),
)
"""The names that ``delays`` can have: of a diagnosis, of a cause with a rule (``on_<name>``), or of a blame."""


class JobRetryPolicy(RetryPolicy):
    """Retry failures that another try may solve, when it may solve them.

    ======================================================  =========================================================
    what happened                                           decision
    ======================================================  =========================================================
    the next attempt changes the job (``on_out_of_memory``  another try
    and its like)
    AWS took the capacity away, or its hosts failed         another try
    a container's start was throttled or lost its network   another try
    the request to start was throttled, or got no response  the same
    the job could not be described for minutes              the same; the next try continues with the job
    out of memory, no such image, a missing permission      no other try: the configuration must be fixed first
    the deadline has passed                                 as the task says; no other try with ``retry_timeouts=False``
    the command's own error, and everything else            as the task says; another try if ``delays`` names the cause
    ======================================================  =========================================================

    For an array, a map or several jobs, the failure that a retry helps least decides, even if only one job has it.

    Another try follows after a random time (full jitter) up to the delay, which doubles with each try of the task:
    tasks that failed together do not start together again.

    :param soon: seconds, or a timedelta: the delay after the first try, for causes that ``delays`` does not name.
        Default 30 s.
    :param retry_timeouts: whether a job that missed its deadline may be tried again. Default True.
    :param delays: the same by cause: the name of a diagnosis, such as ``spot_reclaimed``; ``out_of_memory``,
        ``capacity`` or ``timeout``, as in ``on_capacity``; or who is to blame: ``capacity``, ``transient``,
        ``command``, ``configuration``, ``person``, ``unknown``. The first of these that has a delay decides. Default
        None: ``soon`` for all.
    :param max_delay: seconds, or a timedelta: the longest delay. Default 15 minutes.
    :raises ValueError: ``delays`` has a name that is none of these.
    """

    def __init__(
        self,
        *,
        soon: float | timedelta = 30.0,
        retry_timeouts: bool = True,
        delays: Mapping[str, float | timedelta] | None = None,
        max_delay: float | timedelta = 900.0,
    ) -> None:
        self.soon = _as_timedelta(soon)
        self.retry_timeouts = retry_timeouts
        self.delays = {name: _as_timedelta(delay) for name, delay in (delays or {}).items()}
        self.max_delay = _as_timedelta(max_delay)
        if unknown := [name for name in self.delays if name not in DELAYS]:
            raise ValueError(f"delays[{unknown[0]!r}]: the name must be one of {', '.join(dict.fromkeys(DELAYS))}")

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002 -- Airflow enforces it by itself
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide whether and when a failed task is tried again.

        :param exception: the exception that it raised.
        :param try_number: number of the try that failed, from 1.
        :param max_tries: not used.
        :param context: not used.
        :return: the decision, with a reason for the log.
        """
        for kind, reason in RETRIED.items():
            if isinstance(exception, kind):
                return RetryDecision.retry(self._delay(try_number, TRANSIENT), reason)
        if isinstance(exception, JobTimeout) and not self.retry_timeouts:
            return RetryDecision.fail("The deadline has passed, and retry_timeouts is False")
        diagnosis = exception.diagnosis if isinstance(exception, JobflowError) else None
        names = _names_of(diagnosis) if diagnosis else []
        if isinstance(exception, JobflowError) and (change := exception.change):
            delay = self._delay(try_number, *names[:1], change["cause"], *names[1:])
            return RetryDecision.retry(delay, f"The next attempt: {change['text']}")
        if not isinstance(exception, JobFailed) or not diagnosis:
            return RetryDecision.default()
        policy = BY_BLAME[diagnosis.blame]
        if policy is _Policy.RETRY or (policy is _Policy.DEFAULT and any(name in self.delays for name in names)):
            return RetryDecision.retry(self._delay(try_number, *names), diagnosis.summary)
        return RetryDecision.fail(str(diagnosis)) if policy is _Policy.FAIL else RetryDecision.default()

    def _delay(self, try_number: int, *names: str) -> timedelta:
        """Return a random delay, up to that of the first name that has one, doubled with each try."""
        base = next((self.delays[name] for name in names if name in self.delays), self.soon)
        longest = min(base * 2 ** min(try_number - 1, MAX_EXPONENT), self.max_delay)
        delay: timedelta = longest * random.random()  # noqa: S311 -- no secret
        return delay

    def serialize(self) -> dict[str, Any]:
        """Return the policy's parameters as plain data."""
        return {
            "soon": self.soon.total_seconds(),
            "retry_timeouts": self.retry_timeouts,
            "delays": {name: delay.total_seconds() for name, delay in self.delays.items()},
            "max_delay": self.max_delay.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JobRetryPolicy:
        """Return a policy with the given parameters.

        :param data: what ``serialize`` returned; parameters that it lacks have their defaults.
        """
        return cls(**data)


def _names_of(diagnosis: Diagnosis) -> list[str]:
    """Return the names in ``delays`` that apply to a diagnosis, the most specific first."""
    of_rules = [cause.name for cause in CAUSES.values() if diagnosis.cause in cause.diagnoses]
    return [diagnosis.cause, *of_rules, diagnosis.blame.name.lower()]


def _as_timedelta(value: float | timedelta) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)
