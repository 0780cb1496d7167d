"""Batch jobs that write numbered lines for a while, which are copied into the logs of their tasks."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_jobflow.operators.batch import BatchJobOperator

LINES = 'i=0; while [ $i -lt {{ params.lines }} ]; do echo "line {{ ti.map_index }} $i"; i=$((i+1)); sleep 0.2; done'


@dag(schedule=None, params={"token": Param("none", type="string"), "lines": Param(50, type="integer")})
def stack_logs() -> None:
    """Run eight jobs that write five lines a second each."""
    BatchJobOperator.partial(
        task_id="job",
        job_name="{{ params.token }}",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", LINES],
        stream_logs=True,
    ).expand(attempt_timeout=list(range(600, 608)))


stack_logs()
