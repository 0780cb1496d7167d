"""The jobs of a try whose deferral failed, without a record of them, as on Airflow 3.2."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.reattach import Found
from airflow_jobflow.operators.earlier_tries import EarlierTries

BEFORE, THIS = Try(1, 1, 0), Try(2, 1, 0)


def found(job_id: str, state: JobState, at: str, by: Try = THIS) -> Found:
    """A job as a listing of the group shows it."""
    return Found(Snapshot(job_id, state, state.value, created_at=at), by)


FIRST, SECOND = "2026-11-22T03:00:00+00:00", "2026-11-22T04:00:00+00:00"
INTERRUPTED = found("interrupted", JobState.FAILED, FIRST)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], []),
        ([found("before", JobState.RUNNING, FIRST, BEFORE)], []),
        ([found("one", JobState.RUNNING, FIRST)], ["one"]),
        ([INTERRUPTED], ["interrupted"]),
        ([found("next", JobState.RUNNING, SECOND), INTERRUPTED], ["next"]),
        ([found("next", JobState.SUCCEEDED, SECOND), INTERRUPTED], ["next"]),
        ([INTERRUPTED, found("next", JobState.FAILED, SECOND)], ["next"]),
    ],
)
def test_a_try_waits_for_its_last_job(jobs: list[Found], expected: list[str]) -> None:
    """With an interrupted one beside it, a success would fail, or the job run once more."""
    record: Any = SimpleNamespace(attempt=Attempt(), durable=True, store=None, this_try=THIS, group="g")
    spec: Any = SimpleNamespace(find_group=None)
    remote: Any = SimpleNamespace(call=lambda *_: jobs)
    execution: Any = SimpleNamespace(spec=spec, record=record, jobs=remote)
    tries = EarlierTries(execution)
    assert tries.jobs_of_this_try() == expected
    assert record.attempt.job_ids == expected
