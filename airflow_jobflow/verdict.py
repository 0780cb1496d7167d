"""What an ended job comes to: its outcome, or the error that a person reads.

What decides lies in ``jobs``; what is done here is to ask AWS for what an error needs beside the snapshot: an array's
failed children, and the last lines of a log. What cannot be had is left out, and never turns a failure into a success.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_jobflow.aws import no_answer
from airflow_jobflow.exceptions import AccessDenied, JobFailed, JobflowError, JobStopped, JobVanished, WaitError
from airflow_jobflow.jobs import batch, logs
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.model import ArrayOutcome, ChildFailure, JobState, Outcome, Service, Snapshot
from airflow_jobflow.jobs.report import CHILDREN_SHOWN, failure

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink

    from airflow_jobflow.jobs.array import Tolerance

log = logging.getLogger(__name__)

UNWATCHABLE: dict[str, type[JobflowError]] = {
    "vanished": JobVanished,
    "denied": AccessDenied,
    "unanswerable": WaitError,
}
"""What is raised for a job that can be watched no longer, by the trigger's word for why."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Makes outcomes and errors of snapshots of one service.

    :param service: our name of the service.
    :param module: the module that knows it.
    :param client: returns a boto3 client, by boto3's name of a service, for calls that may safely be repeated.
    :param links: returns the console's pages for a job, the job's own first.
    :param log_lines: how many last lines of a log go into an error.
    """

    service: str
    module: Service
    client: Callable[[str], Any]
    links: Callable[[Snapshot], Mapping[type[BaseOperatorLink], str]]
    log_lines: int

    def unwatchable(self, errors: Mapping[str, Mapping[str, str]], seen: Mapping[str, Snapshot]) -> JobflowError:
        """Return the error for jobs that can be watched no longer, as the trigger's event names them."""
        said = [
            f"{job_id}: {error['message']} (last seen {seen[job_id].progress() if job_id in seen else 'never'})"
            for job_id, error in errors.items()
        ]
        kind = next(iter(errors.values()))["kind"]
        return UNWATCHABLE[kind](
            f"{self.module.NOUN} cannot be waited for: {'; '.join(said)}. "
            "Whether it still runs is not known here: look it up in the console before it is started again. "
            f"What has ended can be described for {self.module.KEPT}."
        )

    def verdict(self, snapshot: Snapshot, tolerance: Tolerance) -> tuple[Outcome, JobflowError | None]:
        """Judge an ended job: its outcome, and the error that it is, if it is one."""
        diagnosis = diagnose(snapshot)
        if diagnosis is None:
            return self.outcome(snapshot), None
        failed: list[int] = []
        children: list[ChildFailure] = []
        array = None
        if snapshot.array:
            failed, children = self._failed_children(snapshot)
            # The service's count may lag behind its list, and the list may be empty for other reasons than success.
            count, size = max(len(failed), snapshot.array.failed), snapshot.array.size
            array = ArrayOutcome(size, size - count, count, failed)
            if failed and not snapshot.stopped_by_request and tolerance.allows(count, size):
                return self.outcome(snapshot, state=JobState.SUCCEEDED, array=array), None
        outcome = self.outcome(snapshot, array=array)
        message = failure(
            self.module.NOUN,
            snapshot,
            diagnosis,
            failed=failed,
            children=children,
            log_lines=self._last_lines(children[0].snapshot if children else snapshot),
            console_url=outcome.console_url,
        )
        error = JobStopped if snapshot.stopped_by_request else JobFailed
        return outcome, error(message, outcome=outcome.to_dict(), diagnosis=diagnosis)

    def outcome(
        self, snapshot: Snapshot, *, state: JobState | None = None, array: ArrayOutcome | None = None
    ) -> Outcome:
        """Build the outcome of a job from what was last seen of it."""
        if array is None and snapshot.array:
            counts = snapshot.array
            succeeded = counts.size if snapshot.state is JobState.SUCCEEDED else counts.succeeded  # the count may lag
            array = ArrayOutcome(counts.size, succeeded, counts.failed)
        return Outcome(
            service=self.service,
            job_id=snapshot.job_id,
            name=snapshot.name,
            state=state or snapshot.state,
            status=snapshot.status,
            reason=snapshot.reason,
            exit_code=snapshot.exit_code,
            created_at=snapshot.created_at,
            started_at=snapshot.started_at,
            stopped_at=snapshot.stopped_at,
            log=snapshot.log,
            console_url=next(iter(self.links(snapshot).values()), None),
            array=array,
        )

    def _failed_children(self, snapshot: Snapshot) -> tuple[list[int], list[ChildFailure]]:
        """List the failed children of an array, which only Batch has, and look at the first of them."""
        failed: list[int] = []
        try:
            failed = batch.failed_indexes(self.client(batch.CLIENT), snapshot.job_id)
            return failed, batch.children(self.client(batch.CLIENT), snapshot.job_id, failed[:CHILDREN_SHOWN])
        except no_answer() as error:
            log.warning("The failed children of %s could not be looked at: %s", snapshot.job_id, error)
            return failed, []

    def _last_lines(self, snapshot: Snapshot) -> list[str]:
        if not snapshot.log or not self.log_lines:
            return []
        try:
            return logs.last_lines(self.client(logs.CLIENT), snapshot.log, self.log_lines)
        except no_answer() as error:
            return [f"(the log could not be read: {error})"]
