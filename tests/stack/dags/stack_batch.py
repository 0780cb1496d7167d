"""Batch jobs that write their token to the log, take some seconds, and end with a given exit code."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.sensors.batch import BatchJobSensor

PARAMS: dict[str, Any] = {
    "token": Param("none", type="string"),
    "seconds": Param(3, type="number", minimum=0),
    "code": Param(0, type="integer"),
}
BATCH: dict[str, Any] = {
    "job_name": "{{ params.token }}",
    "job_queue": "hello-world-queue",
    "job_definition": "hello-world",
    "command": ["sh", "-c", "echo {{ params.token }}; sleep {{ params.seconds }}; exit {{ params.code }}"],
}
TRIES: dict[str, Any] = {"retries": 20, "retry_delay": timedelta(seconds=1)}


@dag(schedule=None, params=PARAMS)
def stack_batch() -> None:
    """Run one job in one try."""
    BatchJobOperator(task_id="job", **BATCH)


@dag(schedule=None, params=PARAMS)
def stack_batch_started() -> None:
    """Run one job, without a worker."""
    BatchJobOperator(task_id="job", start_from_trigger=True, **BATCH)


@dag(schedule=None, params=PARAMS, dagrun_timeout=timedelta(seconds=20))
def stack_batch_in_time() -> None:
    """Run one job in a run with a short timeout."""
    BatchJobOperator(task_id="job", **BATCH)


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_batch_again() -> None:
    """Run one job with many retries of the task, but none of the job."""
    BatchJobOperator(task_id="job", raise_on_failure=False, **BATCH)


@dag(schedule=None, params=PARAMS, default_args={"retries": 2, "retry_delay": timedelta(seconds=1)})
def stack_batch_twice_again() -> None:
    """Run one job with two retries."""
    BatchJobOperator(task_id="job", **BATCH)


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_batch_many() -> None:
    """Run an array, and a mapped task with three items."""
    BatchJobOperator(task_id="array", array_size=3, raise_on_failure=False, **BATCH)
    BatchJobOperator.partial(task_id="each", raise_on_failure=False, **{**BATCH, "command": None}).expand(
        container_overrides=[
            {"command": ["sh", "-c", f"echo {{{{ params.token }}}}{item}; sleep {{{{ params.seconds }}}}"]}
            for item in range(3)
        ]
    )


@dag(schedule=None, params=PARAMS)
def stack_batch_crowd() -> None:
    """Run a mapped task with sixty items."""
    BatchJobOperator.partial(task_id="each", **BATCH).expand(attempt_timeout=list(range(600, 660)))


@dag(schedule=None, params=PARAMS)
def stack_batch_sensor() -> None:
    """Start a job, and wait for it with a sensor."""

    @task
    def job_id(outcome: Any) -> Any:
        return outcome["job_id"]

    started = BatchJobOperator(task_id="start", wait_for_completion=False, **BATCH)
    found: Any = job_id(started.output)
    BatchJobSensor(task_id="job", job_id=found)


stack_batch()
stack_batch_started()
stack_batch_in_time()
stack_batch_again()
stack_batch_twice_again()
stack_batch_many()
stack_batch_crowd()
stack_batch_sensor()
