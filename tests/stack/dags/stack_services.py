"""A Fargate task and a Glue job run that say their token, take a while, and end as they are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag

from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueJobRunOperator

PARAMS: dict[str, Any] = {
    "token": Param("none", type="string"),
    "seconds": Param(3, type="number", minimum=0),
    "code": Param(0, type="integer"),
}
TRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}
SCRIPT = (
    "import sys, time; print('{{ params.token }}', flush=True); time.sleep({{ params.seconds }}); "
    "sys.exit({{ params.code }})"
)


@dag(schedule=None, params=PARAMS, default_args=TRIES)
def stack_services() -> None:
    """Run one of each."""
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


stack_services()
