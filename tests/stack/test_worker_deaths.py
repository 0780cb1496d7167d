"""A worker dies at any point of a start: the retry finds what was started, and one job runs to its end."""

from __future__ import annotations

import time

import pytest

from tests.stack.dags.dying import POINTS
from tests.stack.kit import ENDED, RUN_PATIENCE, Kit, Run


def await_ends(kit: Kit, runs: list[Run]) -> None:
    """Wait until runs have ended, while what died is started again, as Docker does."""
    deadline = time.monotonic() + 2 * RUN_PATIENCE
    while any(run.state not in ENDED for run in runs):
        assert time.monotonic() < deadline, [run.states for run in runs]
        kit.stack.revive()
        time.sleep(2)


@pytest.mark.parametrize("dies", ["task", "worker"])
def test_a_worker_dies_while_it_starts_a_job(kit: Kit, dies: str) -> None:
    """At each of the points, of each service; with a whole worker dies what else it was doing."""
    runs = {point: kit.run("stack_dying", seconds=5, dies_at=point, dies=dies) for point in POINTS}
    await_ends(kit, list(runs.values()))
    for point, run in runs.items():
        assert run.state == "success", (point, run.states)
        outcomes = [run.returned(name) for name in run.states]
        assert sorted(each.job_id for each in run.started) == sorted(each["job_id"] for each in outcomes), point
        for outcome in outcomes:
            run.outcome_is_its_own(outcome, run.token, succeeds=True)
        if point != "after the defer":  # which Airflow may have taken note of by then, so that nothing is retried
            assert min(run.tries.values()) > 1, (point, run.tries)
    kit.is_quiet()
