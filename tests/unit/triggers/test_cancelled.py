"""A kill reaches ``on_kill`` wherever a trigger waits. Airflow calls it only if the cancellation keeps its message."""

from __future__ import annotations

import asyncio
import itertools
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner

from airflow_jobflow import stopping
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.polling import schedule
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.triggers import base, ending, job
from airflow_jobflow.triggers.job import JobTrigger
from tests.triggerer import Supervisor, task

MESSAGE = getattr(triggerer_job_runner, "_USER_ACTION_CANCEL_MSG", None)
"""The message of the cancellation at a kill; None before Airflow 3.3."""

Scenario = Callable[[], "Killable"]


class Limiter:
    """A rate limiter without a limit."""

    budget = rate = 1e6

    async def acquire(self) -> float:
        """Return at once."""
        await asyncio.sleep(0)
        return asyncio.get_running_loop().time()


class Killable(JobTrigger):
    """Records whether a kill would have stopped its jobs."""

    was_killed = False

    def watcher(self, service: str, scope: str | None) -> Watcher[Snapshot]:  # noqa: ARG002
        """Return a watcher whose job runs for a while, and then succeeds unless there is a deadline."""
        states: Iterator[str] = itertools.chain(["RUNNABLE", "RUNNING", "RUNNING"], itertools.repeat("SUCCEEDED"))
        if self.deadline:
            states = itertools.repeat("RUNNING")

        async def describe(job_ids: Sequence[str]) -> dict[str, Snapshot | None]:
            await asyncio.sleep(0)
            status = next(states)
            state = JobState(status) if status in set(JobState) else JobState.SUBMITTED
            return {job_id: Snapshot(job_id, state, status) for job_id in job_ids}

        return Watcher(describe, Limiter())

    async def stop_jobs(self) -> None:
        """Record the stop."""
        await asyncio.sleep(0)
        self.was_killed = True


@types.coroutine
def cancelled_at(nth: int, coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, bool]:
    """Run a coroutine, and cancel it at its nth suspension, like Airflow; return whether it got there."""
    error: BaseException | None = None
    for count in itertools.count(1):
        try:
            waits_for = coroutine.throw(error) if error else coroutine.send(None)
        except StopIteration:
            return count > nth
        except asyncio.CancelledError:
            return True
        error = None
        if count == nth:
            running = asyncio.current_task()
            assert running
            running.cancel(MESSAGE)
        try:
            yield waits_for
        except BaseException as thrown:  # noqa: BLE001 -- any error of the coroutine
            error = thrown
    raise AssertionError


def run_killed(nth: int, trigger: Killable) -> bool:
    """Run a trigger in Airflow's triggerer, and kill it at its nth wait; return whether it was killed."""

    async def scenario() -> bool:
        runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        trigger.task_instance = task()
        runner.triggers[1] = {"task": None, "is_watcher": False, "name": "trigger", "events": 0}
        return await asyncio.create_task(_as_coroutine(cancelled_at(nth, runner.run_trigger(1, trigger))))

    return asyncio.run(scenario())


async def _as_coroutine(awaitable: Awaitable[bool]) -> bool:
    return await awaitable


def succeeds() -> Killable:
    """Return a trigger whose job succeeds, and which ends its task."""
    return Killable(service="batch", job_ids=["a"], poll_interval=0.001, cancel_on_kill=True, result_kind="outcome")


def resumes() -> Killable:
    """Return a trigger whose job ends, and which delays its event until a worker may resume the task."""
    return Killable(
        service="batch",
        job_ids=["a"],
        poll_interval=0.001,
        cancel_on_kill=True,
        deferred_at=time.time(),
        reports_progress=True,
    )


def runs_out_of_time() -> Killable:
    """Return a trigger whose deadline passes, and which stops its job."""
    deadline = time.time() + 0.3
    return Killable(
        service="batch",
        job_ids=["a"],
        poll_interval=0.001,
        cancel_on_kill=True,
        cancel_on_timeout=True,
        deadline=deadline,
        deferred_at=time.time(),
    )


@pytest.mark.parametrize("make", [succeeds, resumes, runs_out_of_time])
def test_a_kill_at_any_wait_of_a_trigger_stops_its_jobs(make: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes waits while it logs, ends the task, stops a job at its deadline, or delays its event."""

    async def stopped(*_: object, **__: object) -> None:
        await asyncio.sleep(0.002)

    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    monkeypatch.setattr(base, "LOG_DELAY", 0.0)
    monkeypatch.setattr(base, "MIN_DEFERRAL", 0.05)
    monkeypatch.setattr(schedule, "NEW_JOB_DELAY", 0.01)
    monkeypatch.setattr(stopping, "run", stopped)
    monkeypatch.setattr(job, "DEADLINE_DESCRIBE_TIMEOUT", 0.01)
    monkeypatch.setattr(ending, "_push_result", lambda *_, **__: {})
    killed_at = 0
    for nth in itertools.count(1):
        trigger = make()
        was_cancelled = run_killed(nth, trigger)
        if trigger._fired or not was_cancelled:
            break
        assert trigger.was_killed, f"the kill at wait {nth} was lost"
        killed_at = nth
    assert killed_at >= 4
