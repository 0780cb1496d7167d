"""A kill reaches ``on_kill`` wherever a trigger waits. Airflow calls it only if the cancellation keeps its message."""

from __future__ import annotations

import asyncio
import itertools
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner

from airflow_jobflow import stopping
from airflow_jobflow.airflow_compat.deferrals import set_timeout, timeout_of
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.polling import schedule
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.triggers import base, ending, job
from airflow_jobflow.triggers.base import WaitTrigger
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.start import StartTrigger
from tests.triggerer import Supervisor, task

MESSAGE = getattr(triggerer_job_runner, "_USER_ACTION_CANCEL_MSG", None)
"""The message of the cancellation at a kill; None before Airflow 3.3."""

Scenario = Callable[[], "Killable | Starting"]


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


class Starting(StartTrigger):
    """Starts a job, and waits for it with another trigger."""

    def __init__(self) -> None:
        super().__init__(task_class="", arguments={}, seconds=60.0)
        self.waiting = succeeds()

    async def _try_to_start(self) -> WaitTrigger:
        for _ in range(3):
            await asyncio.sleep(0)
        return self.waiting

    async def stop_jobs(self) -> None:
        """Stop what was started meanwhile."""
        await self.waiting.stop_jobs()


@types.coroutine
def cancelled_at(nth: int, coroutine: Coroutine[Any, Any, None], *, again: bool) -> Generator[Any, Any, bool]:
    """Run a coroutine, and cancel it at its nth suspension, and at each later one if it is to be cancelled again, like
    Airflow. Return whether it got there.
    """
    error: BaseException | None = None
    for count in itertools.count(1):
        try:
            waits_for = coroutine.throw(error) if error else coroutine.send(None)
        except StopIteration:
            return count > nth
        except asyncio.CancelledError:
            return True
        error = None
        if count == nth or (again and count > nth):
            running = asyncio.current_task()
            assert running
            running.cancel(MESSAGE)
        try:
            yield waits_for
        except BaseException as thrown:  # noqa: BLE001 -- any error of the coroutine
            error = thrown
    raise AssertionError


def run_killed(nth: int, trigger: Killable | Starting, *, again: bool) -> bool:
    """Run a trigger in Airflow's triggerer, and kill it at its nth wait; return whether it was killed."""

    async def scenario() -> bool:
        runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        trigger.task_instance = task()
        runner.triggers[1] = {"task": None, "is_watcher": False, "name": "trigger", "events": 0}
        running = runner.run_trigger(1, trigger, timeout_of(trigger))
        return await asyncio.create_task(_as_coroutine(cancelled_at(nth, running, again=again)))

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


def waiting(trigger: Killable | Starting) -> Killable:
    """Return the trigger that waits for the job."""
    return trigger.waiting if isinstance(trigger, Starting) else trigger


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten waits, and make no calls."""

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


@pytest.mark.parametrize("again", [False, True], ids=["cancelled once", "cancelled until it ends"])
@pytest.mark.parametrize("make", [succeeds, resumes, runs_out_of_time, Starting])
def test_a_kill_at_any_wait_of_a_trigger_stops_its_jobs(make: Scenario, *, again: bool) -> None:
    """This includes waits while it starts, logs, ends the task, stops a job at its deadline, or delays its event; and
    Airflow's own wait before it calls ``on_kill``.
    """
    killed_at = 0
    for nth in itertools.count(1):
        trigger = make()
        was_cancelled = run_killed(nth, trigger, again=again)
        if waiting(trigger)._fired or not was_cancelled:
            break
        assert waiting(trigger).was_killed, f"the kill at wait {nth} was lost"
        killed_at = nth
    assert killed_at >= 4


@pytest.mark.parametrize("make", [succeeds, Starting])
def test_the_end_of_a_deferral_stops_no_job(make: Scenario) -> None:
    """Airflow cancels the trigger as for a kill. The task is resumed, and decides about its job."""
    for nth in itertools.count(1):
        trigger = make()
        set_timeout(trigger, datetime.now(UTC) - timedelta(seconds=1))
        was_cancelled = run_killed(nth, trigger, again=False)
        assert not waiting(trigger).was_killed
        if waiting(trigger)._fired or not was_cancelled:
            break
