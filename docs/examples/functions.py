"""Python functions that run in a Batch job and in a Fargate task."""

from __future__ import annotations

from airflow.sdk import dag, task

IMAGE = "public.ecr.aws/docker/library/python:3.13-slim"
ROLE = "arn:aws:iam::123456789012:role/execution"


@dag(schedule=None)
def functions() -> None:
    """Count words in a Batch job, and describe the counts in a Fargate task."""

    @task.batch(job_queue="hello-world-queue", image=IMAGE, execution_role=ROLE, memory=1024)
    def count(text: str, least: int = 2) -> dict[str, int]:
        from collections import Counter

        return {word: number for word, number in Counter(text.split()).items() if number >= least}

    @task.fargate(cluster="jobflow", subnets=["subnet-1"], image=IMAGE, execution_role=ROLE)
    def describe(words: dict[str, int]) -> str:
        return ", ".join(f"{number} times {word}" for word, number in words.items())

    describe(count("a rose is a rose"))


functions()
