"""What operators and sensors raise.

::

    AirflowException
    └── JobflowError
        ├── InvalidParameter       * a parameter is wrong, so nothing was started or described
        ├── SubmissionError          nothing is known to have been started
        │   ├── SubmissionRejected * AWS rejected the request
        │   └── CapacityUnavailable  no capacity now; operators wait for it, so it does not reach a task
        ├── JobFailed                it ran and failed; .outcome and .diagnosis say how and why
        ├── JobStopped               somebody or something ended it
        ├── JobTimeout               its deadline has passed
        ├── QueueTimeout             it did not leave the queue within queued_timeout
        ├── JobNotFound              AWS has not known it for longer than the grace period
        └── WaitError                describe calls for it were refused for minutes; the job is not stopped
            └── AccessDenied         … because permissions or credentials are missing

Those marked with a star are AirflowFailExceptions too: a retry would meet them again. Everything else is retried as
often as the task says; after a ``WaitError``, the retry finds the job again and continues with it. All can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_jobflow.jobs.causes import Diagnosis


class JobflowError(AirflowException):
    """Base of everything this package raises about jobs.

    :param message: what happened, to which job, why, and what to do.
    :param outcome: what is known of the job, in the shape an operator returns; of several, a list.
    :param diagnosis: why the job failed, where it has.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: dict[str, Any] | list[dict[str, Any]] | None = None,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.diagnosis = diagnosis


class InvalidParameter(JobflowError, AirflowFailException):
    """A parameter is wrong. Found after rendering, before anything is started or asked."""


class SubmissionError(JobflowError):
    """The job could not be submitted; nothing is known to have been started."""


class SubmissionRejected(SubmissionError, AirflowFailException):
    """AWS refused what was asked for, so nothing was started, and a retry would be refused as well."""


class CapacityUnavailable(SubmissionError):
    """The service has no room for another job just now, so nothing was started. Operators wait their turn."""


class JobFailed(JobflowError):
    """The job ran and failed, or could not be run."""


class JobStopped(JobflowError):
    """Somebody ended the job before it was done."""


class JobTimeout(JobflowError):
    """The job had not ended by its deadline."""


class QueueTimeout(JobflowError):
    """The job had not left the queue by its deadline for that."""


class JobNotFound(JobflowError):
    """AWS has not known the job for longer than the grace."""


class WaitError(JobflowError):
    """Describe calls for the job were refused for longer than the grace period. The job is not stopped for that."""


class AccessDenied(WaitError):
    """Permissions or credentials to describe the job were missing for longer than ``[jobflow] denied_grace``."""
