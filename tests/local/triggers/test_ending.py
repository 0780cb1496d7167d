"""A task that ends in the triggerer, with Airflow's own trigger runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from tests.triggerer import Triggerer, task


class Supervisor:
    """Records pushed XComs."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def send(self, message: Any) -> None:
        """Record an XCom."""
        assert isinstance(message, comms.SetXCom)
        self.xcoms[message.key] = message.value


def test_a_successful_wait_needs_no_worker(
    kit: Any, gate: Any, here: Callable[[Any], None], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is the one that a worker would have returned."""
    here(kit.aws)
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    parameters = {"task_id": "t", "job_id": job_id, "aws_conn_id": None}
    with pytest.raises(TaskDeferred) as deferred:
        BatchJobSensor(**parameters, deferrable=True).execute(context)
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    gate.touch()

    async def scenario() -> list[Any]:
        triggerer = Triggerer()
        await triggerer.start(deferred.value.trigger, task())
        return triggerer.events

    assert asyncio.run(scenario()) == ["success"]
    assert supervisor.xcoms["return_value"] == BatchJobSensor(**parameters, deferrable=False).execute(context)


@pytest.mark.parametrize("script", ["sleep 60", "exit 3"])
def test_a_wait_for_a_status_needs_no_worker(
    ecs_kit: Any,
    here: Callable[[Any], None],
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    """The task has reached the status, whether it still runs or has failed since."""
    here(ecs_kit.aws)
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    arn = ecs_kit.sh(script)
    if script != "sleep 60":
        ecs_kit.wait(arn)
    parameters = {"task_id": "t", "cluster": ecs_kit.cluster, "task_arn": arn, "aws_conn_id": None}
    sensor = FargateTaskSensor(**parameters, target_state="RUNNING", deferrable=True)
    trigger = sensor._wait.trigger([arn], result_kind="outcome", reports_progress=False)
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

    async def scenario() -> list[Any]:
        triggerer = Triggerer()
        await triggerer.start(trigger, task())
        return triggerer.events

    assert asyncio.run(scenario()) == ["success"]
    assert supervisor.xcoms["return_value"] == sensor.execute(context)
    ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn)
