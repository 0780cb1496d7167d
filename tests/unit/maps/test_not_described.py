"""What becomes of a map of which AWS cannot describe one job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.maps.runner import MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.stopper import Unstopped
from tests.unit.polling.scripted import run
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
