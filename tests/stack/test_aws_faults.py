"""AWS is slow, failing or unreachable for a while: each task starts one job, gets its outcome, and does not fail."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.aws_actions import STARTS
from tests.stack.kit import ENDED, RUN_PATIENCE, Kit, Run
from tests.stack.verdicts import breaches

GONE = 60.0
"""Seconds for which the local AWS is unreachable; a call times out after five."""
GONE_LONG = 90.0
"""Longer than the time for which a try waits for AWS."""
FROZEN = 15.0


def assert_ended_well(kit: Kit, *runs: Run) -> None:
    """Check that each task of each run has started its jobs once, and has their outcomes."""
    assert [breach for run in runs for breach in breaches(kit, run)] == []
    kit.no_job_runs()


def test_aws_cannot_be_reached_for_a_minute(kit: Kit) -> None:
    """Neither waits nor starts in progress, between the record and the call, fail."""
    held = kit.stack.directory / "held"
    held.touch()
    starting = kit.run("stack_dying", seconds=3, dies_at="before the call", dies="nothing", holds=str(held))
    waiting = [kit.run(dag_id, seconds=20) for dag_id in ("stack_batch", "stack_services")]
    waiting[0].waits()
    waiting[1].waits("fargate", "glue")
    waiting.append(kit.run("stack_maps", seconds=8))
    waiting[2].waits("batch", "fargate")
    for task_id in starting.states:
        starting.logs("Held before the call", task_id)
    kit.stack.gate.close()
    held.unlink()
    time.sleep(GONE)
    kit.stack.gate.open()
    assert_ended_well(kit, starting, *waiting)
    assert {tries for run in waiting for tries in run.tries.values()} == {1}


def test_an_outage_does_not_use_up_the_retries(kit: Kit) -> None:
    """A try waits for AWS before it fails."""
    kit.stack.gate.close()
    run = kit.run("stack_batch_twice_again", seconds=1)
    run.reaches("running", "job")
    time.sleep(GONE_LONG)
    kit.stack.gate.open()
    assert_ended_well(kit, run)


def test_aws_is_frozen_while_jobs_run(kit: Kit) -> None:
    """Connections are accepted, but get no response."""
    runs = [kit.run("stack_batch", seconds=5), kit.run("stack_services", seconds=5)]
    runs[0].waits()
    runs[1].waits("fargate", "glue")
    kit.stack.pause("aws")
    time.sleep(FROZEN)
    kit.stack.unpause("aws")
    assert_ended_well(kit, *runs)


@pytest.mark.parametrize(
    "faults",
    [
        {"calls_per_second": 3},
        {"error_every": 3},
        {"drop_every": 3},
        {"lose_answers": 9, "actions": STARTS},
    ],
    ids=["throttled", "a third broken", "a third cut off", "answers to starts lost"],
)
def test_aws_fails_from_start_to_end(kit: Kit, faults: dict[str, Any]) -> None:
    """Starts, describe calls and log reads are affected."""
    runs = [kit.new_run(dag_id) for dag_id in ("stack_batch_again", "stack_services", "stack_crawl", "stack_maps")]
    kit.faults(**faults)
    for run in runs:
        run.trigger(seconds=1)
    deadline = time.monotonic() + RUN_PATIENCE
    while any(run.state not in ENDED for run in runs) and time.monotonic() < deadline:
        time.sleep(5)
        if "lose_answers" not in faults:
            kit.faults(
                **faults
            )  # it starts to count again: otherwise the same call of a periodic caller would always fail
    kit.faults()
    assert_ended_well(kit, *runs)
