"""Jobs of an image, without a definition that somebody registered before."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator

IMAGE = "public.ecr.aws/docker/library/busybox:stable"
ROLE = "arn:aws:iam::123456789012:role/execution"


@dag(schedule=None)
def from_image() -> None:
    """Run a Batch job and a Fargate task; the first run registers their definitions."""
    score = BatchJobOperator(
        task_id="score",
        job_name="score",
        job_queue="hello-world-queue",
        image=IMAGE,
        vcpus=0.5,
        memory=1024,
        execution_role=ROLE,
        command=["sh", "-c", 'echo "Scoring $DAY"'],
        environment={"DAY": "{{ run_id }}"},
    )
    publish = FargateTaskOperator(
        task_id="publish",
        cluster="jobflow",
        subnets=["subnet-1"],
        image=IMAGE,
        execution_role=ROLE,
        command=["echo", "published"],
    )
    score >> publish


from_image()
