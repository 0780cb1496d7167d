"""AWS is slow, broken or gone for a while: one job each, its own outcome, and no wait that fails for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stack.kit import Kit, Run

GONE = 15.0
"""Seconds for which the local AWS cannot be reached; a call is given up after five."""


def ended_well(kit: Kit, *runs: Run) -> None:
    """Hold that each task of each run has started one job, and has its outcome."""
    for run in runs:
        assert run.ends() == "success", run.states
        outcomes = [run.returned(task_id) for task_id in run.states]
        for outcome in outcomes:
            run.outcome_is_its_own(outcome, run.token, succeeds=True)
        assert {each.job_id for each in run.started} == {outcome["job_id"] for outcome in outcomes}
        assert len(run.started) == len(outcomes)
    kit.is_quiet()


def test_aws_is_unreachable_while_jobs_run(kit: Kit) -> None:
    """The waits go on when it is back."""
    runs = [kit.run("stack_batch", seconds=10), kit.run("stack_services", seconds=10)]
    runs[0].waits()
    runs[1].waits("fargate", "glue")
    kit.stack.gate.close()
    time.sleep(GONE)
    kit.stack.gate.open()
    ended_well(kit, *runs)


def test_aws_is_frozen_while_jobs_run(kit: Kit) -> None:
    """Connections are taken and never answered."""
    runs = [kit.run("stack_batch", seconds=5), kit.run("stack_services", seconds=5)]
    runs[0].waits()
    runs[1].waits("fargate", "glue")
    kit.stack.pause("aws")
    time.sleep(GONE)
    kit.stack.unpause("aws")
    ended_well(kit, *runs)


@pytest.mark.parametrize(
    "faults",
    [
        {"calls_per_second": 2},
        {"error_every": 3},
        {"drop_every": 3},
        {"lose_answers": 3, "actions": ["batch.SubmitJob", "ecs.RunTask", "glue.StartJobRun"]},
    ],
    ids=["throttled", "a third broken", "a third cut off", "answers to starts lost"],
)
def test_aws_fails_from_start_to_end(kit: Kit, faults: dict[str, Any]) -> None:
    """Starting, looking and reading logs all meet it."""
    kit.faults(**faults)
    runs = [kit.run("stack_batch_again", seconds=3), kit.run("stack_services", seconds=3)]
    for run in runs:
        run.ends()
    kit.faults()
    ended_well(kit, *runs)
