"""FargateTaskSensor on the local AWS: it waits for tasks that others have started, and stops none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.sensors.ecs import FargateTaskSensor

UNKNOWN = "0" * 32


@pytest.fixture
def sensor(ecs_kit: Any, here: Callable[[Any], None]) -> Callable[..., FargateTaskSensor]:
    """Return a function that creates a sensor for the test's cluster, which waits on the worker."""
    here(ecs_kit.aws)

    def make(task_arn: Any, **parameters: Any) -> FargateTaskSensor:
        defaults = {"task_id": "s", "cluster": ecs_kit.cluster, "aws_conn_id": None, "deferrable": False}
        return FargateTaskSensor(**{**defaults, "task_arn": task_arn, **parameters})

    return make


def test_it_returns_the_outcome_of_a_task(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """The task is given by its ARN or its id."""
    arn = ecs_kit.sh("sleep 0.3")
    assert sensor(arn).execute(context)["state"] == "SUCCEEDED"
    assert sensor(arn.rpartition("/")[2]).execute(context)["exit_code"] == 0


def test_one_task_waits_for_a_list_of_tasks(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """Outcomes are in the order of the ids."""
    arns = [ecs_kit.sh("sleep 0.4"), ecs_kit.sh("true")]
    assert [outcome["job_id"] for outcome in sensor(arns).execute(context)] == arns


def test_a_failed_task_fails_the_sensor(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """The error explains the failure."""
    with pytest.raises(exceptions.JobFailed, match="exit code 3"):
        sensor(ecs_kit.sh("exit 3")).execute(context)


def test_a_forgotten_task_fails_the_wait(sensor: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECS forgets a stopped task after an hour, which the message says."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.5")
    with pytest.raises(exceptions.JobNotFound, match="for about an hour after its end"):
        sensor(UNKNOWN).execute(context)


def test_an_unknown_cluster_fails_the_wait(sensor: Any, context: Any) -> None:
    """The error does not blame the credentials."""
    with pytest.raises(exceptions.WaitError, match="Cluster not found") as error:
        sensor(UNKNOWN, cluster="nowhere").execute(context)
    assert not isinstance(error.value, exceptions.AccessDenied)


def test_a_timeout_stops_no_task(ecs_kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """A sensor did not start the task."""
    arn = ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(exceptions.JobTimeout):
        sensor(arn, job_timeout=0.5).execute(context)
    gate.touch()
    assert ecs_kit.wait(arn)["stopCode"] == "EssentialContainerExited"
