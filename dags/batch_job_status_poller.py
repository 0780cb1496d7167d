"""### Run one AWS Batch job and wait for it

Flow 1, **Batch job status poller**: submit a job, wait until it ends, then branch.

- On success the job's final status is passed to the next task. Add a notification there.
- On failure the run fails with the error of the original flow.
- The states `Wait X Seconds` and `Get Job Status` are one deferrable operator: it polls every `wait_time` seconds
  without occupying a worker. After `job_timeout` it stops the job and fails.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Label, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.retry_policy import JobRetryPolicy


@dag(
    schedule=None,
    catchup=False,
    tags=["jobflow", "batch"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "jobName": Param("hello-world", type="string", description="Name of the job"),
        "jobDefinition": Param("hello-world", type="string", description="Job definition: name, name:revision or ARN"),
        "jobQueue": Param("hello-world-queue", type="string", description="Job queue: name or ARN"),
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls of the job"),
        "containerOverrides": Param(None, type=["object", "null"], description="As in SubmitJob; empty for none"),
        "parameters": Param(None, type=["object", "null"], description="Values for Ref:: placeholders; empty for none"),
    },
)
def batch_job_status_poller() -> None:
    """Submit a job, wait for it, then branch."""
    run_job = BatchJobOperator(
        task_id="run_job",
        job_name="{{ params.jobName }}",
        job_definition="{{ params.jobDefinition }}",
        job_queue="{{ params.jobQueue }}",
        container_overrides="{{ params.containerOverrides }}",
        parameters="{{ params.parameters }}",
        poll_interval="{{ params.wait_time }}",
        job_timeout=timedelta(hours=6),
        queued_timeout=timedelta(hours=1),
        retries=2,
        retry_policy=JobRetryPolicy(),
        raise_on_failure=False,  # the branch below checks the outcome
    )

    @task.branch
    def job_complete(outcome: dict[str, Any]) -> str:
        return "get_final_job_status" if outcome["state"] == "SUCCEEDED" else "job_failed"

    @task
    def get_final_job_status(outcome: dict[str, Any]) -> str:
        """Return the final status. Add a notification here."""
        return f"{outcome['name']} ended as {outcome['status']}"

    @task
    def job_failed(outcome: dict[str, Any]) -> None:
        error, cause = "DescribeJob returned FAILED", "AWS Batch Job Failed"
        raise AirflowFailException(f"{error}: {cause} ({outcome['job_id']}: {outcome['reason']})")

    choice = job_complete(run_job.output)
    choice >> Label("SUCCEEDED") >> get_final_job_status(run_job.output)
    choice >> Label("FAILED") >> job_failed(run_job.output)


batch_job_status_poller()
