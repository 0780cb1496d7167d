"""### Run Python functions in containers

**Python functions**: estimate π. Three Batch jobs throw points at a square and count those inside the circle; a Fargate
task makes the estimate of their counts.

- The functions run in containers that have Python and nothing of Airflow. Imports are in their bodies.
- A function gets its arguments, and returns its value or raises its exception, as any task does.
- Replace the image with your own, and the functions with yours.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

IMAGE: dict[str, Any] = {
    "image": "public.ecr.aws/docker/library/python:3.13-slim",
    "execution_role": "{{ params.execution_role }}",
    "assign_public_ip": "{{ params.assign_public_ip }}",
    "poll_interval": "{{ params.wait_time }}",
    "job_timeout": timedelta(hours=1),
    "retries": 2,
}


@dag(
    schedule=None,
    catchup=False,
    tags=["jobflow", "batch", "ecs"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "points": Param(10_000, type="integer", minimum=1, description="How many points each Batch job throws"),
        "execution_role": Param(
            "arn:aws:iam::123456789012:role/execution",
            type="string",
            description="ARN of the role that pulls the image and writes the logs",
        ),
        "subnets": Param(["subnet-1"], type="array", items={"type": "string"}, description="Ids, one on a line"),
        "assign_public_ip": Param(True, type="boolean", description="Needed in public subnets, to pull the image"),
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls of a job"),
    },
)
def python_functions() -> None:
    """Count points in Batch jobs, and make an estimate of the counts in a Fargate task."""

    @task.batch(job_queue="hello-world-queue", **IMAGE)
    def count_inside(points: int, seed: int) -> int:
        from random import Random

        random = Random(seed)
        return sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(points))

    @task.fargate(cluster="jobflow", subnets="{{ params.subnets }}", **IMAGE)
    def estimate(inside: list[int], points: int) -> float:
        return 4 * sum(inside) / (points * len(inside))

    @task
    def report(pi: float) -> str:
        return f"π is about {pi}"

    inside = count_inside.partial(points="{{ params.points }}").expand(seed=[1, 2, 3])
    report(estimate(inside, "{{ params.points }}"))


python_functions()
