"""A Python function that is called once for each element of a list, in a Batch job each."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_jobflow.decorators.batch import batch_map_task


@dag(schedule=None)
def functions_map() -> None:
    """Halve a number once, twice and three times; the task returns ``[5.0, 2.5, 1.25]``."""

    @batch_map_task(
        job_queue="hello-world-queue",
        image="registry/numbers:1",  # has boto3
        execution_role="arn:aws:iam::123456789012:role/execution",
        result="s3://jobflow-samples/functions",
        max_concurrency=100,
    )
    def halve(times: int, number: float) -> float:
        import math

        return math.ldexp(number, -times)

    halve([1, 2, 3], number=10.0)


functions_map()
