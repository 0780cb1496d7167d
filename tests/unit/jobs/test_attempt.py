"""The record of an attempt, which later tries and other versions read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobflow.jobs.attempt import Attempt, MapRecord

MAP = MapRecord(digest="d", indexes="0-3", follows=True, job_group={"queue": "q"}, over=False)
RECORDED = Attempt(token="t", number=2, job_name="n", queue="q", interruptions=1, declined=True, since="c@x", map=MAP)


def test_a_record_keeps_its_types_in_the_store() -> None:
    """The store holds JSON."""
    assert Attempt.from_dict(json.loads(json.dumps(RECORDED.to_dict()))) == RECORDED


def test_members_with_their_defaults_are_not_stored() -> None:
    """Default values are omitted, because people read the store too."""
    assert Attempt(token="t").to_dict() == {"token": "t"}


def test_a_record_of_an_earlier_version_is_read() -> None:
    """A task that was deferred or failed before an upgrade is retried after it."""
    stored = {
        "token": "t",
        "number": 2,
        "where": {"job_name": "n", "queue": "q", "try": "t1m2c0"},
        "details": {"interruptions": 1, "declined": True, "since": "c@x"},
    }
    read = Attempt.from_dict(stored)
    assert (read.job_name, read.queue, read.submitted_by) == ("n", "q", "t1m2c0")
    assert (read.interruptions, read.declined, read.since, read.map) == (1, True, "c@x", None)


def test_a_map_record_of_an_earlier_version_is_read() -> None:
    """A retry continues with the jobs of the recorded map."""
    about = {"digest": "d", "indexes": "0-3", "follows": True, "job_group": {"queue": "q"}, "over": False}
    assert Attempt.from_dict({"token": "t", "details": {"map": about}}).map == MAP


@pytest.mark.parametrize("stored", [None, "text", {}, {"unknown": 1}, {"where": None, "details": None, "map": {}}])
def test_an_unknown_record_means_that_no_attempt_was_made(stored: Any) -> None:
    """Another version may store something that this version does not know."""
    read = Attempt.from_dict(stored)
    assert read == Attempt()
    assert not read.has_begun
