"""Why a wait for jobs, or a map, ended early: the exception, and what its message says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_jobflow.exceptions import (
    AccessDenied,
    JobflowError,
    JobNotFound,
    JobStopped,
    SubmissionRejected,
    WaitError,
)


@dataclass(frozen=True, slots=True)
class WaitFailure:
    """Why a trigger stopped waiting, and the exception for it.

    :param error: the exception.
    :param of_jobs: the beginning of the message about jobs.
    :param of_map: the message about a map. Default empty: it does not happen to maps.
    :param advice: what to do. Default empty.
    """

    error: type[JobflowError]
    of_jobs: str = ""
    of_map: str = ""
    advice: str = ""


WAIT_FAILURES: dict[str, WaitFailure] = {
    "vanished": WaitFailure(JobNotFound),
    "denied": WaitFailure(
        AccessDenied,
        "Not allowed to describe ",
        "could not continue, because a call is not permitted",
        "Allow the role of workers and triggerers to make this call.",
    ),
    "credentials": WaitFailure(
        AccessDenied,
        "The AWS connection could not be used to describe ",
        "could not continue, because the AWS connection could not be used",
        "Check its credentials and region, or the role of workers and triggerers.",
    ),
    "unanswerable": WaitFailure(
        WaitError, "Could not describe ", "could not continue, because its jobs could not be described"
    ),
    "refused": WaitFailure(SubmissionRejected, of_map="could not start, because AWS rejected a request"),
    "killed": WaitFailure(JobStopped, of_map="was stopped"),
    "failed": WaitFailure(WaitError, of_map="could not continue, because of an unexpected error in its trigger"),
}
"""Why a wait for jobs, or a map, ended early, by the ``kind`` in the event of its trigger."""
