"""One crawl, and what it made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.glue import GlueCrawlOperator


@dag(schedule=None)
def glue_crawl() -> None:
    """Crawl, then say what has changed."""
    crawl = GlueCrawlOperator(
        task_id="crawl",
        crawler_name="se2_in0",
        if_running="wait_then_start",  # a crawl that runs already may have missed the newest files
        job_timeout=timedelta(hours=2),
        retries=2,
    )

    @task
    def changes(outcome: dict[str, Any]) -> str:
        details = outcome["details"]
        return f"{outcome['name']}: {details.get('tables_created')} made, {details.get('tables_updated')} changed"

    changes(crawl.output)


glue_crawl()
