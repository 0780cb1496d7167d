"""The orphan reaper on an AWS without an account: what it finds, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from airflow_jobflow.jobs.owner import Owner, attempt_token
from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.samples import provision
from airflow_jobflow.reaper import stop_orphans

ENDED = Owner("my_dag", "my_task", "manual__1", deployment="production")
RUNNING = Owner("my_dag", "my_task", "manual__2", deployment="production")
OTHERS = Owner("my_dag", "my_task", "manual__1", deployment="staging")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """An AWS of the test's own, which boto3 and Airflow find by the environment."""
    with LocalAws() as server:
        provision(server.endpoint_url)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def left_running(aws: LocalAws, owner: Owner) -> str:
    """Submit a job as the operator of this task would have."""
    name = f"job-{owner.group}-t1m0c0-{attempt_token('id of the task instance', 1)}"
    request: dict[str, Any] = {"jobName": name, "jobQueue": "hello-world-queue", "jobDefinition": "hello-world"}
    lasting = {"command": ["sleep", "600"]}
    return str(aws.client("batch").submit_job(**request, tags=owner.tags(), containerOverrides=lasting)["jobId"])


def states(_dag_id: str, _task_ids: Sequence[str], _run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Return what Airflow would: the states of these tasks in these runs."""
    return {"manual__1": {"my_task": "failed"}, "manual__2": {"my_task": "deferred"}}


def test_only_the_job_of_the_ended_task_is_stopped(aws: LocalAws) -> None:
    """Not that of a task that waits, and not that of another deployment."""
    orphan, wanted, others = (left_running(aws, owner) for owner in (ENDED, RUNNING, OTHERS))
    report = stop_orphans(
        job_queues=["hello-world-queue"],
        dry_run=False,
        deployment_id="production",
        states=states,
        now=lambda: time.time() + 3600,  # jobs younger than ten minutes are left alone
    )
    assert [(job["job_id"], job["action"]) for job in report["jobs"]] == [(orphan, "stopped")]
    assert {wanted, others}.isdisjoint(job["job_id"] for job in report["jobs"])
    assert report["counts"]["task_unfinished"] == report["counts"]["other_deployment"] == 1
