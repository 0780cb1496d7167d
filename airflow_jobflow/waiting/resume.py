"""Resumes a task after a deferral: of operators, maps and sensors alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import TaskDeferralError

from airflow_jobflow.airflow_compat.deferrals import timed_out
from airflow_jobflow.ui.failure_report import reporting_failures

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.ui.task_report import TaskReport

Method = tuple[str, dict[str, Any] | None]
"""The method that continues a task, and its arguments."""


def resume(
    proceed: Callable[[str, dict[str, Any] | None, Context], Any],
    method: Method,
    context: Context,
    report: TaskReport,
    *,
    on_timeout: Callable[[], Method],
    on_trigger_failure: Callable[[], None] = lambda: None,
) -> Any:
    """Continue a task after a deferral, and report its failure.

    :param proceed: Airflow's own ``resume_execution``.
    :param method: the method and the arguments that Airflow resumes with.
    :param context: Airflow's context.
    :param report: the report of the task.
    :param on_timeout: returns what to resume with instead if Airflow itself timed out the deferral, as it does when no
        triggerer was running.
    :param on_trigger_failure: decides about the jobs if the trigger itself failed. Default: nothing is done.
    :return: what the task returns.
    """
    report.resume((method[1] or {}).get("event"))
    with reporting_failures(report, context):
        if timed_out(*method):
            method = on_timeout()
            report.resume((method[1] or {}).get("event"))
        try:
            return proceed(*method, context)
        except TaskDeferralError:
            on_trigger_failure()
            raise
