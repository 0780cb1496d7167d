"""### Run Python functions in containers

**Python functions**: compute π as the integral of 4 / (1 + x²) from 0 to 1. Three Batch jobs integrate a part each,
and a Fargate task adds the results.

- The functions run in containers that have Python and nothing of Airflow. So imports are in their bodies.
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
        "steps": Param(10_000, type="integer", minimum=1, description="How many steps each Batch job makes"),
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
    """Integrate in Batch jobs, and add the results in a Fargate task."""

    @task.batch(job_queue="hello-world-queue", **IMAGE)
    def integrate(part: int, parts: int, steps: int) -> float:
        from math import fsum

        width = 1 / (parts * steps)
        points = ((part * steps + step + 0.5) * width for step in range(steps))
        return width * fsum(4 / (1 + point**2) for point in points)

    @task.fargate(cluster="jobflow", subnets="{{ params.subnets }}", **IMAGE)
    def add(integrals: list[float]) -> float:
        return sum(integrals)

    @task
    def report(pi: float) -> str:
        return f"π is about {pi:.6f}"

    report(add(integrate.partial(parts=3, steps="{{ params.steps }}").expand(part=[0, 1, 2])))


python_functions()
