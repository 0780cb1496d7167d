"""Airflow's own processes die, freeze and restart: no job is stopped or started twice, and every run ends."""

from __future__ import annotations

import time

import pytest

from tests.stack.kit import Kit, Run
from tests.stack.verdicts import breaches

TAKEN_OVER = 15.0
"""Seconds after which the triggers of a triggerer without heartbeats are moved to another one."""


def assert_ended_well(kit: Kit, run: Run, *, tries: int | None = 1) -> None:
    """Check that a run of one job has ended with this job, which was not stopped."""
    assert run.ends() == "success", run.states
    assert breaches(kit, run) == []
    assert tries in (None, run.tries["job"])
    assert "stopping" not in run.log().lower()
    kit.no_job_runs()


@pytest.mark.parametrize("how", ["kill", "stop", "pause"])
def test_another_triggerer_takes_over(kit: Kit, how: str) -> None:
    """The first one was killed, stopped, or frozen for a while."""
    kit.stack.stop("triggerer", 2)
    run = kit.run("stack_batch", seconds=TAKEN_OVER + 8)
    run.waits()
    kit.stack.start("triggerer", 2)
    kit.stack.await_healthy()
    getattr(kit.stack, how)("triggerer", 1)
    if how == "pause":
        time.sleep(TAKEN_OVER)
        kit.stack.unpause("triggerer", 1)
    assert_ended_well(kit, run)


def test_the_scheduler_is_killed(kit: Kit) -> None:
    """One job runs, and another one is being started."""
    waiting = kit.run("stack_batch", seconds=10)
    waiting.waits()
    starting = kit.run("stack_batch", seconds=1)
    kit.stack.kill("scheduler")
    time.sleep(5)
    kit.stack.repair()
    for run in (waiting, starting):
        assert_ended_well(kit, run)


def test_postgres_is_restarted(kit: Kit) -> None:
    """A job is running; the services of Airflow that end are restarted, as configured in the file."""
    run = kit.run("stack_batch", seconds=15)
    run.waits()
    kit.stack.stop("postgres")
    time.sleep(5)
    kit.stack.start("postgres")
    kit.stack.repair()
    assert_ended_well(kit, run)
