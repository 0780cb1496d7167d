"""### Run an AWS Batch array job and notify once when it ends

Flow 2, **Notify once when an array job ends**: each of the array's children prints the colour at its index.

- When all children have ended, there is one notification for the array, whether it succeeded or failed.
- If the array failed, the run then fails too.
- Replace `notify` with what your team uses, such as a message to Slack, SNS or e-mail.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import Label, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.retry_policy import JobRetryPolicy


def notify(message: str) -> None:
    """Send a notification. Replace this with your own implementation."""
    logging.getLogger(__name__).info("Notification: %s", message)


@dag(
    schedule=None,
    catchup=False,
    tags=["jobflow", "batch"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "jobName": Param("print-color", type="string", description="Name of the job"),
        "jobDefinition": Param("print-color", type="string", description="Job definition: name, name:revision or ARN"),
        "jobQueue": Param("print-color-queue", type="string", description="Job queue: name or ARN"),
        "size": Param(7, type="integer", minimum=2, maximum=10_000, description="Children of the array"),
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls of the job"),
    },
)
def batch_array_notify() -> None:
    """Print colours, then notify."""
    print_colors = BatchJobOperator(
        task_id="print_colors",
        job_name="{{ params.jobName }}",
        job_definition="{{ params.jobDefinition }}",
        job_queue="{{ params.jobQueue }}",
        array_size="{{ params.size }}",
        poll_interval="{{ params.wait_time }}",
        job_timeout=timedelta(hours=6),
        queued_timeout=timedelta(hours=1),
        retries=2,
        retry_policy=JobRetryPolicy(),
        raise_on_failure=False,  # the notification comes first
    )

    # all_done: also notify if the array did not end, for example because of its timeout.
    @task(trigger_rule="all_done")
    def notify_once(outcome: dict[str, Any] | None) -> None:
        if outcome is None:
            message = "The array job has no outcome: its task failed, see its log"
        else:
            array = outcome["array"]
            message = f"{outcome['name']} {outcome['state']}: {array['succeeded']} of {array['size']} succeeded"
            message += f", failed: {array['failed_indexes']}" if array["failed"] else ""
        notify(message)
        if outcome is None or outcome["state"] != "SUCCEEDED":
            raise AirflowFailException(message)

    print_colors >> Label("however it ends") >> notify_once(print_colors.output)


batch_array_notify()
