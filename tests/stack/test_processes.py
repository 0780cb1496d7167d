"""Airflow's own processes die, freeze and come back: nothing is stopped, nothing is started twice, every run ends."""

from __future__ import annotations

import time

import pytest

from tests.stack.kit import Kit, Run
from tests.stack.verdicts import breaches

TAKEN_OVER = 15.0
"""Seconds after which a triggerer that gives no sign of life has lost its triggers to another."""


def ended_well(kit: Kit, run: Run, *, tries: int | None = 1) -> None:
    """Hold that a run of one job ended with that job, which nobody has touched."""
    assert run.ends() == "success", run.states
    assert breaches(kit, run) == []
    assert tries in (None, run.tries["job"])
    assert "stopping" not in run.log().lower()
    kit.is_quiet()


@pytest.mark.parametrize("how", ["kill", "stop", "pause"])
def test_another_triggerer_takes_over(kit: Kit, how: str) -> None:
    """From one that was killed, told to end, or froze and woke up later."""
    kit.stack.stop("triggerer", 2)
    run = kit.run("stack_batch", seconds=TAKEN_OVER + 8)
    run.waits()
    kit.stack.start("triggerer", 2)
    kit.stack.await_healthy()
    getattr(kit.stack, how)("triggerer", 1)
    if how == "pause":
        time.sleep(TAKEN_OVER)
        kit.stack.unpause("triggerer", 1)
    ended_well(kit, run)


def test_the_scheduler_is_killed(kit: Kit) -> None:
    """While one job runs, and while another is being started."""
    waiting = kit.run("stack_batch", seconds=10)
    waiting.waits()
    starting = kit.run("stack_batch", seconds=1)
    kit.stack.kill("scheduler")
    time.sleep(5)
    kit.stack.repair()
    for run in (waiting, starting):
        ended_well(kit, run)


def test_postgres_is_restarted(kit: Kit) -> None:
    """While a job runs; whatever of Airflow ends for it is started again, as the file says."""
    run = kit.run("stack_batch", seconds=15)
    run.waits()
    kit.stack.stop("postgres")
    time.sleep(5)
    kit.stack.start("postgres")
    kit.stack.repair()
    ended_well(kit, run)
