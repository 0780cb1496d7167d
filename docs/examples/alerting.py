"""An alert that names who has to act, and why."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import dag

from airflow_jobflow.exceptions import JobflowError
from airflow_jobflow.jobs.causes import Blame
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.retry_policy import JobRetryPolicy

CHANNELS = {
    Blame.CONFIGURATION: "#platform",
    Blame.CAPACITY: "#platform",
    Blame.TRANSIENT: "#platform",
    Blame.COMMAND: "#data-team",
}
"""Who has to act. What is not listed goes to the owners of the DAG."""


def send(channel: str, text: str) -> None:
    """Send a message. Replace this by your own way, such as Slack or SNS."""
    logging.getLogger(__name__).warning("To %s: %s", channel, text)


def find_error(exception: BaseException | None) -> JobflowError | None:
    """Return the error of this package that an exception is, or was raised from."""
    while exception and not isinstance(exception, JobflowError):
        exception = exception.__cause__
    return exception


def alert(context: Any) -> None:
    """Send an alert for a failed task."""
    error = find_error(context.get("exception"))
    if error is None:
        send("#dag-owners", f"{context['ti'].task_id} failed: {context.get('exception')}")
        return
    diagnosis = error.diagnosis
    if diagnosis is None:  # the job did not fail: a deadline, a missing permission, a wrong parameter
        send("#dag-owners", f"{type(error).__name__}: {error}")
        return
    outcome = error.outcome if isinstance(error.outcome, dict) else {}
    link = outcome.get("console_url") or "see the task log"
    send(CHANNELS.get(diagnosis.blame, "#dag-owners"), f"{diagnosis.cause}: {diagnosis} {link}")


@dag(schedule=None, default_args={"on_failure_callback": alert, "retry_policy": JobRetryPolicy(soon=0)})
def alerting() -> None:
    """Run a job that fails."""
    BatchJobOperator(
        task_id="score",
        job_name="score",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", "echo no such file; exit 3"],
        job_timeout=3600,
    )


alerting()
