"""The exceptions: which ones are retried, and pickling."""

from __future__ import annotations

import inspect
import pickle

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow import exceptions
from airflow_jobflow.exceptions import JobflowError
from airflow_jobflow.jobs.causes import OUT_OF_MEMORY

ALL = [e for _, e in inspect.getmembers(exceptions, inspect.isclass) if issubclass(e, JobflowError)]


def test_the_names_of_the_exceptions_are_pinned() -> None:
    """Users catch them by name."""
    assert {error.__name__ for error in ALL} == {
        "JobflowError",
        "InvalidParameter",
        "SubmissionError",
        "SubmissionRejected",
        "CapacityUnavailable",
        "JobFailed",
        "JobFailedFinally",
        "JobStopped",
        "JobTimeout",
        "QueueTimeout",
        "JobNotFound",
        "WaitError",
        "AccessDenied",
    }


def test_only_permanent_errors_are_final() -> None:
    """A missing permission may be granted while the job runs; the next try then continues with it."""
    final = {error.__name__ for error in ALL if issubclass(error, AirflowFailException)}
    assert final == {"InvalidParameter", "SubmissionRejected", "JobFailedFinally"}


@pytest.mark.parametrize("error", ALL)
def test_an_error_can_be_pickled_with_its_attributes(error: type[JobflowError]) -> None:
    """Airflow passes errors between processes."""
    original = error("what happened", outcome={"job_id": "abc"}, diagnosis=OUT_OF_MEMORY)
    copy = pickle.loads(pickle.dumps(original))
    assert (type(copy), str(copy)) == (error, "what happened")
    assert (copy.outcome, copy.diagnosis) == ({"job_id": "abc"}, OUT_OF_MEMORY)
