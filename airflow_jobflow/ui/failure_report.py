"""Reports how a task failed, because an exception leaves no return value: to the "Jobs" tab and to the task's log.

Invariant: a task fails for its own reason, even if the report cannot be written.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from airflow_jobflow import exceptions
from airflow_jobflow.airflow_compat.retry_policy import retry_policy_applied
from airflow_jobflow.exceptions import JobflowError
from airflow_jobflow.jobs.packing import unpack

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.ui.task_report import TaskReport

log = logging.getLogger(__name__)


@contextmanager
def reporting_failures(report: TaskReport, context: Context) -> Iterator[None]:
    """Report an exception that is raised within, and let it propagate.

    :param report: the report of the task.
    :param context: Airflow's context.
    :raises AirflowFailException: instead, where Airflow has no retry policies and the task's own says so.
    """
    report.select_links()
    with retry_policy_applied(report.task, context):
        try:
            yield
        except AirflowException as error:
            report_failure(report, context, error)
            if isinstance(error, JobflowError) and error.__cause__ is not None:
                log.debug("The causes of the failure:", exc_info=error)
                error.__cause__ = None  # its message quotes them; Airflow would log the traceback of each
            raise


def report_failure(report: TaskReport, context: Context, error: BaseException) -> None:
    """Log where the documentation explains a failure, and write the failure to the "Jobs" tab.

    :param report: the report of the task.
    :param context: Airflow's context.
    :param error: the exception that is raised, or the reason for it.
    """
    from airflow_jobflow.ui import notes

    try:
        if isinstance(error, AirflowSkipException) and error.__cause__:
            report.task.log.warning("Skipping the task instead of failing it: %s", error.__cause__)
        ours = _ours(error)
        page = help_page(ours) if ours else None
        if page:
            report.task.log.error("What to do about it: %s", page)
        if report.is_shown:
            if report.is_resumed and not report.kept_links:
                report.kept_links = _links_of_earlier_note(context)
            context["ti"].xcom_push(key=notes.KEY, value=_note(report, ours or error, page))
            report.links_are_noted()
    except Exception as failure:  # noqa: BLE001 -- see above
        report.task.log.warning("Could not write the task's failure to the Jobs tab: %s", failure)


def _note(report: TaskReport, error: BaseException, page: str | None) -> dict[str, Any]:
    from airflow_jobflow.jobs.report import evidence
    from airflow_jobflow.ui import notes

    ours = error if isinstance(error, JobflowError) else None
    outcomes = (ours and ours.outcome) or ()
    seen = report.event if isinstance(report.event, Mapping) else {}
    return notes.of_failure(
        report.service,
        "\n".join([str(error), *evidence(ours.log_lines if ours else ())]),
        outcomes=[outcomes] if isinstance(outcomes, Mapping) else outcomes,
        diagnosis=ours.diagnosis if ours else None,
        children=report.failed_children,
        event=seen,
        lines=unpack(seen["lines"]) if seen.get("lines") else (),
        help_page=page,
        buttons=report.kept_links,
        stops={**dict.fromkeys(seen.get("stopped") or (), notes.now()), **report.stops},
    )


def note_stopped(report: TaskReport, context: Context, seen: Mapping[str, Snapshot]) -> None:
    """Show in the "Jobs" tab that the jobs were stopped, because the task may end before it can report how they ended.

    :param report: the report of the task.
    :param context: Airflow's context.
    :param seen: what was last seen of them, by id.
    """
    from airflow_jobflow.ui import notes
    from airflow_jobflow.ui.progress import note_of

    if not report.is_shown or not seen or not report.stops:
        return
    note = note_of(
        report.service,
        list(seen.values()),
        {},
        total=len(seen),
        buttons=report.kept_links,
        stops=report.stops,
        final=True,
    )
    try:
        context["ti"].xcom_push(key=notes.KEY, value=note)
    except Exception as failure:  # noqa: BLE001 -- an XCom backend may raise anything; the job is stopped
        report.task.log.warning("Could not show in the Jobs tab that the job was stopped: %s", failure)


def _links_of_earlier_note(context: Context) -> dict[str, str]:
    """Return the URLs in the note that is about to be overwritten, as the trigger did not pass them on."""
    from airflow_jobflow.ui import notes

    ti = context["ti"]
    note = ti.xcom_pull(task_ids=ti.task_id, key=notes.KEY, map_indexes=ti.map_index)
    return dict(note.get("links") or {}) if isinstance(note, Mapping) else {}


def _ours(error: BaseException) -> JobflowError | None:
    """Return the first of an error and its causes that is a `JobflowError`; a skip is caused by one."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, JobflowError):
        cause = cause.__cause__
    return cause if isinstance(cause, JobflowError) else None


def help_page(error: JobflowError) -> str | None:
    """Return the address of the documentation on an error, or None if it is not known.

    The address comes from the installed package's metadata, entry ``Documentation``. The page on failures has a heading
    for each diagnosis, and for each exception of this package.

    :param error: the error.
    """
    listed = importlib.metadata.metadata("airflow-jobflow").get_all("Project-URL", [])
    site = dict(url.split(", ", 1) for url in listed).get("Documentation")
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == exceptions.__name__)
    heading = f"diagnosis-{error.diagnosis.cause}" if error.diagnosis else f"error-{kind}"
    return site and f"{site.rstrip('/')}/failures.html#{heading.lower().replace('_', '-')}"
