"""One job of each service, started by a worker that dies at the point that the run's conf names."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueJobRunOperator

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.stack.dags.dying import conf, dying

PARAMS: dict[str, Any] = {
    "token": Param("none", type="string"),
    "seconds": Param(3, type="number", minimum=0),
    "dies_at": Param("", type="string"),
    "dies": Param("task", enum=["task", "worker"]),
}
TRIES: dict[str, Any] = {"retries": 6, "retry_delay": timedelta(seconds=1)}
SCRIPT = "import time; print('{{ params.token }}', flush=True); time.sleep({{ params.seconds }})"


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_dying() -> None:
    """Run one of each."""
    dying(BatchJobOperator)(
        task_id="batch",
        job_name="{{ params.token }}",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", "echo {{ params.token }}; sleep {{ params.seconds }}"],
        **conf(),
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
