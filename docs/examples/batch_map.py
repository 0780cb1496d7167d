"""A Batch job for each of some items, from one task instance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.batch import BatchMapOperator


@dag(schedule=None)
def batch_map() -> None:
    """Make the items, run a job for each, list the results."""

    @task
    def pages() -> list[dict[str, Any]]:
        return [{"environment": {"PAGE": str(page)}} for page in range(1, 6)]

    print_pages = BatchMapOperator(
        task_id="print_pages",
        job_name="print-page",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", 'echo "item $JOBFLOW_MAP_INDEX is page $PAGE"; [ "$PAGE" != 4 ]'],
        items=pages(),
        max_concurrency=200,
        tolerated_failure_percentage=20,
        job_timeout=timedelta(hours=2),
    )

    @task
    def failed(outcome: dict[str, Any]) -> list[int]:
        print(outcome["reason"], outcome["statuses"])
        return [each["index"] for each in outcome["failed"]]

    failed(print_pages.output)


batch_map()
