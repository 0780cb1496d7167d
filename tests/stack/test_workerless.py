"""Tasks that start and end in the triggerer have the same results as on workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stack.kit import Kit, Run
from tests.stack.test_processes import TAKEN_OVER

WITHOUT_A_WORKER = {"plain", "pulled", "no_xcom", "mapped_here[0]", "mapped[0]", "mapped[1]"} | {
    f"mapped_over_mapped[{index}]" for index in (0, 1)
}
"""The tasks of stack_workerless that need no worker; failing ones are not among them."""


def results_of(run: Run) -> dict[str, Any]:
    """Return the states, tries, XComs and links of the tasks of a run."""
    left: dict[str, Any] = {"states": run.states, "tries": run.tries}
    for name in run.states:
        task_id, _, index = name.rstrip("]").partition("[")
        if task_id not in ("ids", "first_id", "each_id", "operator"):
            at = task_id, int(index or -1)
            left[name] = {"return_value": run.returned(*at), "links": run.links(*at)}
    return left


def test_a_task_has_the_same_results_with_and_without_workers(kit: Kit, tmp_path: Path) -> None:
    """XComs, states, tries, callbacks, asset events and links are compared."""
    batch = kit.aws.client("batch")

    def start(script: str) -> str:
        overrides = {"command": ["sh", "-c", script]}
        of = {"jobQueue": "hello-world-queue", "jobDefinition": "hello-world"}
        return str(batch.submit_job(jobName="waited-for", containerOverrides=overrides, **of)["jobId"])

    job_ids = [start("sleep 20; echo slow"), start("echo quick"), start("sleep 20; exit 3")]
    endless = start("sleep 600")  # for deadlines: its waits may start late if no worker is free
    runs, files, events = {}, {}, {}
    for dag_id in ("stack_workerless", "stack_by_workers"):
        directory = tmp_path / dag_id
        directory.mkdir(mode=0o777)
        runs[dag_id] = kit.run(dag_id, job_ids=job_ids, endless=endless, directory=str(directory))
    for dag_id, run in runs.items():
        assert run.ends() == "failed"  # one of the jobs fails
        files[dag_id] = {path.name for path in (tmp_path / dag_id).iterdir()}
        events[dag_id] = kit.airflow.asset_events(dag_id, run.token)
    left = results_of(runs["stack_workerless"])
    assert left == results_of(runs["stack_by_workers"])
    assert all(left["plain"]["links"].values())
    assert all(left["mapped[1]"]["links"].values())
    assert not any(left["no_xcom"]["links"].values())
    expected = {"on_success.success", "on_execute.execute", "hooked.hook", "fails.retry", "fails.failure"}
    assert files == dict.fromkeys(runs, expected)
    assert events == {dag_id: ["outlets"] for dag_id in runs}
    run = runs["stack_workerless"]
    outcome = run.returned("operator")
    run.outcome_is_its_own(outcome, run.token, succeeds=True)
    assert run.without_a_worker == WITHOUT_A_WORKER


@pytest.mark.needs("starts")
def test_an_operator_needs_no_worker_although_its_triggerer_is_killed(kit: Kit) -> None:
    """Another triggerer starts the task again, finds the job that was submitted, and ends the task."""
    kit.stack.stop("triggerer", 2)
    run = kit.run("stack_batch_started", seconds=TAKEN_OVER + 8)
    run.waits()
    kit.stack.start("triggerer", 2)
    kit.stack.await_healthy()
    kit.stack.kill("triggerer", 1)
    assert run.ends() == "success"
    assert run.without_a_worker == {"job"}
    assert len(run.started) == 1
    run.outcome_is_its_own(run.returned(), run.token, succeeds=True)
    kit.no_job_runs()
