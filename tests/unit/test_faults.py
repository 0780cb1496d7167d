"""The table of faults: a corpus of real responses, and everything that botocore knows of."""

from __future__ import annotations

import pytest

from airflow_jobflow.faults import classify, classify_failure, request_sent
from tests.unit.faults_corpus import FAILURES, RESPONSES, Failure, Response


@pytest.mark.parametrize("response", RESPONSES, ids=lambda each: f"{each.operation}-{each.code}-{each.message[:30]}")
def test_a_response_means_what_the_corpus_says(response: Response) -> None:
    """The fault, and whether the request may have been executed."""
    error = response.error()
    assert (classify(error), request_sent(error)) == (response.fault, response.sent)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: each.reason[:30] or "empty")
def test_a_failure_of_run_task_means_what_the_corpus_says(failure: Failure) -> None:
    """It comes with status 200 and has no code."""
    assert classify_failure(failure.reason, failure.detail) is failure.fault
