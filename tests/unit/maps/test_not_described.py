"""What becomes of a map of which AWS cannot describe one job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.attempt import Attempt, MapRecord
from airflow_jobflow.jobs.maps import Found
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.maps.recovery import MapRecovery
from airflow_jobflow.maps.runner import MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.stopper import MapStopper, Unstopped
from airflow_jobflow.operators import map_unfinished
from airflow_jobflow.operators.batch import BatchMapOperator
from airflow_jobflow.operators.map_record import STOPPED
from tests.unit.polling.scripted import run
from tests.unit.scripted_aws import ScriptedAws, context
from tests.unit.triggers.test_map_refill import Aws


class ForgetfulAws(Aws):
    """An AWS that does not know the job of item 1, and whose jobs can be stopped."""

    def __init__(self, lasts: Sequence[float]) -> None:
        super().__init__(lasts)
        self.stopper = self
        self.stopped: list[str] = []

    async def stop(self, _: str, job_ids: Sequence[str], **__: Any) -> Unstopped:
        """Stop jobs."""
        self.stopped += job_ids
        return Unstopped()

    async def describe(self, job_ids: Sequence[str]) -> dict[str, Snapshot | None]:
        """Answer a describe call."""
        return {job_id: job for job_id, job in (await super().describe(job_ids)).items() if job_id != "1"}


def a_map() -> tuple[Any, MapState, MapRunner]:
    """Return a map of four items, the last of which runs for long."""
    aws: Any = ForgetfulAws([10.0, 10.0, 10.0, 1000.0])
    state = MapState(4, range(4), max_concurrency=3, tolerance=Tolerance())
    requests = dict.fromkeys(range(4), "{}")
    runner = MapRunner(state, aws, requests, watcher=lambda: aws.watcher, poll_interval=10.0, spawn=asyncio.create_task)
    return aws, state, runner


def test_an_item_that_cannot_be_described_neither_fails_nor_stops_other_items() -> None:
    """Not even if no failure is tolerated. Its own job is not stopped either, because it may be fine."""

    async def story() -> None:
        aws, state, runner = a_map()
        await runner.run()
        assert await runner.shut_down("Airflow: the map was ended") == Unstopped()
        assert (state.statuses, aws.stopped) == ("SUSS", [])
        lines = dict(map(json.loads, state.lines()))
        assert (lines[1]["job_id"], lines[1]["status"]) == ("1", "UNKNOWN")
        assert lines[1]["reason"].startswith("could not be described: not found in AWS for ")

    run(story())


def test_a_passed_deadline_stops_the_job_that_cannot_be_described_too() -> None:
    """It may still run, and nobody waits for it any more."""

    async def story() -> None:
        aws, state, runner = a_map()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600.0):
                await runner.run()
        assert state.statuses == "SUSR"
        await runner.shut_down("The deadline has passed")
        assert sorted(aws.stopped) == ["1", "3"]

    run(story())


def a_stopper(monkeypatch: pytest.MonkeyPatch, listed: list[Found]) -> tuple[Any, list[str]]:
    """Return the stopper of a map with the given jobs, and a list that receives what it stops."""
    stopped: list[str] = []

    async def listing(_: object) -> list[Found]:
        return listed

    async def stop(_: object, job_id: str, *__: object) -> bool:
        stopped.append(job_id)
        return True

    async def log(*_: object) -> None:  # the scripted loop waits for no thread
        pass

    monkeypatch.setattr(MapStopper, "_stop", stop)
    monkeypatch.setattr(MapStopper, "_log_stopped", log)
    service: Any = SimpleNamespace(DISPLAY_NAME="Batch job")
    client: Any = None
    return MapStopper(client, service, None, listing), stopped


def test_the_search_for_unknown_jobs_after_a_normal_end_spares_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost response, or a restart of the triggerer, makes the map list its jobs, and the job may be fine."""

    async def story() -> None:
        aws, _, runner = a_map()
        aws.stopper, stopped = a_stopper(monkeypatch, [Found(1, "1"), Found(2, "duplicate"), Found(0, "0", ended=True)])
        await runner.run()
        aws.may_have_unknown_jobs = True
        assert await runner.shut_down("Airflow: the map was ended") == Unstopped()
        assert stopped == ["duplicate"]

    run(story())


def test_a_trigger_that_takes_over_does_not_stop_the_job_as_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its item has ended for the map, but the job may run."""

    async def story() -> None:
        aws, state, _ = a_map()
        jobs = [Found(1, "1"), Found(0, "duplicate")]
        aws.stopper, stopped = a_stopper(monkeypatch, jobs)

        async def listing() -> list[Found]:
            return jobs

        async def load() -> tuple[str, list[str]]:
            return "SU--", ['[1,{"job_id":"1"}]']

        aws.list_jobs = listing
        checkpoint: Any = SimpleNamespace(load=load)
        tracker: Any = None
        await MapRecovery(state, aws, tracker, checkpoint).recover(first_trigger_until=0.0)
        assert (stopped, state.statuses) == (["duplicate"], "SU--")

    run(story())


@pytest.mark.parametrize("may_run", [False, True])
def test_a_retry_stops_a_job_that_could_not_be_described(monkeypatch: pytest.MonkeyPatch, *, may_run: bool) -> None:
    """The retry runs its item again, and must not run it beside the old job. Other maps that ended have no jobs."""
    reasons: list[str] = []

    def stop_all(_: object, reason: str, __: object) -> str:
        reasons.append(reason)
        return STOPPED

    monkeypatch.setattr(map_unfinished, "stop_all", stop_all)
    task = BatchMapOperator(
        task_id="t", job_name="n", job_queue="q", job_definition="d", items=[{}, {}], deferrable=True, retries=1
    )
    monkeypatch.setattr(task._execution.jobs, "call", lambda function, *given, **_: function(ScriptedAws(), *given))
    retry: Any = context()
    record = task._execution.record
    record.begin(retry)
    record.attempt = Attempt(token="0123456789", number=1, location=record.location, map=MapRecord("other", "0-1"))
    task._map.record_end("SU" if may_run else "SF")
    retry["ti"].try_number = 2
    with pytest.raises(TaskDeferred):
        task.execute(retry)
    assert reasons == ["Airflow: the task was run again"] * may_run
    assert not retry["task_state_store"]["jobflow"]["map"]["may_run"]
