"""A DAG for the pictures of the tab in the documentation; its tasks never run either."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateMapOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.sensors.batch import BatchJobSensor

JOB: dict[str, Any] = {"job_name": "resize", "job_queue": "images", "job_definition": "resize"}


@dag(schedule=None)
def picture_book() -> None:
    """Define the tasks of the pictures."""
    uploads = BatchJobSensor(task_id="uploads", job_id=["a", "b"])
    catalogue = GlueCrawlOperator(task_id="catalogue", crawler_name="sales")
    pages = FargateMapOperator(task_id="pages", items=[{}], cluster="c", task_definition="t")
    resize = BatchJobOperator(task_id="resize", array_size=10_000, **JOB)
    colours = BatchJobOperator(task_id="colours", **JOB)
    covers = BatchJobOperator(task_id="covers", **JOB)
    proofs = FargateMapOperator(task_id="proofs", items=[{}], cluster="c", task_definition="t")
    report = GlueJobRunOperator(task_id="report", job_name="report")
    uploads >> [catalogue, pages, resize, colours]
    pages >> [covers, proofs]
    [covers, proofs, colours, resize, catalogue] >> report


picture_book()
