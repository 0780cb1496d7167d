"""How many children may fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.model import index_ranges


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
def test_whichever_of_the_two_tolerances_allows_more(
    count: int, percentage: float, failed: int, size: int, allowed: bool
) -> None:
    """One failure too many is a failure; one fewer is none."""
    assert Tolerance(count, percentage).allows(failed, size) is allowed


@given(st.sets(st.integers(0, 300)))
def test_ranges_say_every_index_once(indexes: set[int]) -> None:
    """An index that the ranges lose is a failure nobody reads of."""
    said: list[int] = []
    for part in filter(None, index_ranges(indexes).split(",")):
        first, _, last = part.partition("-")
        said += range(int(first), int(last or first) + 1)
    assert said == sorted(indexes)
