"""The orphan reaper's DAG, run like `airflow dags test`, with the states of a real Airflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.jobs import orphans
from airflow_jobflow.jobs.owner import Owner, attempt_token
from airflow_jobflow.local import LocalAws

DAG = "stop_orphans"
REAL = {"job_queues": ["print-color-queue"], "dry_run": False}


@pytest.fixture
def ended(run_on: Callable[..., Any], samples: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Owner:
    """A task that has ended, in a deployment whose jobs count as orphans at any age."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "tests")
    monkeypatch.setattr(orphans, "MIN_AGE", 0.0)
    run = run_on(samples, "batch_job_status_poller")
    assert run.states["run_job"] == "success"
    return Owner("batch_job_status_poller", "run_job", run.run_id, deployment="tests")


def submitted(aws: LocalAws, owner: Owner) -> str:
    """Submit a long job like that task would have done."""
    name = f"job-{owner.group}-t1m2c0-{attempt_token('ti', 1)}"
    command = {"command": ["sleep", "600"]}
    request = {"jobName": name, "jobQueue": "print-color-queue", "jobDefinition": "hello-world", "tags": owner.tags()}
    return str(aws.client("batch").submit_job(**request, containerOverrides=command)["jobId"])


def state(aws: LocalAws, job_id: str) -> tuple[str, bool]:
    """Return the status of a job, and whether it was stopped."""
    [job] = aws.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    return job["status"], bool(job.get("isTerminated") or job.get("isCancelled"))


def test_an_orphan_is_found_and_stopped(run_on: Callable[..., Any], samples: LocalAws, ended: Owner) -> None:
    """The first run is a dry run, as the DAG is delivered; a job of a run that Airflow does not know is not stopped."""
    orphan = submitted(samples, ended)
    unknown = submitted(samples, Owner(ended.dag_id, ended.task_id, "manual__deleted", deployment="tests"))
    run = run_on(samples, DAG)
    assert run.state == "success"
    report = run.returned("find_and_stop")
    assert {job["job_id"]: (job["action"], job["state"]) for job in report["jobs"]} == {
        orphan: ("would_stop", "success"),
        unknown: ("left_alone", "unknown"),
    }
    assert not state(samples, orphan)[1]
    report = run_on(samples, DAG, **REAL).returned("find_and_stop")
    assert (report["counts"]["stopped"], report["counts"]["left_alone"]) == (1, 1)
    assert (state(samples, orphan)[1], state(samples, unknown)[1]) == (True, False)
    run_on(samples, DAG, **REAL, reap_deleted_runs=True)
    assert state(samples, unknown)[1]


def test_an_unknown_queue_fails_the_run_after_the_others_were_handled(
    run_on: Callable[..., Any], samples: LocalAws, ended: Owner
) -> None:
    """A reaper that silently lists nothing would be useless."""
    orphan = submitted(samples, ended)
    run = run_on(samples, DAG, **{**REAL, "job_queues": ["nowhere", "print-color-queue"]})
    assert run.state == "failed"
    assert run.states == {"find_and_stop": "success", "check_problems": "failed"}
    assert [each["location"] for each in run.returned("find_and_stop")["problems"]] == ["nowhere"]
    assert state(samples, orphan)[1]


def test_the_dag_is_delivered_paused_and_dry(dags: Any) -> None:
    """It does not run twice at the same time."""
    dag = dags[DAG]
    assert dag.is_paused_upon_creation
    assert dag.params["dry_run"] is True
    assert dag.params["reap_deleted_runs"] is False
    assert (dag.schedule, dag.max_active_runs, dag.catchup) == ("@hourly", 1, False)
