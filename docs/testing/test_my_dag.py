"""Tests of a DAG, without an AWS account."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).parents[1] / "examples"  # where your DAGs are
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)  # before Airflow is imported

from airflow_jobflow.local import CannedResponse, Faults, LocalAws, StartFailure  # noqa: E402
from airflow_jobflow.local.samples import provision  # noqa: E402
from airflow_jobflow.retry_policy import JobRetryPolicy  # noqa: E402


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """A local AWS for each test, which boto3 and Airflow find by environment variables."""
    with LocalAws() as server:
        provision(server.endpoint_url)  # or make queues and definitions of your own with server.client("batch")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(scope="session", autouse=True)
def _database() -> None:
    """An empty Airflow database."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def dag() -> Any:
    """The tested DAG."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(DAGS).dags["batch_job"]


def test_a_lost_response_starts_one_job(dag: Any, aws: LocalAws) -> None:
    """SubmitJob takes effect, and its response is lost."""
    aws.set_faults(Faults(actions=("SubmitJob",), lose_answers=1))
    assert str(dag.test().state) == "success"
    assert aws.calls["batch.SubmitJob"] == 1


def test_a_permission_that_is_missing_for_a_moment_delays_the_start(dag: Any, aws: LocalAws) -> None:
    """The operator tries again for ten seconds, in case a policy is being replaced."""
    times = 2
    denial = CannedResponse(code="AccessDeniedException", status=403, actions=("batch.SubmitJob",), calls=times)
    aws.set_faults(Faults(respond_with=(denial,)))
    assert str(dag.test().state) == "success"
    assert aws.calls["batch.SubmitJob"] == times + 1


@pytest.mark.parametrize(
    ("reason", "state", "jobs"), [("image_pull_rate_limit", "success", 2), ("image_not_found", "failed", 1)]
)
def test_a_failed_start_is_retried_if_that_can_help(
    dag: Any, aws: LocalAws, reason: str, state: str, jobs: int
) -> None:
    """If the configuration must be fixed first, there is no retry."""
    dag.get_task("greet").retry_policy = JobRetryPolicy(soon=0)
    aws.set_faults(Faults(fail_starts=(StartFailure(reason, starts=1),)))
    assert str(dag.test().state) == state
    assert len(aws.started("batch")) == jobs
