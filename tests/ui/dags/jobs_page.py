"""A DAG whose tasks never run: their results are written into the database."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator
from airflow_jobflow.sensors.batch import BatchJobSensor

JOB: dict[str, Any] = {"job_name": "resize", "job_queue": "images", "job_definition": "resize"}


@dag(schedule=None)
def jobs_page() -> None:
    """Define a task for each kind of page."""
    for name in ("job", "live", "failed", "refused", "retried", "nothing", "between", "waiting"):
        BatchJobOperator(task_id=name, **JOB)
    for name in ("killed", "killed_running", "killed_unseen", "unstopped", "returned", "tried"):
        BatchJobOperator(task_id=name, **JOB)
    for name in ("hostile", "malformed", "huge", "older", "newer"):
        BatchJobOperator(task_id=name, **JOB)
    for name in ("array", "array_failed", "array_10000", "array_killed"):
        BatchJobOperator(task_id=name, array_size=10_000, **JOB)
    for name in ("map", "map_live", "map_killed"):
        FargateMapOperator(task_id=name, items=[{}], cluster="c", task_definition="t")
    BatchMapOperator(task_id="map_failed", items=[{}], **JOB)
    BatchJobSensor(task_id="sensor", job_id=["a", "b"])
    BatchJobSensor(task_id="sensor_killed", job_id="a")
    GlueCrawlOperator(task_id="crawl", crawler_name="sales")
    FargateTaskOperator.partial(task_id="mapped", cluster="c", task_definition="t").expand(command=[["a"], ["b"]])

    @task
    def other() -> None:
        """Define a DAG without jobs."""

    other()


jobs_page()
