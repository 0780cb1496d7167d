"""What a running task reports in addition to its log: notes for the Jobs tab, and links to AWS's console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.links import ALL_LINKS, api_server_reads_notes, pages

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_jobflow.jobs.model import Snapshot


class TaskReport:
    """What one task reports of its jobs, as far as this process knows.

    :param task: the operator or sensor that is executed.
    :param service: our name of the service, such as ``batch``.
    """

    def __init__(self, task: BaseOperator, service: str) -> None:
        self.task = task
        self.service = service
        self.kept_links: dict[str, str] = {}
        """The URLs of the console's pages that are known, by the key of the link to each."""
        self.stored_links: dict[str, str] = {}
        """The URLs that the buttons find already, because a note has them."""
        self.stops: dict[str, str] = {}
        """When this process stopped each job, by its id, in ISO 8601."""
        self.is_resumed = False
        """Whether the task continues after a deferral."""
        self.event: object = None
        """The event of the trigger, once the wait has ended."""
        self.failed_children: dict[int, Snapshot] = {}
        """Failed children of an array, by index, as far as they were described."""

    @property
    def is_shown(self) -> bool:
        """Whether anything is written for the UI: ``do_xcom_push=False`` turns it off."""
        return bool(self.task.do_xcom_push)

    @cached_property
    def notes_have_links(self) -> bool:
        """Whether the buttons find their URLs in the notes for the "Jobs" tab: see ``links``."""
        return self.is_shown and trigger_eligibility.is_ours(type(self.task)) and api_server_reads_notes()

    def resume(self, event: object) -> None:
        """Continue after a deferral.

        :param event: the event of the trigger.
        """
        self.event, self.is_resumed = event, True
        if isinstance(event, Mapping) and event.get("links"):
            self.kept_links = self.stored_links = dict(event["links"])

    def keep_links(self, seen: Iterable[Snapshot]) -> None:
        """Keep the console's pages of a job for the buttons. Airflow stores them when the worker is done.

        :param seen: one job, or none: a task has one button of a kind.
        """
        for snapshot in seen if self.is_shown else ():
            self.kept_links = pages(self.service, snapshot) or self.kept_links
        self.select_links()

    def select_links(self) -> None:
        """Leave only those links on the task that are not stored yet.

        Airflow stores all links of an executed task, also those without a URL, with a request each.
        """
        task: Any = self.task
        if self.kept_links == self.stored_links:
            task.operator_extra_links = ()
        elif trigger_eligibility.is_ours(type(task)):
            task.operator_extra_links = (ALL_LINKS,)
        else:
            links = type(task).operator_extra_links
            task.operator_extra_links = tuple(link for link in links if self.kept_links.get(link.xcom_key))

    def links_are_noted(self) -> None:
        """Record that a note has the links."""
        if self.notes_have_links:
            self.stored_links = self.kept_links
            self.select_links()

    def begin(self, context: Context, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> dict[str, Any]:
        """Write the first note for the "Jobs" tab, with the URLs of the buttons; the trigger writes later ones.

        :param context: Airflow's context.
        :param job_ids: the ids of the jobs. Of several, the trigger writes the first note, if they take a while.
        :param seen: what was last seen of them, by id.
        :return: the arguments with which the trigger continues the report.
        """
        note_digest = self._note_start(context, seen) if self.is_shown and len(job_ids) == 1 and seen else None
        return {
            "reports_progress": self.is_shown,
            "progress_digest": note_digest,
            "links": self.stored_links if self.notes_have_links else None,
        }

    def _note_start(self, context: Context, seen: Mapping[str, Snapshot]) -> str | None:
        """Write the first note; return the digest by which the trigger recognizes it, or None if that failed."""
        from airflow_jobflow.ui import notes
        from airflow_jobflow.ui.progress import first_note

        note, note_digest = first_note(self.service, seen, self.kept_links)
        try:
            context["ti"].xcom_push(key=notes.KEY, value=note)
        except Exception as error:  # noqa: BLE001 -- an XCom backend may raise anything; the wait continues
            self.task.log.warning("The state of the job could not be written for the Jobs tab: %s", error)
            return None
        self.links_are_noted()
        return note_digest
