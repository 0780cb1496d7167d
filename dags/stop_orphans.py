"""### Stop jobs whose task has ended

**Orphan reaper**: lists the running jobs of the given queues, clusters and Glue jobs, and stops those whose task has
ended.

- Most kills stop their jobs at once. The reaper finds the other jobs, such as those of a kill while no triggerer was
  alive.
- Set `[jobflow] deployment_id`, set your own queues, clusters and Glue jobs here, and check the log of a dry run.
- Then set the default of `dry_run` to false and unpause the DAG.
- The run fails if something could not be listed or stopped. Everything else was still done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Label, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow.reaper import stop_orphans as stop

NAMES = {"type": "array", "items": {"type": "string"}}


@dag(
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 -- in Airflow's time zone
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["jobflow"],
    doc_md=__doc__,
    params={
        "job_queues": Param(["hello-world-queue", "print-color-queue"], **NAMES, description="Batch queues to list"),
        "clusters": Param(["jobflow"], **NAMES, description="ECS clusters to list"),
        "glue_jobs": Param(["se2_job0"], **NAMES, description="Glue jobs whose runs to list"),
        "dry_run": Param(True, type="boolean", description="Only report what would be stopped"),
        "reap_deleted_runs": Param(False, type="boolean", description="Also stop jobs of runs that Airflow deleted"),
    },
)
def stop_orphans() -> None:
    """List jobs, query the states of their tasks, stop orphans; fail if something could not be done."""

    @task(retries=2, retry_delay=timedelta(minutes=1))
    def find_and_stop(params: Any = None) -> dict[str, Any]:
        names = ("job_queues", "clusters", "glue_jobs", "dry_run", "reap_deleted_runs")
        return stop(**{name: params[name] for name in names})

    @task
    def check_problems(report: dict[str, Any]) -> None:
        if report["problems"] or report["counts"]["stop_failed"]:
            failed = [job for job in report["jobs"] if job["action"] == "stop_failed"]
            raise AirflowFailException(f"Could not list: {report['problems']}. Could not stop: {failed}")

    report = find_and_stop()
    report >> Label("when all is done") >> check_problems(report)


stop_orphans()
