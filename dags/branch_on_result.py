"""### Branch on what a job returns

**Branch on a result**: run a job that counts rows, and load them only if there are any.

- The job returns `{"rows": …}` in a line of its log, `result="log"`. With `result="s3://bucket/prefix"` it would write
  JSON to the address in `JOBFLOW_RESULT_URI`.
- A job that returns nothing usable fails the task, and a retry starts another one: `result_required=True`.
- Replace the command with your own, and the two tasks after the branch.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Label, Param, dag, task

from airflow_jobflow.operators.batch import BatchJobOperator


@dag(
    schedule=None,
    catchup=False,
    tags=["jobflow", "batch"],
    doc_md=__doc__,
    params={
        "rows": Param(3, type="integer", minimum=0, description="How many rows the job finds"),
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls of the job"),
    },
)
def branch_on_result() -> None:
    """Run a job, then branch on what it returns."""
    count_rows = BatchJobOperator(
        task_id="count_rows",
        job_name="count-rows",
        job_queue="hello-world-queue",
        job_definition="hello-world",
        command=["sh", "-c", """echo "JOBFLOW_RESULT {\\"rows\\": $ROWS}" """],
        environment={"ROWS": "{{ params.rows }}"},
        result="log",
        result_required=True,
        poll_interval="{{ params.wait_time }}",
        job_timeout=timedelta(hours=1),
        retries=2,
    )

    @task.branch
    def has_rows(outcome: dict[str, Any]) -> str:
        return "load" if outcome["result"]["rows"] else "nothing_to_load"

    @task
    def load(outcome: dict[str, Any]) -> str:
        """Load the rows."""
        return f"Loading {outcome['result']['rows']} rows"

    @task
    def nothing_to_load() -> None:
        """Do nothing."""

    choice = has_rows(count_rows.output)
    choice >> Label("ROWS") >> load(count_rows.output)
    choice >> Label("NO ROWS") >> nothing_to_load()


branch_on_result()
