"""One Batch job, and a task that uses its outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_jobflow.operators.batch import BatchJobOperator


@dag(schedule=None)
def batch_job() -> None:
    """Run a job, then say how long it took."""
    greet = BatchJobOperator(
        task_id="greet",
        job_name="greet",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        container_overrides={
            "command": ["sh", "-c", 'echo "Hello $NAME, it is $DAY"'],
            "environment": [{"name": "NAME", "value": "world"}, {"name": "DAY", "value": "{{ run_id }}"}],
        },
        job_timeout=timedelta(hours=1),
        queued_timeout=timedelta(minutes=30),
        retries=2,
    )

    @task
    def report(outcome: dict[str, Any]) -> str:
        return f"{outcome['name']} {outcome['state']}, exit code {outcome['exit_code']}, see {outcome['console_url']}"

    report(greet.output)


batch_job()
