"""A run of a Glue job."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator


@dag(schedule=None)
def glue_job_run() -> None:
    """Crawl, then run the job that reads the table."""
    crawl = GlueCrawlOperator(task_id="crawl", crawler_name="se2_in0", job_timeout=timedelta(hours=2))
    to_parquet = GlueJobRunOperator(
        task_id="to_parquet",
        job_name="se2_job0",
        script_args={"--day": "{{ run_id }}"},
        attempt_timeout=timedelta(hours=1),  # after which Glue ends the run
        job_timeout=timedelta(hours=3),  # with the time it waits its turn
        retries=2,
    )
    crawl >> to_parquet


glue_job_run()
