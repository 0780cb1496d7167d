"""Retries that know why a job failed."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.retry_policy import JobRetryPolicy


@dag(
    schedule=None,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_policy": JobRetryPolicy(soon=30, retry_timeouts=False),
    },
)
def retries() -> None:
    """Run a job whose retries Airflow makes, and one whose retries Batch makes."""
    by_airflow = BatchJobOperator(
        task_id="by_airflow",
        job_name="by-airflow",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        job_timeout=timedelta(hours=1),
    )
    by_batch = BatchJobOperator(
        task_id="by_batch",
        job_name="by-batch",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        retry_strategy={
            "attempts": 5,
            "evaluateOnExit": [
                {"onStatusReason": "Host EC2*", "action": "RETRY"},  # Spot capacity was taken back
                {"onReason": "*", "action": "EXIT"},
            ],
        },
        attempt_timeout=timedelta(minutes=10),  # of each of Batch's attempts
        job_timeout=timedelta(hours=1),  # of all of them together
    )
    by_airflow >> by_batch


retries()
