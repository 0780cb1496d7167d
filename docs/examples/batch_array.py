"""An array of seven jobs, of which one may fail; a retry runs only those that have not succeeded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.batch import BatchJobOperator


@dag(schedule=None)
def batch_array() -> None:
    """Print a colour in each child, then count."""
    colors = BatchJobOperator(
        task_id="colors",
        job_name="colors",
        job_queue="print-color-queue",
        job_definition="print-color-failing",  # child 3 fails
        array_size=7,
        tolerated_failure_count=1,
        redrive=True,
        retries=2,
        job_timeout=timedelta(hours=1),
    )

    @task
    def count(outcome: dict[str, Any]) -> list[int]:
        array = outcome["array"]
        print(f"{array['succeeded']} of {array['size']} succeeded")
        return array["failed_indexes"]  # type: ignore[no-any-return]

    count(colors.output)


batch_array()
