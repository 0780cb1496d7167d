"""One job of each kind, started by a worker that dies or waits at the point in the run's conf."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from tests.stack.dags.dying import conf, dying

PARAMS: dict[str, Any] = {
    "token": Param("none", type="string"),
    "seconds": Param(3, type="number", minimum=0),
    "dies_at": Param("", type="string"),
    "dies": Param("task", enum=["task", "worker", "nothing"]),
    "holds": Param("", type="string"),
}
TRIES: dict[str, Any] = {"retries": 30, "retry_delay": timedelta(seconds=1)}
SCRIPT = "import time; print('{{ params.token }}', flush=True); time.sleep({{ params.seconds }})"


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_dying() -> None:
    """Run one job of each kind."""
    dying(BatchJobOperator)(
        task_id="batch",
        job_name="{{ params.token }}",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", "echo {{ params.token }}; sleep {{ params.seconds }}"],
        **conf(),
    )
    dying(BatchJobOperator)(
        task_id="array",
        job_name="{{ params.token }}",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", "echo {{ params.token }}; sleep {{ params.seconds }}"],
        array_size=3,
        **conf(),
    )
    dying(GlueCrawlOperator)(
        task_id="crawl", crawler_name="{{ params.token }}crawler", if_running="wait_then_start", **conf()
    )
    dying(FargateTaskOperator)(
        task_id="fargate",
        cluster="jobflow",
        task_definition="process-item",
        command=["-c", SCRIPT],
        subnets=["subnet-1"],
        **conf(),
    )
    dying(GlueJobRunOperator)(
        task_id="glue",
        job_name="stack-job",
        script_args={"--token": "{{ params.token }}", "--seconds": "{{ params.seconds }}", "--code": "0"},
        **conf(),
    )


stack_dying()
