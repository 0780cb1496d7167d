"""The exceptions that operators and sensors raise.

::

    AirflowException
    └── JobflowError
        ├── InvalidParameter       * a parameter is wrong, so nothing was started or described
        ├── SubmissionError          nothing is known to have been started
        │   ├── SubmissionRejected * AWS rejected the request
        │   └── CapacityUnavailable  no capacity now; operators wait for it, so it does not reach a task
        ├── JobFailed                the job ran and failed; see .outcome and .diagnosis
        │   └── JobFailedFinally   * … in a way that a retry would not change
        ├── JobStopped               the job was stopped on request
        ├── JobTimeout               the job's deadline has passed
        ├── QueueTimeout             the job did not leave the queue within queued_timeout
        ├── JobNotFound              AWS has not known the job for longer than the grace period
        └── WaitError                describe calls for the job were refused for minutes; it is not stopped
            └── AccessDenied         … because permissions or credentials are missing

Those marked with a star are also AirflowFailExceptions, because a retry would fail in the same way. All others are
retried as often as the task is configured to. After a ``WaitError``, the retry finds the job and continues with it. All
can be pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_jobflow.jobs.causes import Diagnosis


class JobflowError(AirflowException):
    """Base class of the exceptions of this package that concern jobs.

    :param message: what happened, to which job, why, and what to do.
    :param outcome: the job's outcome as an operator returns it, or a list for several jobs. Default None: not known.
    :param diagnosis: why the job failed. Default None: it did not fail, or the reason is not known.
    :param change: what the next attempt changes, as in ``outcome["changes"]``. Default None: nothing.
    :param log_lines: the last lines of the job's log, if the message does not quote them because they are in the task's
        log already. Default none.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: dict[str, Any] | list[dict[str, Any]] | None = None,
        diagnosis: Diagnosis | None = None,
        change: dict[str, Any] | None = None,
        log_lines: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.diagnosis = diagnosis
        self.change = change
        self.log_lines = log_lines


class InvalidParameter(JobflowError, AirflowFailException):
    """A parameter is wrong. Raised after rendering, before anything is started or described."""


class SubmissionError(JobflowError):
    """The job could not be submitted; nothing is known to have been started."""


class SubmissionRejected(SubmissionError, AirflowFailException):
    """AWS rejected the request, so nothing was started. A retry would be rejected as well."""


class CapacityUnavailable(SubmissionError):
    """The service has no capacity for another job now, so nothing was started. Operators wait for capacity."""


class JobFailed(JobflowError):
    """The job ran and failed, or could not be run."""


class JobFailedFinally(JobFailed, AirflowFailException):
    """The job failed, and the task is not retried: a retry would fail in the same way."""


class JobStopped(JobflowError):
    """The job was stopped on request before it had ended."""


class JobTimeout(JobflowError):
    """The job had not ended by its deadline."""


class QueueTimeout(JobflowError):
    """The job had not left the queue by its queue deadline."""


class JobNotFound(JobflowError):
    """AWS has not known the job for longer than ``[jobflow] missing_grace``."""


class WaitError(JobflowError):
    """Describe calls for the job were refused for longer than the grace period. The job is not stopped."""


class AccessDenied(WaitError):
    """Permissions or credentials to describe the job were missing for longer than ``[jobflow] denied_grace``."""


def invalid_parameter(parameter: str, value: object, rule: str) -> InvalidParameter:
    """Return the exception for a wrong parameter.

    :param parameter: the name of the parameter.
    :param value: the wrong value.
    :param rule: what the value must be.
    """
    return InvalidParameter(f"{parameter}={value!r}: {rule}")
