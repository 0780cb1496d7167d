"""Telling how a task has failed, for an exception leaves no return value: the "Jobs" tab, and where to read on.

What always holds: a task fails for its own reason, whatever becomes of the telling.
"""

from __future__ import annotations

import importlib.metadata
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
    from airflow_jobflow.waiting import JobWaiter


@contextmanager
def reporting_failures(task: JobWaiter, context: Context) -> Iterator[None]:
    """Tell of what is raised within, and let it go on.

    :param task: what it is raised by.
    :raises AirflowFailException: instead, where Airflow has no retry policies and the task's own says so.
    """
    task.select_links()
    with retry_policy_applied(task, context):
        try:
            yield
        except AirflowException as error:
            report_failure(task, context, error)
            raise


def report_failure(task: JobWaiter, context: Context, error: BaseException) -> None:
    """Tell the task's log where to read on, and the "Jobs" tab how the task has failed.

    :param error: what is raised, or was the reason for it.
    """
    from airflow_jobflow.ui import notes

    try:
        if isinstance(error, AirflowSkipException) and error.__cause__:
            task.log.warning("The task is skipped instead of failing: %s", error.__cause__)
        ours = _ours(error)
        page = help_page(ours) if ours else None
        if page:
            task.log.error("What to do about it: %s", page)
        if task.do_xcom_push:
            if task.is_resumed and not task.kept_links:
                task.kept_links = _links_of_earlier_note(context)
            context["ti"].xcom_push(key=notes.KEY, value=_note(task, ours or error, page))
            task.links_are_noted()
    except Exception as trouble:  # noqa: BLE001 -- see above
        task.log.warning("Could not write the task's failure to the Jobs tab: %s", trouble)


def _note(task: JobWaiter, error: BaseException, page: str | None) -> dict[str, Any]:
    from airflow_jobflow.ui import notes

    ours = error if isinstance(error, JobflowError) else None
    outcomes = (ours and ours.outcome) or ()
    seen = task.event if isinstance(task.event, Mapping) else {}
    return notes.of_failure(
        task.service,
        str(error),
        outcomes=[outcomes] if isinstance(outcomes, Mapping) else outcomes,
        diagnosis=ours.diagnosis if ours else None,
        children=task.failed_children,
        event=seen,
        lines=unpack(seen["lines"]) if seen.get("lines") else (),
        help_page=page,
        buttons=task.kept_links,
        stops={**dict.fromkeys(seen.get("stopped") or (), notes.now()), **task.stops},
    )


def note_stopped(task: JobWaiter, context: Context, seen: Mapping[str, Snapshot]) -> None:
    """Show in the "Jobs" tab that the jobs were stopped, where the task may end before it can report how they ended.

    :param seen: what was last seen of them, by id.
    """
    from airflow_jobflow.ui import notes
    from airflow_jobflow.ui.progress import note_of

    if not task.do_xcom_push or not seen or not task.stops:
        return
    note = note_of(
        task.service, list(seen.values()), {}, total=len(seen), buttons=task.kept_links, stops=task.stops, final=True
    )
    try:
        context["ti"].xcom_push(key=notes.KEY, value=note)
    except Exception as trouble:  # noqa: BLE001 -- the job is stopped, whatever an XCom backend raises
        task.log.warning("Could not write to the Jobs tab that the job was stopped: %s", trouble)


def _links_of_earlier_note(context: Context) -> dict[str, str]:
    """Return the URLs of the note that is overwritten next, where the trigger has not handed them on."""
    from airflow_jobflow.ui import notes

    ti = context["ti"]
    note = ti.xcom_pull(task_ids=ti.task_id, key=notes.KEY, map_indexes=ti.map_index)
    return dict(note.get("links") or {}) if isinstance(note, Mapping) else {}


def _ours(error: BaseException) -> JobflowError | None:
    """Return the nearest of the reasons for an error that is one of ours; a skip has a failure for its reason."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, JobflowError):
        cause = cause.__cause__
    return cause if isinstance(cause, JobflowError) else None


def help_page(error: JobflowError) -> str | None:
    """Return where the documentation says what to do about an error; None where it is not known to be anywhere.

    The documentation is where the installed package's metadata say, under ``Documentation``. Its page on failures has a
    heading for each diagnosis, and for each of our exceptions.
    """
    listed = importlib.metadata.metadata("airflow-jobflow").get_all("Project-URL", [])
    site = dict(url.split(", ", 1) for url in listed).get("Documentation")
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == exceptions.__name__)
    heading = f"diagnosis-{error.diagnosis.cause}" if error.diagnosis else f"error-{kind}"
    return site and f"{site.rstrip('/')}/failures.html#{heading.lower().replace('_', '-')}"
