"""What the Jobs tab shows of the jobs that a trigger waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.links import pages
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.ui import notes
from airflow_jobflow.ui.progress import FailedChildren, LastNote, NoteFactory, Progress, note_of

if TYPE_CHECKING:
    from airflow_jobflow.aws import Access
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.polling.watcher import Watcher
    from airflow_jobflow.stopping import Stopper

MAX_STATUSES_SHOWN = 20
"""The most statuses of one job in the Jobs tab."""


class JobProgress:
    """The progress report of one trigger.

    :param task_instance: the task instance; None to report nothing.
    :param service: our name of the service, such as ``batch``.
    :param job_ids: the jobs' ids.
    :param seen: the last snapshot of each job, which the trigger keeps up to date.
    :param digest: digest of the progress report that the tab already has; None if it has none.
    :param links: the URLs in that report, if the task's buttons read them there; None if they do not.
    """

    def __init__(
        self,
        task_instance: Any,
        service: str,
        job_ids: Sequence[str],
        seen: Mapping[str, Snapshot],
        *,
        digest: str | None,
        links: dict[str, str] | None,
    ) -> None:
        self._task_instance = task_instance
        self._service = service
        self._job_ids = job_ids
        self._seen = seen
        self._digest = digest
        self.links = links
        """The URLs in the last report, as above."""
        self._statuses: dict[str, list[tuple[str, str]]] = {}
        """The statuses that each job was seen in, each with the time since when."""
        self._failed_children: Mapping[int, Snapshot] = {}
        """The known failed children of an array, by index."""

    @contextlib.contextmanager
    def reporting(
        self, access: Access, watcher: Watcher[Snapshot], poll_interval: float
    ) -> Iterator[Callable[[str, Snapshot | WatchError], None]]:
        """Keep the Jobs tab up to date; yields a function to call with each update of a job.

        :param access: the AWS connection to use.
        :param watcher: the watcher of the jobs.
        :param poll_interval: seconds between two describe calls for one job.
        """
        shown = frozenset(self._job_ids[: notes.JOBS])
        with Progress(self._task_instance, lambda: self._report(failed.known), self._digest) as progress:
            failed = FailedChildren(access, self._job_ids[0], watcher, poll_interval, progress)

            def record(job_id: str, update: Snapshot | WatchError) -> None:
                if not progress.open or isinstance(update, WatchError):
                    return
                if job_id in shown:
                    seen = self._statuses.setdefault(job_id, [])
                    if len(seen) < MAX_STATUSES_SHOWN and (not seen or seen[-1][0] != update.status):
                        seen.append((update.status, notes.now()))
                if len(self._job_ids) == 1:
                    failed.observe(update)
                progress.changed()

            try:
                yield record
            finally:
                failed.close()
                self._failed_children = failed.known
                self._digest = progress.noted
                if progress.note and self.links is not None:
                    self.links = progress.note["links"]

    def last_note(self, stopper: Stopper) -> LastNote:
        """Return the note that shows how the jobs of a killed task ended.

        :param stopper: what stops them.
        """
        return LastNote(self._task_instance, lambda: self._report(self._failed_children, stopper))

    def _report(self, failed: Mapping[int, Snapshot], stopper: Stopper | None = None) -> NoteFactory:
        """Return a function that builds the progress report for the current state.

        :param failed: the known failed children of an array, by index.
        :param stopper: what stops the jobs, if the wait is over because the task was killed. Default None: it is not.
        """
        seen = [self._seen[job_id] for job_id in self._job_ids if job_id in self._seen]
        statuses = {job_id: tuple(each) for job_id, each in self._statuses.items()}
        noun, stops = job_service(self._service).DISPLAY_NAME, dict(stopper.stopped_at) if stopper else {}
        error = "\n".join(
            f"Could not stop {noun} {job_id}, and it may still run: {message}"
            for job_id, message in (stopper.unstopped if stopper else {}).items()
        )

        def build() -> dict[str, Any]:
            # A task has one button of each kind. With several jobs, only the end shows which one it should lead to.
            buttons = pages(self._service, seen[0]) if seen and len(self._job_ids) == 1 else {}
            return note_of(
                self._service,
                seen,
                statuses,
                total=len(self._job_ids),
                buttons=buttons,
                failed=failed,
                stops=stops,
                error=error,
                final=stopper is not None,
            )

        return build
