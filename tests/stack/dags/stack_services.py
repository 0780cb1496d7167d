"""Jobs and maps of the other services that write their token to the log, take some seconds, and end with a given exit
code.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag

from airflow_jobflow.operators.batch import BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator

PARAMS: dict[str, Any] = {
    "token": Param("none", type="string"),
    "seconds": Param(3, type="number", minimum=0),
    "code": Param(0, type="integer"),
}
TRIES: dict[str, Any] = {"retries": 20, "retry_delay": timedelta(seconds=1)}
SCRIPT = (
    "import sys, time; print('{{ params.token }}', flush=True); time.sleep({{ params.seconds }}); "
    "sys.exit({{ params.code }})"
)
INDEXED = "import os; " + SCRIPT.replace(
    "'{{ params.token }}'", "'{{ params.token }}' + os.environ['JOBFLOW_MAP_INDEX']"
)
MAP: dict[str, Any] = {
    "items": [{}] * 5,
    "max_concurrency": 3,
    "tolerated_failure_percentage": 100,
}
"""Each job writes its token, followed by the index of its item."""


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_services() -> None:
    """Run one job of each service."""
    FargateTaskOperator(
        task_id="fargate",
        cluster="jobflow",
        task_definition="process-item",
        command=["-c", SCRIPT],
        subnets=["subnet-1"],
        raise_on_failure=False,
    )
    GlueJobRunOperator(
        task_id="glue",
        job_name="stack-job",
        script_args={
            "--token": "{{ params.token }}",
            "--seconds": "{{ params.seconds }}",
            "--code": "{{ params.code }}",
        },
        raise_on_failure=False,
    )


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_crawl() -> None:
    """Run the crawler of this run."""
    GlueCrawlOperator(task_id="crawl", crawler_name="{{ params.token }}crawler", if_running="wait_then_start")


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_maps() -> None:
    """Run a map of Batch jobs, and one of Fargate tasks."""
    BatchMapOperator(
        task_id="batch",
        job_name="{{ params.token }}",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=[
            "sh",
            "-c",
            "echo {{ params.token }}$JOBFLOW_MAP_INDEX; sleep {{ params.seconds }}; exit {{ params.code }}",
        ],
        **MAP,
    )
    FargateMapOperator(
        task_id="fargate",
        cluster="jobflow",
        task_definition="process-item",
        command=["-c", INDEXED],
        subnets=["subnet-1"],
        **MAP,
    )


stack_services()
stack_crawl()
stack_maps()
