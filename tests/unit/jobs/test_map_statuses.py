"""The outcome of a map, from the statuses of its items."""

from __future__ import annotations

import pytest

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.map_statuses import NOT_STARTED, indexes_to_rerun, progress, span, summary
from airflow_jobflow.jobs.model import JobState


@pytest.mark.parametrize(
    ("statuses", "tolerated", "state", "reason", "failed"),
    [
        ("", 0, "SUCCEEDED", "0 of 0 items succeeded", []),
        ("SSS", 0, "SUCCEEDED", "3 of 3 items succeeded", []),
        ("SFS", 0, "FAILED", "2 of 3 items succeeded, 1 failed", [1]),
        ("SFS", 1, "SUCCEEDED", "2 of 3 items succeeded, 1 failed", [1]),
        ("SUS", 0, "FAILED", "2 of 3 items succeeded, 1 could not be described", [1]),
        ("SUS", 1, "SUCCEEDED", "2 of 3 items succeeded, 1 could not be described", [1]),
        ("SUF", 1, "FAILED", "1 of 3 items succeeded, 1 failed, 1 could not be described", [1, 2]),
        ("SK-", 9, "FAILED", "1 of 3 items succeeded, 1 stopped, 1 never started", [1]),
    ],
)
def test_the_outcome_of_a_map(statuses: str, tolerated: int, state: str, reason: str, failed: list[int]) -> None:
    """It has the format of an array's outcome."""
    judged, said, array = summary(statuses, Tolerance(tolerated))
    assert (judged, said) == (JobState(state), reason)
    assert (array.size, array.succeeded, array.failed) == (len(statuses), statuses.count("S"), len(failed))
    assert list(array.failed_indexes) == failed


def test_progress_is_one_line() -> None:
    """Thousands are separated."""
    statuses = "S" * 1197 + "F" * 3 + "R" * 390 + "s" * 10 + "-" * 8400
    assert progress(statuses) == "1,200 of 10,000 items ended, 3 failed, 400 running"


def test_a_later_try_runs_all_items_that_did_not_succeed() -> None:
    """Items that were not started count as well."""
    assert indexes_to_rerun("SFK-S") == [1, 2, 3]
    assert indexes_to_rerun(NOT_STARTED * 2) == [0, 1]


def test_times_span_all_items() -> None:
    """The outcome of a map starts with its first item and ends with its last; unknown times are ignored."""
    assert span(["2", None, "5"], ["1", "3", None]) == ["1", "3", "5"]
