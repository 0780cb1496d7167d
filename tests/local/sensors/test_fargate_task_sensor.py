"""FargateTaskSensor on the local AWS: it waits for tasks that others have started, and stops none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.ecs import EcsTaskStates

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults, StartFailure
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from airflow_jobflow.triggers.job import JobTrigger

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


# A status before the end.


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_waits_until_a_task_runs(ecs_kit: Any, sensor: Any, context: Any, gate: Any, *, deferrable: bool) -> None:
    """The task need not end; the outcome says that it runs."""
    arn = ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    operator = sensor(arn, target_state="RUNNING")
    if deferrable:
        _, arguments = operator._wait.trigger([arn]).serialize()
        event = asyncio.run(JobTrigger(**json.loads(json.dumps(arguments))).wait())
        outcome = operator.execute_complete(context, event)
    else:
        outcome = operator.execute(context)
    assert (outcome["state"], outcome["status"], outcome["exit_code"]) == ("RUNNING", "RUNNING", None)
    assert ecs_kit.look(arn)["lastStatus"] == "RUNNING"


def test_a_task_that_ran_and_stopped_has_reached_running(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """Whether a poll has seen it running makes no difference; the outcome says that it failed."""
    arn = ecs_kit.sh("exit 3")
    ecs_kit.wait(arn)
    outcome = sensor(arn, target_state="RUNNING").execute(context)
    assert (outcome["state"], outcome["status"], outcome["exit_code"]) == ("FAILED", "STOPPED", 3)


def test_a_task_that_never_ran_fails_the_sensor(ecs_kit: Any, sensor: Any, context: Any) -> None:
    """The error says what was missed, and why the task did not start."""
    ecs_kit.aws.set_faults(Faults(fail_starts=(StartFailure("image_pull_rate_limit", jobs=(ecs_kit.cluster,)),)))
    arn = ecs_kit.sh("true", startedBy=ecs_kit.cluster)
    ecs_kit.wait(arn)
    ecs_kit.aws.set_faults(Faults())
    with pytest.raises(exceptions.JobFailed, match="The task did not reach RUNNING, the target_state") as error:
        sensor(arn, target_state="RUNNING").execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "throttled"


def test_a_failure_state_before_the_target_fails_the_sensor(ecs_kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """As with EcsTaskStateSensor; the task is not stopped."""
    arn = ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    ecs_kit.wait(arn, "RUNNING")
    states = {"target_state": EcsTaskStates.STOPPED, "failure_states": {EcsTaskStates.RUNNING}}
    with pytest.raises(
        exceptions.JobFailed, match="is RUNNING, one of failure_states, and did not reach STOPPED before"
    ):
        sensor(arn, **states).execute(context)
    gate.touch()
    assert ecs_kit.wait(arn)["stopCode"] == "EssentialContainerExited"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"target_state": "ACTIVE"}, "target_state='ACTIVE': must be one of PROVISIONING, PENDING"),
        ({"target_state": EcsTaskStates.NONE}, "target_state=.*: must be one of PROVISIONING"),
        ({"target_state": 1}, "target_state=1: must be one of"),
        ({"target_state": "RUNNING", "failure_states": ["FAILED"]}, "failure_states='FAILED': must be one of"),
        ({"failure_states": ["STOPPED"]}, "failure_states=.*: has no effect without target_state"),
        ({"target_state": "RUNNING", "stream_logs": True}, "stream_logs=True: copies logs until a task ends"),
        ({"target_state": "RUNNING", "number_logs_success": 1}, "number_logs_success=1: copies logs until"),
    ],
)
def test_an_unknown_status_is_rejected(sensor: Any, context: Any, given: dict[str, Any], why: str) -> None:
    """Otherwise the sensor would wait until its timeout."""
    with pytest.raises(exceptions.InvalidParameter, match=why):
        sensor(UNKNOWN, **given).execute(context)
