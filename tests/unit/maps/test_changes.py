"""Items that are started again with changes, on a scripted clock."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.changes import Changes
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.maps.ownership import Ownership
from airflow_jobflow.maps.result import details
from airflow_jobflow.maps.runner import MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import run
from tests.unit.triggers.test_map_refill import BUDGET, Aws

OUT_OF_MEMORY = {"reason": "OutOfMemoryError: Container killed due to memory usage", "exit_code": 137}
RECLAIMED = {"reason": "Host EC2 (instance i-0123456789abcdef0) terminated."}
TIMED_OUT = {"reason": "Job attempt duration exceeded timeout", "exit_code": 137}
BROKEN = {"exit_code": 3}

RULES: dict[str, dict[str, Any]] = {
    "m": {"memory": "x2", "max": 8192},
    "c": {"job_queue": "on-demand"},
    "t": {"attempt_timeout": "x2"},
}

Fails = Callable[[Start, Mapping[str, Any]], Mapping[str, Any] | None]
"""Returns how a job fails, given its start and what it has; None if it succeeds."""


class FailingAws(Aws):
    """An AWS on Fargate, whose jobs end after 10 s.

    :param fails: how jobs fail.
    :param memory: MiB of a job, unless a start changes that.
    """

    def __init__(self, fails: Fails, memory: int = 2048) -> None:
        super().__init__(itertools.repeat(10.0))  # type: ignore[arg-type]
        self.fails = fails
        self.starts: dict[str, Start] = {}
        self.had: dict[str, dict[str, Any]] = {}
        self.memory = memory

    async def start(self, _: Any, which: Start) -> str:
        """Start an item's job."""
        job_id = f"{which.index}-{which.history}"
        assert job_id not in self.starts
        self.starts[job_id] = which
        self.had[job_id] = {"memory": self.memory, "vcpus": 0.5, "attempt_timeout": 60, **which.values}
        self.started[job_id] = asyncio.get_running_loop().time()
        await asyncio.sleep(0)
        return job_id

    def has_ended(self, job_id: str) -> bool:
        """Whether a job has ended."""
        return asyncio.get_running_loop().time() >= self.started[job_id] + 10.0

    async def describe(self, job_ids: Any) -> dict[str, Snapshot | None]:
        """Respond to a describe call."""
        return {job_id: self._snapshot(job_id) for job_id in job_ids}

    def watched(self) -> Watcher[Snapshot]:
        """Return the watcher of the jobs; a new one if the last one has ended, like the process's."""
        if self.watcher.ended:
            self.watcher = Watcher(self.describe, RateLimiter(BUDGET, clock=asyncio.get_running_loop().time))
        return self.watcher

    def _snapshot(self, job_id: str) -> Snapshot:
        if not self.has_ended(job_id):
            return Snapshot(job_id, JobState.RUNNING, "RUNNING")
        had = self.had[job_id]
        failure = self.fails(self.starts[job_id], had)
        state = JobState.SUCCEEDED if failure is None else JobState.FAILED
        resources = {"vcpu": had["vcpus"], "gib": had["memory"] / 1024}
        more: dict[str, Any] = {"resources": resources, "fargate": True, "attempt_timeout": had["attempt_timeout"]}
        more["run_seconds"] = 10.0
        return Snapshot(job_id, state, state.value, **more, **(failure or {}))


def run_map(size: int, fails: Fails, attempts: int = 4, **more: int) -> tuple[FailingAws, MapState]:
    """Run a map to its end; its usage includes every attempt."""
    seen: list[tuple[FailingAws, MapState]] = []

    async def scenario() -> None:
        aws: Any = FailingAws(fails, **more)
        state = MapState(size, range(size), max_concurrency=50, tolerance=Tolerance(size), attempts=attempts)
        requests = dict.fromkeys(range(size), "{}")
        runner = MapRunner(
            state,
            aws,
            requests,
            watcher=aws.watched,
            poll_interval=5.0,
            spawn=asyncio.create_task,
            changes=Changes(RULES),
        )
        await runner.run()
        await runner.shut_down(None)
        assert runner.usage
        assert runner.usage.gib_seconds == sum(had["memory"] / 1024 * 10.0 for had in aws.had.values())
        seen.append((aws, state))

    run(scenario())
    return seen[0]


