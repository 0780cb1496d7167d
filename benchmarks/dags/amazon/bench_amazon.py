"""Waits with the Amazon provider; their number comes from the run's conf."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.operators.batch import BatchOperator
from airflow.providers.amazon.aws.sensors.batch import BatchSensor
from airflow.sdk import Param, dag, task

from benchmarks.stack.jobs import INTERVAL, job_id

PARAMS: dict[str, Any] = {"waits": Param(1, type="integer")}


@task
def ids(**context: Any) -> list[str]:
    """Return the jobs to wait for."""
    return [job_id(index) for index in range(context["params"]["waits"])]


@task
def parameters(**context: Any) -> list[dict[str, str]]:
    """Return the parameters of the jobs to start."""
    return [{"index": str(index)} for index in range(context["params"]["waits"])]


@dag(schedule=None, params=PARAMS)
def bench_sensor() -> None:
    """Wait for jobs that were started elsewhere."""
    given: Any = ids()
    BatchSensor.partial(task_id="wait", deferrable=True, poke_interval=INTERVAL).expand(job_id=given)


@dag(schedule=None, params=PARAMS)
def bench_operator() -> None:
    """Start jobs, and wait for them."""
    BatchOperator.partial(
        task_id="wait",
        job_name="bench",
        job_queue="nightly",
        job_definition="nightly-model",
        deferrable=True,
        poll_interval=INTERVAL,
    ).expand(parameters=parameters())


bench_sensor()
bench_operator()
