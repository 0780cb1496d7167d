"""### Run a Glue crawler, then the Glue job that reads its table

Flow 4, **Glue crawler, then Glue job**: every night the crawler scans the data in S3 and updates the table.

- If the crawl succeeded, the job converts the table to Parquet. The run waits for the job.
- If the crawl failed, or took longer than `polls` polls, the run fails with the error of the original flow.
- The states `Wait X Seconds`, `Get Crawler Job Status`, `Add Count` and `Chk Count` are the operator's deadline.
- The operator distinguishes the crawl that it started from the one before, and a failed crawl from a successful one,
  which a crawler's state alone does not show. If a crawl is already running, the operator waits for that one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Label, Param, TaskGroup, dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow.exceptions import JobTimeout
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.retry_policy import JobRetryPolicy, RetryDecision

TIMED_OUT = "timed_out"
CAUSE = "Glue Crawler Job Failed"


class NotingTimeouts(JobRetryPolicy):
    """Retry what another try may fix, but not a crawl that timed out. Record the timeout for the branch."""

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Record a timeout, then decide on a retry."""
        if isinstance(exception, JobTimeout):
            context["ti"].xcom_push(key=TIMED_OUT, value=str(exception))
        return super().evaluate(exception, try_number, max_tries, context)


@dag(
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 -- in Airflow's time zone
    catchup=False,
    max_active_runs=1,
    tags=["jobflow", "glue"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls"),
        "polls": Param(3, type="integer", minimum=1, description="Polls of the crawl before it times out"),
    },
)
def glue_crawler_then_job() -> None:
    """Run the crawler, branch, run the job."""
    crawl = GlueCrawlOperator(
        task_id="crawl",
        crawler_name="se2_in0",
        if_running="attach",
        poll_interval="{{ params.wait_time }}",
        job_timeout="{{ params.wait_time * params.polls }}",
        raise_on_failure=False,  # the branch below checks the outcome
        retries=3,
        retry_delay=timedelta(seconds=120),
        retry_exponential_backoff=2,
        retry_policy=NotingTimeouts(retry_timeouts=False),
    )

    @task.branch(trigger_rule="all_done")
    def crawl_complete(outcome: dict[str, Any] | None, ti: Any = None) -> str:
        if outcome is not None:
            return "run_final_glue_job" if outcome["state"] == "SUCCEEDED" else "job_failed"
        if ti.xcom_pull(task_ids="crawl", key=TIMED_OUT):
            return "job_failed_timeout"
        raise AirflowFailException("The crawler could not be started or described: see the log of task crawl")

    @task
    def job_failed(outcome: dict[str, Any]) -> None:
        raise AirflowFailException(f"DescribeJob returned FAILED: {CAUSE} ({outcome['name']}: {outcome['reason']})")

    @task
    def job_failed_timeout(ti: Any = None) -> None:
        why = ti.xcom_pull(task_ids="crawl", key=TIMED_OUT)
        raise AirflowFailException(f"DescribeJob returned FAILED Because of Timeout: {CAUSE} ({why})")

    run_final_glue_job = GlueJobRunOperator(
        task_id="run_final_glue_job",
        job_name="se2_job0",
        poll_interval="{{ params.wait_time }}",
        job_timeout=timedelta(hours=2),
        retries=3,
        retry_delay=timedelta(seconds=1),
        retry_exponential_backoff=2,
    )

    choice = crawl_complete(crawl.output)
    choice >> Label("SUCCEEDED") >> run_final_glue_job
    with TaskGroup("failure", prefix_group_id=False):
        choice >> Label("FAILED") >> job_failed(crawl.output)
        choice >> Label("TIMED OUT") >> job_failed_timeout()


glue_crawler_then_job()
