"""### Deregister definitions that no run uses

**Cleanup of definitions**: operators with `image=` or `definition=` register job definitions and task definitions. This
DAG deregisters those that no run has used for some time.

- It finds only definitions that an operator has registered: names that begin with `jobflow-`, with our tags.
- Check the log of a dry run. Then set the default of `dry_run` to false and unpause the DAG.
- Running jobs are not affected, and a later run registers its definition again.
- The run fails if something could not be listed or deregistered. Everything else was still done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Label, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow.definition_cleanup import deregister_unused_definitions


@dag(
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 -- in Airflow's time zone
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["jobflow"],
    doc_md=__doc__,
    params={
        "unused_days": Param(30, type="integer", minimum=2, description="Days since the last use"),
        "dry_run": Param(True, type="boolean", description="Only report what would be deregistered"),
    },
)
def deregister_definitions() -> None:
    """List our definitions and deregister unused ones; fail if something could not be done."""

    @task(retries=2, retry_delay=timedelta(minutes=1))
    def find_and_deregister(params: Any = None) -> dict[str, Any]:
        return deregister_unused_definitions(unused_days=params["unused_days"], dry_run=params["dry_run"])

    @task
    def check_problems(report: dict[str, Any]) -> None:
        failed = [each for each in report["definitions"] if each["action"] == "deregister_failed"]
        if report["problems"] or failed:
            raise AirflowFailException(f"Could not list: {report['problems']}. Could not deregister: {failed}")

    report = find_and_deregister()
    report >> Label("when all is done") >> check_problems(report)


deregister_definitions()
