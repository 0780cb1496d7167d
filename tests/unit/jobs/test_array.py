"""Arrays: how many children may fail, and which run again in a redrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs.array import (
    INDEXES,
    Tolerance,
    index_ranges,
    indexes_of,
    rerun_requests,
    without_index_of_one,
)
from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH


@pytest.mark.parametrize(
    ("count", "percentage", "failed", "size", "allowed"),
    [
        (0, 0, 0, 10, True),
        (0, 0, 1, 10, False),
        (2, 0, 2, 10, True),
        (2, 0, 3, 10, False),
        (0, 10, 1, 10, True),
        (0, 10, 1, 9, False),
        (1, 50, 5, 10, True),
        (0, 100, 10, 10, True),
        (0, 18.4, 69, 375, True),
        (0, 18.4, 70, 375, False),
    ],
)
def test_the_larger_of_the_two_tolerances_applies(
    count: int, percentage: float, failed: int, size: int, allowed: bool
) -> None:
    """One failure more than tolerated fails the array."""
    assert Tolerance(count, percentage).allows(failed, size) is allowed


@given(st.sets(st.integers(0, 300)))
def test_ranges_contain_every_index_once(indexes: set[int]) -> None:
    """An index missing from the ranges in the message is a failure that nobody notices."""
    said: list[int] = []
    for part in filter(None, index_ranges(indexes).split(",")):
        first, _, last = part.partition("-")
        said += range(int(first), int(last or first) + 1)
    assert said == sorted(indexes)


# Running again what did not succeed.

SUBMIT: dict[str, Any] = {
    "jobName": "hello",
    "jobQueue": "q",
    "jobDefinition": "d",
    "arrayProperties": {"size": 10_000},
    "containerOverrides": {"command": ["run"], "environment": [{"name": "A", "value": "1"}]},
}
"""The request of the original array."""


def indexes_variable(request: dict[str, Any]) -> str:
    """Return the variable with the indexes from a container's environment."""
    environment = request["containerOverrides"]["environment"]
    assert {"name": "A", "value": "1"} in environment
    [ranges] = [each["value"] for each in environment if each["name"] == INDEXES]
    return str(ranges)


@given(indexes=st.sets(st.integers(0, 9_999), min_size=1))
def test_indexes_survive_being_written_as_ranges(indexes: set[int]) -> None:
    """A child with a wrong index would do another child's work."""
    assert indexes_of(index_ranges(indexes)) == sorted(indexes)


@given(indexes=st.sets(st.integers(0, 9_999), min_size=1), room=st.integers(0, MAX_BATCH_OVERRIDES_LENGTH))
def test_every_index_runs_again_once_within_the_size_limit(indexes: set[int], room: int) -> None:
    """A truncated index would never run, and overrides above the limit would be rejected."""
    command = ["x" * (MAX_BATCH_OVERRIDES_LENGTH - room)]
    request = {**SUBMIT, "containerOverrides": {**SUBMIT["containerOverrides"], "command": command}}
    runs = list(rerun_requests(request, indexes))
    assert [index for part, _ in runs for index in part] == sorted(indexes)
    for part, job in runs:
        assert indexes_of(indexes_variable(job)) == part
        assert job.get("arrayProperties", {}).get("size", 1) == len(part)
        fits = len(json.dumps(job["containerOverrides"])) <= MAX_BATCH_OVERRIDES_LENGTH
        assert fits or len(index_ranges(part).split(",")) == 1  # it cannot be split further


def test_ten_thousand_scattered_indexes_take_few_arrays() -> None:
    """Indexes are packed into few arrays, because each array is one more job to wait for."""
    runs = list(rerun_requests(SUBMIT, range(0, 10_000, 2)))
    assert len(runs) == 4
    assert next(iter(rerun_requests(SUBMIT, range(10_000))))[1]["arrayProperties"] == {"size": 10_000}


def test_a_single_index_runs_as_a_plain_job() -> None:
    """Batch has no arrays of one."""
    [(part, job)] = rerun_requests(SUBMIT, [7])
    assert part == [7]
    assert "arrayProperties" not in job
    assert indexes_variable(job) == "7"


def test_indexes_of_an_earlier_redrive_are_replaced() -> None:
    """A third try must not also get the second one's indexes."""
    [(_, job)] = rerun_requests(SUBMIT, [3, 4, 7])
    [(_, again)] = rerun_requests(job, [4, 7])
    assert indexes_variable(again) == "4,7"


def test_only_dependencies_between_children_are_kept() -> None:
    """Other arrays have another size, and other jobs have ended."""
    others = [{"jobId": "a", "type": "N_TO_N"}, {"jobId": "b"}]
    request = {**SUBMIT, "dependsOn": [*others, {"type": "SEQUENTIAL"}]}
    assert [job.get("dependsOn") for _, job in rerun_requests(request, [1, 2])] == [[{"type": "SEQUENTIAL"}]]
    assert [job.get("dependsOn") for _, job in rerun_requests(request, [1])] == [None]


def test_only_the_index_of_an_array_of_one_is_dispensable() -> None:
    """Without it scripts take 0 for granted; whatever else is overridden must not be lost."""
    index, other = {"name": INDEXES, "value": "0"}, {"name": "A", "value": "1"}
    assert without_index_of_one({"environment": [index]}) is without_index_of_one(None) is None
    assert without_index_of_one({"environment": [index, other], "memory": 1}) == {"environment": [other], "memory": 1}
    assert without_index_of_one({"environment": [index], "command": ["a"]}) == {"command": ["a"]}
    several = {"environment": [{"name": INDEXES, "value": "0-3"}]}
    assert without_index_of_one(several) == several
