"""One task on the EC2 instances of a cluster."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_jobflow.operators.ecs import EcsTaskOperator


@dag(schedule=None)
def ecs_task() -> None:
    """Run a command where the memory of an instance is used best."""
    EcsTaskOperator(
        task_id="report",
        cluster="jobflow",
        image="public.ecr.aws/docker/library/busybox:stable",
        command=["sh", "-c", 'echo "Report of $DAY"'],
        environment={"DAY": "{{ run_id }}"},
        cpu=256,
        memory=512,
        launch_type="EC2",
        placement_strategy=[{"type": "binpack", "field": "memory"}],
        queued_timeout=timedelta(hours=1),  # an instance may be full
        job_timeout=timedelta(hours=2),
        retries=2,
    )


ecs_task()
