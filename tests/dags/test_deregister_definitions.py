"""The DAG that cleans up definitions, as `airflow dags test` runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobflow.jobs.registration import LAST_USED, MANAGED
from airflow_jobflow.local import Faults, LocalAws

DAG = "deregister_definitions"
NAME = "jobflow-busybox-0123456789abcdef"


@pytest.fixture
def unused(samples: LocalAws) -> Iterator[str]:
    """A definition that was last used long ago."""
    batch = samples.client("batch")
    container = {"image": "busybox", "vcpus": 1, "memory": 128}
    tags = {MANAGED: NAME, LAST_USED: "2026-01-01"}
    answer = batch.register_job_definition(
        jobDefinitionName=NAME, type="container", containerProperties=container, tags=tags
    )
    arn = str(answer["jobDefinitionArn"])
    yield arn
    batch.deregister_job_definition(jobDefinition=arn)


def status(aws: LocalAws, arn: str) -> str:
    """The status of a job definition."""
    [found] = aws.client("batch").describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    return str(found["status"])


def test_an_unused_definition_is_deregistered_when_somebody_asks_for_it(
    run_on: Callable[..., Any], samples: LocalAws, unused: str
) -> None:
    """First a dry run, as the DAG is delivered."""
    run = run_on(samples, DAG)
    assert run.state == "success"
    [found] = run.returned("find_and_deregister")["definitions"]
    assert (found["definition"], found["action"]) == (unused.rpartition("/")[2], "would_deregister")
    assert status(samples, unused) == "ACTIVE"
    run_on(samples, DAG, dry_run=False)
    assert status(samples, unused) == "INACTIVE"


def test_a_service_that_cannot_be_listed_fails_the_run_after_the_rest_was_done(
    run_on: Callable[..., Any], samples: LocalAws, unused: str
) -> None:
    """A cleanup that silently lists nothing is none."""
    samples.set_faults(Faults(denied=("ecs.ListTaskDefinitionFamilies",)))
    try:
        run = run_on(samples, DAG, dry_run=False)
    finally:
        samples.set_faults(Faults())
    assert run.states == {"find_and_deregister": "success", "check_problems": "failed"}
    assert status(samples, unused) == "INACTIVE"
