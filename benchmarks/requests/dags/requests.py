"""Tasks that wait, and one that only defers, to compare with the requests of Airflow itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag

from airflow_jobflow.operators.batch import BatchJobOperator

JOB: dict[str, Any] = {
    "aws_conn_id": "requests_aws",  # in Airflow's database, as usual
    "job_name": "{{ run_id }}",
    "job_queue": "hello-world-queue",
    "job_definition": "hello-world",
    "command": ["sh", "-c", "sleep 15"],
}


def nothing(_: Any) -> None:
    """Do nothing: because there is a callback, a worker ends the task."""


class Deferring(BaseOperator):
    """Defers, and ends on a worker."""

    def execute(self, context: Any) -> None:  # noqa: ARG002
        """Defer."""
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=12)), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> str:  # noqa: ARG002
        """End, with a result."""
        return "done"


@dag(schedule=None)
def requests_ends_in_triggerer() -> None:
    """Wait for a job; the triggerer ends the task."""
    BatchJobOperator(task_id="job", **JOB)


@dag(schedule=None)
def requests_ends_on_worker() -> None:
    """Wait for a job; a worker ends the task."""
    BatchJobOperator(task_id="job", on_success_callback=nothing, **JOB)


@dag(schedule=None)
def requests_without_xcom() -> None:
    """Wait for a job without pushing XComs."""
    BatchJobOperator(task_id="job", do_xcom_push=False, **JOB)


@dag(schedule=None)
def requests_of_airflow() -> None:
    """Defer, and return a value: the minimum of requests of such a task."""
    Deferring(task_id="job")


requests_ends_in_triggerer()
requests_ends_on_worker()
requests_without_xcom()
requests_of_airflow()
