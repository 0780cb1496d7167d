"""A worker dies at any point of a start: the retry finds the started job, and one job runs to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.stack.dags.dying import POINTS
from tests.stack.kit import ENDED, RUN_PATIENCE, Kit, Run
from tests.stack.verdicts import breaches

NOBODY = 60.0
"""Seconds for which no triggerer is alive."""


def dying(kit: Kit, dies: str) -> dict[str, Run]:
    """Start each kind of job, in a run for each point at which its worker dies."""
    return {point: kit.run("stack_dying", seconds=5, dies_at=point, dies=dies) for point in POINTS}


def assert_started_once(kit: Kit, runs: Mapping[str, Run]) -> None:
    """Check that each job was started once, although its first try has died."""
    for point, run in runs.items():
        assert breaches(kit, run) == [], point
        if point != "after the defer":  # Airflow may have recorded the deferral by then, so that there is no retry
            assert min(run.tries.values()) > 1, (point, run.tries)
    kit.no_job_runs()


def test_a_task_dies_while_it_starts_a_job_and_no_triggerer_lives_for_a_minute(kit: Kit) -> None:
    """No triggerer is needed to find the started job; waits that began before or meanwhile complete."""
    before = [kit.run(dag_id, seconds=20) for dag_id in ("stack_batch", "stack_batch_many", "stack_services")]
    before[0].waits()
    before[1].waits("array", "each[0]", "each[1]", "each[2]")
    before[2].waits("fargate", "glue")
    maps = kit.run("stack_maps", seconds=8)
    maps.waits("batch", "fargate")
    kit.stack.kill("triggerer", 1)
    kit.stack.stop("triggerer", 2)
    runs = dying(kit, "task")
    time.sleep(NOBODY)
    for run in (*before, maps):
        assert set(run.states.values()) == {"deferred"}, run.states
    kit.stack.repair()
    assert_started_once(kit, runs)
    assert [breach for run in (*before, maps) for breach in breaches(kit, run)] == []


def test_a_worker_dies_while_it_starts_a_job(kit: Kit) -> None:
    """Its other tasks die too."""
    runs = dying(kit, "worker")
    deadline = time.monotonic() + 2 * RUN_PATIENCE
    while any(run.state not in ENDED for run in runs.values()):
        assert time.monotonic() < deadline, [run.states for run in runs.values()]
        kit.stack.revive()  # like Docker
        time.sleep(2)
    assert_started_once(kit, runs)
