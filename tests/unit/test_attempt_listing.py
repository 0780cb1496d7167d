"""Listings that tasks share before they submit in a triggerer: few calls, and none that is too old."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_jobflow.jobs.calls import START_WITHIN
from airflow_jobflow.operators import attempt_listing
from airflow_jobflow.operators.attempt_listing import MAX_AGE, RETENTION, SKEW, find_attempt
from airflow_jobflow.triggers import start


class Aws:
    """AWS with some jobs, and a clock that listings and turns advance.

    :param listing_takes, turn_takes: seconds.
    """

    region, partition, may_tag, valid_until = "eu-west-1", "aws", True, float("inf")

    def __init__(self, *, listing_takes: float = 0.5, turn_takes: float = 0.0) -> None:
        self.now = 1000.0
        self.jobs: dict[str, str] = {}
        self.listings: list[float] = []
        self.turn_takes = turn_takes
        self._listing_takes = listing_takes

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Fail: no call is expected here."""
        raise NotImplementedError

    @property
    def memory(self) -> dict[Any, Any]:
        """Nothing is remembered."""
        return {}

    def wait_for_turn(self) -> None:
        """Wait for a turn, which takes long once."""
        self.now += self.turn_takes
        self.turn_takes = 0.0

    def list(self, _: object, since: float) -> Mapping[str, str]:
        """List the jobs."""
        self.listings.append(since)
        found = dict(self.jobs)
        self.now += self._listing_takes
        return found

    def find(self, attempt: str = "g-t", key: str = "k", *, created: float = 990.0, started: float = 980.0) -> Any:
        """Look up the job of an attempt."""
        return find_attempt(
            self, key, self.list, attempt, created_before=created, started_at=started, clock=lambda: self.now
        )


@pytest.fixture(autouse=True)
def _no_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_listing, "_listings", {})


def test_instances_of_a_mapped_task_share_a_listing() -> None:
    """One call for each would halve the rate of submits."""
    aws = Aws()
    aws.jobs = {"g7-t": "job-7"}
    assert [aws.find(f"g{number}-t") for number in range(9)] == [None] * 7 + ["job-7", None]
    assert aws.listings == [980.0 - SKEW]


def test_threads_that_need_a_listing_wait_for_the_one_that_makes_it() -> None:
    """Sixteen starts begin at the same time."""
    aws, together = Aws(), threading.Barrier(6)

    def find(number: int) -> object:
        together.wait()
        return aws.find(f"g{number}-t")

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(find, range(6))) == [None] * 6
    assert len(aws.listings) == 1


def test_a_listing_from_before_a_trigger_was_created_proves_nothing() -> None:
    """The predecessor of this trigger may have submitted after it."""
    aws = Aws()
    assert aws.find() is None
    aws.jobs = {"g-t": "job"}
    assert aws.find(created=1000.1) == "job"
    assert len(aws.listings) == 2


def test_triggers_that_are_created_one_after_the_other_share_listings() -> None:
    """Each looks a second later than it would have to: otherwise each would need a listing of its own."""
    aws = Aws(listing_takes=0.1)
    for _ in range(100):
        aws.find(created=aws.now - start.LISTING_SHARED)
        aws.now += 0.02
    assert len(aws.listings) <= 3


def test_an_old_listing_is_repeated() -> None:
    """The process may have been frozen, and another triggerer may have submitted the job."""
    aws = Aws()
    aws.find()
    aws.jobs = {"g-t": "job"}
    aws.now += MAX_AGE
    assert aws.find() is None
    aws.now += 0.1
    assert aws.find() == "job"


def test_a_submit_must_follow_the_lookup_soon() -> None:
    """A process that is frozen in between must not send it when it wakes up."""
    aws = Aws(listing_takes=0.5)
    aws.find()
    assert aws.valid_until == 1000.5 + START_WITHIN


def test_a_process_that_is_frozen_while_it_waits_for_its_turn_lists_again() -> None:
    """The listing must be the last step before the submit."""
    aws = Aws(turn_takes=60.0)
    listed = aws.list

    def then_another_submits(_: object, since: float) -> Mapping[str, str]:
        found = listed(_, since)
        aws.jobs = {"g-t": "job"}
        return found

    aws.list = then_another_submits  # type: ignore[method-assign]
    assert aws.find() == "job"
    assert len(aws.listings) == 2


def test_a_listing_that_takes_long_is_not_repeated_forever() -> None:
    """Its age counts from its end."""
    aws = Aws(listing_takes=10 * MAX_AGE)
    assert aws.find() is None
    assert len(aws.listings) == 1


def test_a_task_that_was_started_earlier_lists_further_back() -> None:
    """Its job may be older than the listed ones."""
    aws = Aws()
    aws.find(started=980.0)
    aws.find(started=900.0)
    aws.find(started=980.0)
    assert aws.listings == [980.0 - SKEW, 900.0 - SKEW]


def test_jobs_of_another_queue_need_another_listing() -> None:
    """Only a few listings are kept, because a triggerer runs for months."""
    aws = Aws(listing_takes=0.0)
    for number in range(RETENTION + 5):
        aws.find(key=f"queue-{number}")
    assert len(aws.listings) == RETENTION + 5
    assert len(attempt_listing._listings) == RETENTION


def test_a_failed_listing_is_repeated() -> None:
    """It proves nothing."""
    aws = Aws()

    def fails(_: object, since: float) -> Mapping[str, str]:
        raise OSError

    working, aws.list = aws.list, fails  # type: ignore[method-assign]
    with pytest.raises(OSError):  # noqa: PT011 -- the error above
        aws.find()
    aws.list = working  # type: ignore[method-assign]
    assert aws.find() is None
    assert len(aws.listings) == 1
