"""Waits with this package; their number comes from the run's conf."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from benchmarks.stack.floor import START, DeferredTimer, StartedTimer
from benchmarks.stack.jobs import INTERVAL, job_id

PARAMS: dict[str, Any] = {"waits": Param(1, type="integer"), "first": Param(0, type="integer")}


@task
def ids(**context: Any) -> list[str]:
    """Return the jobs to wait for."""
    return [job_id(index) for index in range(context["params"]["waits"])]


@task
def parameters(**context: Any) -> list[dict[str, str]]:
    """Return the parameters of the jobs to start."""
    first = context["params"]["first"]
    return [{"index": str(first + index)} for index in range(context["params"]["waits"])]


@task
def variables(**context: Any) -> list[dict[str, str]]:
    """Return the environment of the Fargate tasks to run."""
    return [{"INDEX": str(index)} for index in range(context["params"]["waits"])]


BATCH: dict[str, Any] = {"job_name": "bench", "job_queue": "nightly", "job_definition": "nightly-model"}
FARGATE: dict[str, Any] = {
    "cluster": "nightly",
    "task_definition": "nightly-model:17",
    "container_name": "model",
    "subnets": ["subnet-1"],
}


@dag(schedule=None, params=PARAMS)
def bench_sensor() -> None:
    """Wait for jobs that were started elsewhere."""
    given: Any = ids()
    BatchJobSensor.partial(task_id="wait", poll_interval=INTERVAL).expand(job_id=given)


@dag(schedule=None, params=PARAMS)
def bench_operator() -> None:
    """Start jobs on workers, and wait for them."""
    BatchJobOperator.partial(task_id="wait", poll_interval=INTERVAL, **BATCH).expand(parameters=parameters())


@dag(schedule=None, params=PARAMS)
def bench_started() -> None:
    """Start jobs in the triggerer, and wait for them."""
    started = BatchJobOperator.partial(task_id="wait", poll_interval=INTERVAL, start_from_trigger=True, **BATCH)
    started.expand(parameters=parameters())


@dag(schedule=None, params=PARAMS)
def bench_fargate() -> None:
    """Start Fargate tasks in the triggerer, and wait for them."""
    started = FargateTaskOperator.partial(task_id="wait", poll_interval=INTERVAL, start_from_trigger=True, **FARGATE)
    started.expand(environment=variables())


@dag(schedule=None, params=PARAMS)
def bench_floor_start() -> None:
    """Start and end timers in the triggerer."""
    StartedTimer.partial(task_id="wait", start_from_trigger=True, start_trigger_args=START).expand(given=parameters())


@dag(schedule=None, params=PARAMS)
def bench_floor_defer() -> None:
    """Defer on workers, and end timers in the triggerer."""
    DeferredTimer.partial(task_id="wait").expand(given=parameters())


bench_sensor()
bench_operator()
bench_started()
bench_fargate()
bench_floor_start()
bench_floor_defer()
