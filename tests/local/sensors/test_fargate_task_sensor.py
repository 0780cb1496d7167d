"""FargateTaskSensor against the local AWS: it waits for tasks that others have started, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.sensors.ecs import FargateTaskSensor

UNKNOWN = "0" * 32


@pytest.fixture
def sensor(ecs_kit: Any, here: Callable[[Any], None]) -> Callable[..., FargateTaskSensor]:
    """Make a sensor for the test's cluster that waits here."""
    here(ecs_kit.aws)

    def make(task_arn: Any, **parameters: Any) -> FargateTaskSensor:
        defaults = {"task_id": "s", "cluster": ecs_kit.cluster, "aws_conn_id": None, "deferrable": False}
        return FargateTaskSensor(**{**defaults, "task_arn": task_arn, **parameters})

    return make


def test_it_returns_the_outcome_of_a_task(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """By its ARN, or by the last part of it."""
    arn = ecs_kit.sh("sleep 0.3")
    assert sensor(arn).execute(context)["state"] == "SUCCEEDED"
    assert sensor(arn.rpartition("/")[2]).execute(context)["exit_code"] == 0


def test_one_task_waits_for_all_of_a_list(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """Outcomes come in the order of the ids."""
    arns = [ecs_kit.sh("sleep 0.4"), ecs_kit.sh("true")]
    assert [outcome["job_id"] for outcome in sensor(arns).execute(context)] == arns


def test_a_failed_task_fails_it(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """With what a person needs."""
    with pytest.raises(exceptions.JobFailed, match="exit code 3"):
        sensor(ecs_kit.sh("exit 3")).execute(context)


def test_a_task_that_is_gone_has_vanished(sensor: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped task is kept for an hour only; the message says so."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.5")
    with pytest.raises(exceptions.JobNotFound, match="for about an hour after its end"):
        sensor(UNKNOWN).execute(context)


def test_a_cluster_that_does_not_exist_ends_the_wait(sensor: Any, context: Any) -> None:
    """AWS cannot be asked; these credentials are not to blame."""
    with pytest.raises(exceptions.WaitError, match="Cluster not found") as error:
        sensor(UNKNOWN, cluster="nowhere").execute(context)
    assert not isinstance(error.value, exceptions.AccessDenied)


def test_its_time_out_stops_nothing(ecs_kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """A sensor did not start the task."""
    arn = ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(exceptions.JobTimeout):
        sensor(arn, job_timeout=0.5).execute(context)
    gate.touch()
    assert ecs_kit.wait(arn)["stopCode"] == "EssentialContainerExited"
