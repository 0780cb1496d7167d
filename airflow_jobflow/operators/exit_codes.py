"""What the exit code of a failed job means for its task: the task may be skipped, or fail without a retry.

An exit code counts only if the job ended by itself. A job that was stopped, that ran longer than its attempt time-out,
or whose capacity AWS took back, ends with an exit code too, which says nothing about its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from airflow_jobflow import params
from airflow_jobflow.exceptions import JobFailed, JobFailedFinally, invalid_parameter
from airflow_jobflow.jobs.causes import ATTEMPT_TIMED_OUT, Blame

if TYPE_CHECKING:
    from airflow_jobflow.exceptions import JobflowError

BOTH = SKIP, FAIL = "skip_on_exit_code", "fail_on_exit_code"

NOT_FOR_GLUE = dict.fromkeys(BOTH, "is for jobs with an exit code, and Glue reports none; leave it out")
NOT_FOR_ARRAYS = dict.fromkeys(BOTH, "is for single jobs, and each child of an array has an exit code of its own")
NOT_FOR_MAPS = dict.fromkeys(BOTH, "is for single jobs, and each item of a map has an exit code of its own")
"""Why an operator rejects the parameters."""


def check(task: Any, given: Mapping[str, Any]) -> None:
    """Reject exit codes that contradict each other, or that have no effect.

    :param task: the operator, after rendering.
    :param given: its validated parameters.
    :raises InvalidParameter: there are such exit codes.
    """
    both = sorted(set(given.get(SKIP, ())) & set(given.get(FAIL, ())))
    if both:
        rule = f"contains {both[0]}, and so does {FAIL}; remove it from one of them"
        raise invalid_parameter(SKIP, getattr(task, SKIP), rule)
    if not task.wait_for_completion:
        waits = "needs wait_for_completion=True, because a job has an exit code only when it has ended"
        params.reject(task, dict.fromkeys(BOTH, waits))
    if not task.raise_on_failure:
        params.reject(task, {FAIL: "has no effect with raise_on_failure=False: the task does not fail"})


def decided(given: Mapping[str, Any], failure: JobflowError) -> AirflowException | None:
    """Return the exception that the exit code of a failed job calls for; None if it does not matter.

    :param given: the validated parameters of the operator.
    :param failure: the failure of the job.
    """
    code = failure.outcome.get("exit_code") if isinstance(failure.outcome, dict) else None
    why = failure.diagnosis
    is_interrupted = why is not None and (why.blame is Blame.CAPACITY or why.cause == ATTEMPT_TIMED_OUT.cause)
    if code is None or is_interrupted or not isinstance(failure, JobFailed):
        return None
    about: dict[str, Any] = {"outcome": failure.outcome, "diagnosis": failure.diagnosis}
    if code in given.get(SKIP, ()):
        skip = AirflowSkipException(f"{failure}\nThe task is skipped: exit code {code} is in {SKIP}.")
        skip.__cause__ = JobFailed(str(skip), **about)  # what the log and the Jobs tab show
        return skip
    if code in given.get(FAIL, ()):
        return JobFailedFinally(f"{failure}\nThe task is not retried: exit code {code} is in {FAIL}.", **about)
    return None
