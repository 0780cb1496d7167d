"""A part of very many waits in each run: with our sensor, and with one that does nothing."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from airflow_jobflow.sensors.batch import BatchJobSensor
from benchmarks.stack.idle import START, IdleSensor
from benchmarks.stack.jobs import job_id

PARAMS: dict[str, Any] = {"waits": Param(1, type="integer"), "first": Param(0, type="integer")}


@task
def ids(**context: Any) -> list[str]:
    """Return the jobs to wait for."""
    return [job_id(context["params"]["first"] + index) for index in range(context["params"]["waits"])]


@dag(schedule=None, params=PARAMS)
def bench_ours() -> None:
    """Wait for jobs with our sensor."""
    given: Any = ids()
    # A triggerer pushes one XCom per iteration of its loop, which ten thousand waits slow down: none are pushed here.
    BatchJobSensor.partial(task_id="wait", do_xcom_push=False).expand(job_id=given)


@dag(schedule=None, params=PARAMS)
def bench_idle() -> None:
    """Wait for nothing."""
    given: Any = ids()
    IdleSensor.partial(task_id="wait", start_from_trigger=True, start_trigger_args=START).expand(job_id=given)


bench_ours()
bench_idle()
