"""After a kill or a deadline, the task's log reports for each job whether it was stopped, and if not, why (F5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.aws import Access
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.maps import stopper
from airflow_jobflow.maps.calls import MapCalls
from airflow_jobflow.maps.stopper import MAX_IDS_PER_LINE, MAX_STOPPED_IDS_LOGGED
from airflow_jobflow.operators.batch import BatchJobOperator

DENIED = CallError(Fault.DENIED, "TerminateJob: not authorized")


def stopped_by_map(monkeypatch: pytest.MonkeyPatch, *job_ids: str) -> None:
    """Stop jobs as a map does. Jobs whose id begins with ``bad`` cannot be stopped."""

    async def scripted(_: Any, __: Callable[..., Any], job_id: str, *___: Any, **____: Any) -> None:
        await asyncio.sleep(0)
        if job_id.startswith("bad"):
            raise DENIED

    monkeypatch.setattr(stopper, "run", scripted)

    async def scenario() -> None:
        await MapCalls(Access(), "batch", None, {}).stopper.stop(KILL_REASON, job_ids)

    asyncio.run(scenario())


def test_a_map_names_each_job_that_it_stopped_and_each_that_it_could_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that could not be stopped is logged with the reason."""
    caplog.set_level(logging.INFO, stopper.__name__)
    stopped_by_map(monkeypatch, "a", "bad", "b")
    assert sorted((each.levelname, each.getMessage()) for each in caplog.records) == [
        ("ERROR", "Could not stop Batch job bad, and it may still run: TerminateJob: not authorized"),
        ("INFO", "Stopped 2 Batch jobs, because the Airflow task was killed: a, b"),
    ]


def test_a_map_of_thousands_of_jobs_does_not_flood_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All jobs are counted, and the first thousand are named."""
    caplog.set_level(logging.INFO, stopper.__name__)
    stopped_by_map(monkeypatch, *[f"job-{each}" for each in range(MAX_STOPPED_IDS_LOGGED + 2 * MAX_IDS_PER_LINE)])
    lines = [each.getMessage() for each in caplog.records]
    assert all(line.startswith(f"Stopped {MAX_IDS_PER_LINE} Batch jobs, because ") for line in lines)
    assert len(lines) == (MAX_STOPPED_IDS_LOGGED + 2 * MAX_IDS_PER_LINE) // MAX_IDS_PER_LINE
    assert sum(line.count("job-") for line in lines) == MAX_STOPPED_IDS_LOGGED


def test_a_worker_names_each_job_that_it_stopped_and_each_that_it_could_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results are logged, not only the intention."""

    def call(_: Any, job_id: str, *__: Any, **___: Any) -> None:
        if job_id == "bad":
            raise DENIED

    task = BatchJobOperator(task_id="t", job_name="n", job_queue="q", job_definition="d")
    monkeypatch.setattr(task._execution.jobs, "call", call)
    with pytest.raises(CallError):
        task._execution.jobs.stop(["a", "bad", "b"], KILL_REASON)
    log = capsys.readouterr().out
    for line in (
        "Stopped Batch job a",
        "Could not stop Batch job bad, and it may still run: TerminateJob: not authorized",
        "Stopped Batch job b",
    ):
        assert line in log
