"""The tree of exceptions: what is retried, and that they survive pickling."""

from __future__ import annotations

import inspect
import pickle

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow import exceptions
from airflow_jobflow.exceptions import JobflowError
from airflow_jobflow.jobs.causes import OUT_OF_MEMORY

ALL = [e for _, e in inspect.getmembers(exceptions, inspect.isclass) if issubclass(e, JobflowError)]


def test_the_names_are_those_of_the_design() -> None:
    """Users catch them by name."""
    assert {error.__name__ for error in ALL} == {
        "JobflowError",
        "InvalidParameter",
        "SubmissionError",
        "SubmissionRejected",
        "CapacityUnavailable",
        "JobFailed",
        "JobStopped",
        "JobTimeout",
        "QueueTimeout",
        "JobNotFound",
        "WaitError",
        "AccessDenied",
    }


def test_only_what_a_retry_would_meet_again_is_final() -> None:
    """A permission may be given while the job runs: the next try continues with it."""
    final = {error.__name__ for error in ALL if issubclass(error, AirflowFailException)}
    assert final == {"InvalidParameter", "SubmissionRejected"}


@pytest.mark.parametrize("error", ALL)
def test_an_error_can_be_pickled_with_all_it_knows(error: type[JobflowError]) -> None:
    """Airflow passes errors between processes."""
    original = error("what happened", outcome={"job_id": "abc"}, diagnosis=OUT_OF_MEMORY)
    copy = pickle.loads(pickle.dumps(original))
    assert (type(copy), str(copy)) == (error, "what happened")
    assert (copy.outcome, copy.diagnosis) == ({"job_id": "abc"}, OUT_OF_MEMORY)
