"""Sensors: they wait for what something else has started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor


@dag(schedule=None)
def sensors() -> None:
    """Start jobs without waiting for them, then wait."""
    start: Any = BatchJobOperator.partial(
        task_id="start",
        job_name="hello",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        wait_for_completion=False,
    ).expand(command=[["echo", "one"], ["echo", "two"]])

    @task
    def ids(outcomes: list[dict[str, Any]]) -> list[str]:
        return [outcome["job_id"] for outcome in outcomes]

    started: Any = ids(start.output)

    # One task for both. An XComArg needs a worker.
    BatchJobSensor(task_id="both", job_id=started, timeout=timedelta(hours=1))

    # A task for each: these start in the triggerer, without a worker.
    BatchJobSensor.partial(task_id="each").expand(job_id=started)

    # So does this, for its template says map_indexes.
    first = BatchJobSensor(task_id="first", job_id="{{ ti.xcom_pull('ids', map_indexes=-1)[0] }}")
    started >> first

    run: Any = FargateTaskOperator(
        task_id="run",
        cluster="jobflow",
        task_definition="process-item",
        environment={
            "S3_BUCKET": "jobflow-samples",
            "INPUT_KEY": "fargate_map/input/item-01.json",
            "OUTPUT_KEY": "fargate_map/output/sensors.json",
        },
        subnets=["subnet-1"],
        wait_for_completion=False,
    )
    # An operator's outcome will do for an id.
    FargateTaskSensor(task_id="ran", cluster="jobflow", task_arn=run.output)

    crawl = GlueCrawlOperator(task_id="crawl", crawler_name="se2_in0", wait_for_completion=False)
    # Only a name: the first crawl since the DAG run began.
    crawled = GlueCrawlSensor(task_id="crawled", crawler_name="se2_in0")

    job: Any = GlueJobRunOperator(task_id="job", job_name="se2_job0", wait_for_completion=False)
    GlueJobRunSensor(task_id="job_ended", job_name="se2_job0", run_id=job.output)
    crawl >> crawled >> job


sensors()
