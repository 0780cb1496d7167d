"""One task on Fargate Spot."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_jobflow.operators.ecs import FargateTaskOperator


@dag(schedule=None)
def fargate_task() -> None:
    """Process one item: on Spot, and on Fargate if Spot capacity is taken back."""
    FargateTaskOperator(
        task_id="process",
        cluster="jobflow",
        task_definition="process-item",
        environment={
            "S3_BUCKET": "jobflow-samples",
            "INPUT_KEY": "fargate_map/input/item-07.json",
            "OUTPUT_KEY": "fargate_map/output/{{ run_id }}.json",
        },
        cpu=512,
        memory=1024,
        subnets=["subnet-1"],
        assign_public_ip=True,
        capacity_provider_strategy={"FARGATE_SPOT": 1},
        on_spot_interruption="on_demand",
        job_timeout=timedelta(hours=1),
        retries=2,
    )


fargate_task()
