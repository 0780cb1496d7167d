"""A task for each of some items, on the EC2 instances of a cluster."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.ecs import EcsMapOperator


@dag(schedule=None)
def ecs_items() -> None:
    """Run more items than the instances have room for, then count."""
    score = EcsMapOperator(
        task_id="score",
        cluster="jobflow",
        image="public.ecr.aws/docker/library/busybox:stable",
        command=["sh", "-c", 'echo "Scoring part $PART"'],
        memory=4096,
        items=[{"environment": {"PART": part}} for part in range(10)],
        launch_type="EC2",
        job_timeout=timedelta(hours=4),
        retries=1,
        redrive=True,
    )

    @task
    def scored(outcome: dict[str, Any]) -> int:
        return outcome["array"]["succeeded"]  # type: ignore[no-any-return]

    scored(score.output)


ecs_items()
