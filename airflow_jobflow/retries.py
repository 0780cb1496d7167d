"""A retry policy that knows why a job failed.

Use it on a task, or for all in ``default_args``; other operators' errors are left to Airflow::

    default_args = {"retries": 3, "retry_policy": JobRetryPolicy()}

What AWS rejects never reaches the policy: such errors fail a task at once (``airflow_jobflow.exceptions``). How often a
task is retried at all remains what ``retries`` says.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_jobflow.exceptions import JobFailed, JobflowError, JobTimedOut, SubmissionError, WaitError
from airflow_jobflow.jobs.diagnosis import Blame

if TYPE_CHECKING:
    from airflow.sdk import Context

LONGEST_DELAY = timedelta(minutes=15)
"""What back-off ends at."""


BACK_OFF: dict[type[JobflowError], str] = {
    SubmissionError: "The job could not be started just now",
    WaitError: "The job could not be described; the next try continues with it",
}
"""What another try may solve if it comes later, and the reason that is given."""


class JobRetryPolicy(RetryPolicy):
    """Retry what another try may mend, when it may.

    ======================================================  =========================================================
    what happened                                           what is done
    ======================================================  =========================================================
    AWS took the capacity away, or its hosts failed         another try soon
    the start was throttled, or got no answer               another try with back-off: soon, then twice as late each
    the job could not be described for minutes              the same; the next try continues with the job
    out of memory, no such image, a role without a right    no other try: somebody must mend the configuration first
    the deadline has passed                                 as the task says; no other try with ``retry_timeouts=False``
    the command's own error, and everything else            as the task says
    ======================================================  =========================================================

    :param soon: seconds, or a timedelta, before the next try in the first three cases. Default 30 s.
    :param retry_timeouts: whether a job that was not done by its deadline may be tried again. Default True.
    """

    def __init__(self, *, soon: float | timedelta = 30.0, retry_timeouts: bool = True) -> None:
        self.soon = soon if isinstance(soon, timedelta) else timedelta(seconds=soon)
        self.retry_timeouts = retry_timeouts

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002 -- Airflow holds to it by itself
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide whether, and when, a task that failed is tried again.

        :param exception: what it raised.
        :param try_number: of the try that failed, from 1.
        """
        for kind, reason in BACK_OFF.items():
            if isinstance(exception, kind):
                return RetryDecision.retry(min(self.soon * 2 ** min(try_number - 1, 10), LONGEST_DELAY), reason)
        if isinstance(exception, JobTimedOut) and not self.retry_timeouts:
            return RetryDecision.fail("The deadline has passed, which is final here")
        diagnosis = exception.diagnosis if isinstance(exception, JobflowError) else None
        if isinstance(exception, JobFailed) and diagnosis:
            if diagnosis.blame is Blame.CAPACITY:
                return RetryDecision.retry(self.soon, diagnosis.summary)
            if diagnosis.blame is Blame.CONFIGURATION:
                return RetryDecision.fail(str(diagnosis))
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Give what it is made of, as plain data."""
        return {"soon": self.soon.total_seconds(), "retry_timeouts": self.retry_timeouts}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JobRetryPolicy:
        """Make it of what ``serialize`` gave."""
        return cls(**data)
