"""A Fargate task for each of some items, from one task instance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.ecs import FargateMapOperator

KEYS = [f"item-{number:02}" for number in range(1, 6)]


@dag(schedule=None)
def fargate_items() -> None:
    """Process the items, then count."""
    process = FargateMapOperator(
        task_id="process",
        cluster="jobflow",
        task_definition="process-item",
        environment={"S3_BUCKET": "jobflow-samples"},  # of all; an item's own is added
        items=[
            {
                "environment": {
                    "INPUT_KEY": f"fargate_map/input/{key}.json",
                    "OUTPUT_KEY": f"fargate_map/output/{key}.json",
                }
            }
            for key in KEYS
        ],
        subnets=["subnet-1"],
        assign_public_ip=True,
        capacity_provider_strategy={"FARGATE_SPOT": 4, "FARGATE": 1},
        max_concurrency=40,
        tolerated_failure_count=1,
        redrive=True,
        retries=1,
        job_timeout=timedelta(hours=4),
    )

    @task
    def count(outcome: dict[str, Any]) -> int:
        return outcome["array"]["succeeded"]  # type: ignore[no-any-return]

    count(process.output)


fargate_items()
