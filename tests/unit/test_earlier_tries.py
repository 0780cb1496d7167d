"""The jobs of earlier tries, and of a try whose deferral failed and that left no record, as on Airflow 3.2."""

from __future__ import annotations

import hashlib
import json
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow.jobs.attempt import Attempt, MapRecord, Try
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.reattach import Found
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.earlier_tries import EarlierTries
from tests.unit.scripted_aws import ScriptedAws, context

BEFORE, THIS = Try(1, 1, 0), Try(2, 1, 0)


def found(job_id: str, state: JobState, at: str, by: Try = THIS) -> Found:
    """Return a job as in a listing of the group."""
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
    """An interrupted job beside it must neither fail a success nor cause another start."""
    record: Any = SimpleNamespace(attempt=Attempt(), durable=True, store=None, this_try=THIS, group="g")
    spec: Any = SimpleNamespace(find_group=None)
    remote: Any = SimpleNamespace(call=lambda *_: jobs)
    execution: Any = SimpleNamespace(spec=spec, record=record, jobs=remote)
    tries = EarlierTries(execution)
    assert tries.jobs_of_this_try() == expected
    assert record.attempt.job_ids == expected


BATCH: Any = {"task_id": "t", "job_name": "n", "job_queue": "q", "job_definition": "d", "deferrable": True}
LIMITS: Any = {"job_timeout": 60, "queued_timeout": 30}


def _map_record() -> MapRecord:
    digest = hashlib.sha256(json.dumps([{}]).encode()).hexdigest()
    return MapRecord(digest=digest, indexes="0", job_group={"queue": "q"})


@pytest.mark.parametrize(
    ("make", "recorded"),
    [
        (lambda **given: BatchJobOperator(**BATCH, **LIMITS, **given), {"job_ids": ["job-1"]}),
        (lambda **given: BatchMapOperator(**BATCH, items=[{}], job_timeout=60, **given), {"map": _map_record()}),
    ],
    ids=["job", "map"],
)
@pytest.mark.parametrize("cancel_on_timeout", [False, True])
def test_a_job_left_running_at_a_deadline_gets_the_time_of_the_retry(
    make: Any, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, cancel_on_timeout: bool
) -> None:
    """With the old deadline, each retry would end at once. A job that should have been stopped gets no more time."""
    aws, task, retry, now = (
        ScriptedAws(JobState.SUBMITTED),
        make(cancel_on_timeout=cancel_on_timeout),
        context(),
        time(),
    )
    execution = task._execution
    monkeypatch.setattr(execution.jobs, "call", lambda function, *arguments, **_: function(aws, *arguments))
    monkeypatch.setattr("airflow_jobflow.jobs.batch_search.find_group", lambda *_: [])
    execution.record.begin(retry)
    passed: Any = {"deadline": now - 10, "began_at": now - 70, "queued_at": now - 70}
    attempt = Attempt(token="0123456789", number=1, location=execution.record.location, **passed, **recorded)
    retry["task_state_store"]["jobflow"] = attempt.to_dict()
    retry["ti"].try_number = 2
    with pytest.raises(TaskDeferred) as deferral:
        task.execute(retry)
    trigger: Any = deferral.value.trigger
    limits = [trigger.deadline, *([trigger.queue_deadline] if "job_ids" in recorded else [])]
    assert [limit > now for limit in limits] == [not cancel_on_timeout] * len(limits)


def test_a_job_of_a_deleted_run_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is created again with the same id has the same group and tries. Its own job is listed later."""
    sleeps: list[float] = []
    monkeypatch.setattr("airflow_jobflow.operators.earlier_tries.time.sleep", sleeps.append)
    old, own = found("old", JobState.SUCCEEDED, "2025-11-22T03:00:00+00:00"), found("own", JobState.RUNNING, FIRST)
    listings = [[old], [old, own]]
    first: Any = context()
    execution, first["ti"].try_number = BatchJobOperator(**BATCH)._execution, THIS.try_number
    monkeypatch.setattr(execution.jobs, "call", lambda *_, **__: listings.pop(0))
    execution.record._resolved_location = "here"
    execution.record.begin(first)
    gave_up = {"start_on_worker": True, "may_have_started": True}
    assert list(EarlierTries(execution).started_in_triggerer(gave_up)) == ["own"]
    assert len(sleeps) == 2


def test_copying_the_log_of_a_job_that_has_ended_has_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has passed if the job was found late, and a success must not become a timeout."""
    task = BatchJobOperator(**BATCH, **LIMITS, stream_logs=True)
    wait, seen = task._execution.wait, Snapshot("job-1", JobState.SUCCEEDED, "SUCCEEDED")
    triggers: list[Any] = []
    monkeypatch.setattr(type(wait), "in_worker", lambda _, trigger: triggers.append(trigger))
    wait.until_ended(
        cast("Any", context()), ["job-1"], {"job-1": seen}, deadline=1.0, queue_deadline=1.0, cancel_on_timeout=True
    )
    assert [(each.deadline, each.queue_deadline) for each in triggers] == [(None, None)]
