"""What operators and sensors raise.

::

    AirflowException
    └── JobflowError
        ├── InvalidParameter       * a parameter is wrong, so nothing was started or asked
        ├── SubmissionError          nothing is known to have been started
        │   ├── SubmissionRefused  * AWS refused what was asked for
        │   └── NoRoom               not just now; operators wait their turn, so it does not come so far
        ├── JobFailed                it ran and failed; .outcome and .diagnosis say how and why
        ├── JobStopped               somebody or something ended it
        ├── JobTimedOut              its deadline has passed
        ├── JobStuck                 it never left the queue in the time it was given
        ├── JobVanished              AWS has not known it for longer than the grace
        └── WaitError                AWS cannot be asked how it is
            └── AccessDenied       * these credentials may not ask

Those marked with a star are AirflowFailExceptions too: a retry cannot mend them. Everything else is retried as the
task says. All can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_jobflow.jobs.diagnosis import Diagnosis


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


class SubmissionRefused(SubmissionError, AirflowFailException):
    """AWS refused what was asked for, so nothing was started, and a retry would be refused as well."""


class NoRoom(SubmissionError):
    """The service has no room for another job just now, so nothing was started. Operators wait their turn."""


class JobFailed(JobflowError):
    """The job ran and failed, or could not be run."""


class JobStopped(JobflowError):
    """Somebody ended the job before it was done."""


class JobTimedOut(JobflowError):
    """The job had not ended by its deadline."""


class JobStuck(JobflowError):
    """The job had not left the queue by its deadline for that."""


class JobVanished(JobflowError):
    """AWS has not known the job for longer than the grace."""


class WaitError(JobflowError):
    """AWS cannot be asked how the job is; the job itself may be well."""


class AccessDenied(WaitError, AirflowFailException):
    """These credentials may not ask, or there are none."""