def needs_4_gib(which: Start, had: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Fail the first thirty items that have less than 4 GiB."""
    return OUT_OF_MEMORY if which.index < 30 and had["memory"] < 4096 else None


def test_thirty_items_of_200_that_run_out_of_memory_are_thirty_more_jobs_of_twice_the_size() -> None:
    """Only these items are started again, once, and the others are not disturbed."""
    aws, state = run_map(200, needs_4_gib)
    again = {job_id: dict(which.values) for job_id, which in aws.starts.items() if which.history}
    assert again == {f"{index}-m": {"memory": 4096, "vcpus": 0.5} for index in range(30)}
    assert len(aws.starts) == 230
    assert state.statuses == "S" * 200
    assert state.progress() == "200 of 200 items ended, 0 failed, 30 started again (30 out of memory)"
    [change] = details(state.lines()[0])["changes"]
    assert change == {
        "attempt": 2,
        "cause": "out_of_memory",
        "changed": {"memory": 4096},
        "text": "memory from 2,048 to 4,096 MiB, because the container ran out of memory and was killed",
    }
    assert details(state.lines()[30]) == {"changes": None, "not_started_again": None}


def test_several_causes_add_up(caplog: pytest.LogCaptureFixture) -> None:
    """What one failure has changed stays changed after the next one."""
    script: dict[str, Mapping[str, Any]] = {"": RECLAIMED, "c": OUT_OF_MEMORY, "cm": TIMED_OUT}
    with caplog.at_level(logging.INFO):
        aws, state = run_map(1, lambda which, _: script.get(which.history))
    values = [dict(which.values) for which in aws.starts.values()]
    assert values == [
        {},
        {"job_queue": "on-demand"},
        {"job_queue": "on-demand", "memory": 4096, "vcpus": 0.5},
        {"job_queue": "on-demand", "memory": 4096, "vcpus": 0.5, "attempt_timeout": 120},
    ]
    assert [each["cause"] for each in details(state.lines()[0])["changes"]] == ["capacity", "out_of_memory", "timeout"]
    assert Counter(which.index for which in aws.starts.values()) == {0: 4}
    assert "Item 0, attempt 2 of 4: job_queue to on-demand, because" in caplog.text
    assert "Item 0, attempt 4 of 4: attempt_timeout from 60 to 120 s, because" in caplog.text


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_an_item_gets_no_more_attempts_than_allowed(attempts: int) -> None:
    """It has failed then, and its line says that it had no attempt left."""
    aws, state = run_map(1, lambda *_: OUT_OF_MEMORY, attempts, memory=512)
    assert (len(aws.starts), state.statuses) == (attempts, "F")
    why = details(state.lines()[0])["not_started_again"]
    assert why == f"It was attempt {attempts} of {attempts}, the most that item_attempts allows."


def test_an_item_at_the_maximum_fails_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Another attempt of the same size would fail like the last one."""
    aws, state = run_map(1, lambda *_: OUT_OF_MEMORY, 10)
    assert [had["memory"] for had in aws.had.values()] == [2048, 4096, 8192]
    why = "It already had 8,192 MiB (memory), the most that on_out_of_memory allows, so it is not tried again."
    assert details(state.lines()[0])["not_started_again"] == why
    assert f"Item 0 failed: 0-mm FAILED (OutOfMemoryError: Container killed due to memory usage). {why}" in caplog.text


def test_an_item_that_fails_by_itself_is_not_started_again() -> None:
    """No rule applies to it, and a tolerance counts it."""
    aws, state = run_map(2, lambda which, _: BROKEN if which.index else None)
    assert (len(aws.starts), state.statuses) == (2, "SF")
    assert len(json.loads(state.lines()[1])) == 2


@pytest.mark.parametrize(
    ("attempts", "repeatable", "is_needed"), [(1, False, False), (2, False, True), (2, True, False)]
)
def test_ownership_is_confirmed_while_an_item_may_be_started_again(
    attempts: int, *, repeatable: bool, is_needed: bool
) -> None:
    """Without a token, two triggers that see the same failure would each start the next attempt."""

    async def scenario() -> None:
        state = MapState(1, [0], max_concurrency=1, tolerance=Tolerance(), attempts=attempts)
        assert state.next_start()
        state.record_started(0, "a")
        calls: Any = FailingAws(lambda *_: None)
        calls.starts_are_repeatable, calls.ownership = repeatable, Ownership()
        runner = MapRunner(
            state, calls, {0: "{}"}, watcher=lambda: calls.watcher, poll_interval=5.0, spawn=asyncio.create_task
        )
        assert runner._has_more_to_start() is is_needed

    run(scenario())
