"""A retry policy that decides by the reason why a job failed.

Use it on a task, or for all tasks in ``default_args``. For errors of other operators, Airflow decides::

    default_args = {"retries": 3, "retry_policy": JobRetryPolicy()}

On Airflow 3.2, which has no retry policies, operators and sensors of this package apply it themselves: see
``airflow_compat.retry_policy``. ``RetryDecision`` is Airflow's own class if Airflow has one.

Requests that AWS rejects never reach the policy: such errors fail a task at once (``airflow_jobflow.exceptions``).
``retries`` still limits how often a task is retried.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.retry_policy import RetryDecision, RetryPolicy
from airflow_jobflow.exceptions import JobFailed, JobflowError, JobTimeout, SubmissionError, WaitError
from airflow_jobflow.jobs.causes import Blame

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["JobRetryPolicy", "RetryDecision"]

MAX_RETRY_DELAY = timedelta(minutes=15)
"""The longest delay before a retry."""

RETRIED_WITH_BACK_OFF: dict[type[JobflowError], str] = {
    SubmissionError: "The job could not be started just now",
    WaitError: "The job could not be described; the next try continues with it",
}
"""Errors that a later try may solve, with the reason that is logged."""


class _Policy(StrEnum):
    """What the policy decides for a job that failed."""

    SOON = "another try soon"
    BACK_OFF = "another try with back-off"
    FAIL = "no other try"
    DEFAULT = "as the task says"


BY_BLAME: dict[Blame, _Policy] = {
    Blame.CAPACITY: _Policy.SOON,
    Blame.TRANSIENT: _Policy.BACK_OFF,
    Blame.CONFIGURATION: _Policy.FAIL,
    Blame.COMMAND: _Policy.DEFAULT,
    Blame.PERSON: _Policy.DEFAULT,
    Blame.UNKNOWN: _Policy.DEFAULT,
}
"""The decision by who or what caused the failure. An unknown cause is no reason to give up."""


class JobRetryPolicy(RetryPolicy):
    """Retry failures that another try may solve, when it may solve them.

    ======================================================  =========================================================
    what happened                                           decision
    ======================================================  =========================================================
    AWS took the capacity away, or its hosts failed         another try soon
    a container's start was throttled or lost its network   another try with back-off, which doubles each time
    the request to start was throttled, or got no response  the same
    the job could not be described for minutes              the same; the next try continues with the job
    out of memory, no such image, a missing permission      no other try: the configuration must be fixed first
    the deadline has passed                                 as the task says; no other try with ``retry_timeouts=False``
    the command's own error, and everything else            as the task says
    ======================================================  =========================================================

    For an array, a map or several jobs, the failure that a retry helps least decides, even if only one job has it.

    :param soon: seconds, or a timedelta, before the next try in the first four cases. Default 30 s.
    :param retry_timeouts: whether a job that missed its deadline may be tried again. Default True.
    """

    def __init__(self, *, soon: float | timedelta = 30.0, retry_timeouts: bool = True) -> None:
        self.soon = soon if isinstance(soon, timedelta) else timedelta(seconds=soon)
        self.retry_timeouts = retry_timeouts

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
        for kind, reason in RETRIED_WITH_BACK_OFF.items():
            if isinstance(exception, kind):
                return RetryDecision.retry(self._back_off(try_number), reason)
        if isinstance(exception, JobTimeout) and not self.retry_timeouts:
            return RetryDecision.fail("The deadline has passed, and retry_timeouts is False")
        diagnosis = exception.diagnosis if isinstance(exception, JobflowError) else None
        if not isinstance(exception, JobFailed) or not diagnosis:
            return RetryDecision.default()
        policy = BY_BLAME[diagnosis.blame]
        if policy in (_Policy.SOON, _Policy.BACK_OFF):
            delay = self.soon if policy is _Policy.SOON else self._back_off(try_number)
            return RetryDecision.retry(delay, diagnosis.summary)
        if policy is _Policy.FAIL:
            return RetryDecision.fail(str(diagnosis))
        return RetryDecision.default()

    def _back_off(self, try_number: int) -> timedelta:
        delay: timedelta = self.soon * 2 ** min(try_number - 1, 10)
        return min(delay, MAX_RETRY_DELAY)

    def serialize(self) -> dict[str, Any]:
        """Return the policy's parameters as plain data."""
        return {"soon": self.soon.total_seconds(), "retry_timeouts": self.retry_timeouts}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JobRetryPolicy:
        """Return a policy with the given parameters.

        :param data: what ``serialize`` returned.
        """
        return cls(**data)
