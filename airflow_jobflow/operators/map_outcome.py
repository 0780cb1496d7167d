"""What a task returns or raises when its map has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.report import tolerated
from airflow_jobflow.maps import result as map_result
from airflow_jobflow.metrics import publish_usage
from airflow_jobflow.operators import returned
from airflow_jobflow.ui.failure_report import report_failure

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.maps.previous_results import PreviousResults
    from airflow_jobflow.operators.map_record import MapAttempt


def map_outcome(attempt: MapAttempt, context: Context, ended: PreviousResults, usage: Mapping[str, Any] | None) -> Any:
    """Return the outcome of a map that has ended, or what its calls of a function returned, or raise its failure.

    :param attempt: the map that this try ran.
    :param context: Airflow's context.
    :param ended: how its items ended, those of earlier tries included.
    :param usage: what its jobs of this try used; None if that is not known.
    :raises JobFailed, JobStopped: more items failed than are tolerated, and ``raise_on_failure`` is set.
    """
    execution, tolerance = attempt.execution, attempt.execution.tolerance
    builder, report = execution.jobs.outcome_builder, execution.report
    outcome = {**map_result.result(builder, attempt.name, ended, tolerance), "usage": usage}
    publish_usage(execution.jobs.service, usage)
    if significant := map_result.most_significant(ended, outcome):
        report.keep_links([significant])
    if outcome["state"] == JobState.SUCCEEDED.value:
        if failed := outcome["array"]["failed_indexes"]:
            size = outcome["array"]["size"]
            message = tolerated(attempt.called, failed, size, tolerance.count, tolerance.percentage)
            execution.log.warning("%s", message)
        outcome = returned.of_map(execution, attempt.called, ended, outcome)
        return outcome if execution.spec.function is None else execution.spec.function.value(outcome)
    failure = map_result.failure(builder, attempt.name, ended, outcome)
    if execution.given.get("raise_on_failure"):
        raise failure
    execution.log.warning("%s", failure)
    report_failure(report, context, failure)
    return outcome
