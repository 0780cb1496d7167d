"""What an ended job comes to: its outcome, or the error that a person reads.

What decides lies in ``jobs``; what is done here is to ask AWS for what an error needs beside the snapshot: an array's
failed children, and the last lines of a log. What cannot be had is left out, and never turns a failure into a success.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from airflow_jobflow.aws import Access, Retry, run_blocking, service_client
from airflow_jobflow.exceptions import AccessDenied, JobFailed, JobflowError, JobStopped, JobVanished, WaitError
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import batch, logs
from airflow_jobflow.jobs.calls import Call, pages
from airflow_jobflow.jobs.causes import Diagnosis
from airflow_jobflow.jobs.diagnosis import decisive, diagnose, diagnoses
from airflow_jobflow.jobs.model import ArrayOutcome, ArrayProgress, ChildFailure, JobState, Outcome, Service, Snapshot
from airflow_jobflow.jobs.report import evidence, failure, most_telling
from airflow_jobflow.links import console_links

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance

log = logging.getLogger(__name__)

DETAILS = Retry(patience=30.0, denied_patience=0.0)
"""How long calls are repeated for what an error can do without, such as log lines. A task has ended by then."""

WHILE_IT_RUNS = Retry(patience=3.0, denied_patience=0.0)
"""The same for a job that was given up: Airflow may be about to end the task."""

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
    :param access: the AWS connection to use.
    :param log_lines: how many last lines of a log go into an error.
    :param container: the name of the container that counts. Default None: the one that AWS's rules make decide.
    :param children: takes what is found out of the failed children of an array, by index.
    """

    service: str
    module: Service
    access: Access
    log_lines: int
    container: str | None = None
    children: dict[int, Snapshot] = field(default_factory=dict)

    def unwatchable(self, errors: Mapping[str, Mapping[str, str]], seen: Mapping[str, Snapshot]) -> JobflowError:
        """Return the error for jobs that can be watched no longer, as the trigger's event names them."""
        kind = next(iter(errors.values()))["kind"]
        asked, noun = f"({self._asked_with()})", self.module.NOUN
        of_kind = {job_id: error["message"] for job_id, error in errors.items() if error["kind"] == kind}
        last = "; ".join(f"{job_id} was last seen {seen[job_id].progress()}" for job_id in of_kind if job_id in seen)
        ids, messages = ", ".join(of_kind), "; ".join(dict.fromkeys(of_kind.values()))
        if kind == "vanished":
            text = (
                f"AWS does not know {noun} {ids} {asked}: {messages}. The account or the region is wrong, the id is "
                f"wrong, or the job ended long ago: it can be described for {self.module.KEPT} after its end."
            )
        else:
            how = "Not allowed to describe" if kind == "denied" else "Could not describe"
            text = f"{how} {noun} {ids} {asked}: {messages}."
            if kind == "denied":
                text += " Give the role of workers and triggerers this permission, or check its credentials."
            text += " The job keeps running."
        return UNWATCHABLE[kind](f"{text}{f' {last}.' if last else ''}")

    def _asked_with(self) -> str:
        """Return the connection and the region that are used; only what the task says of them if AWS is unreachable."""
        try:
            region = service_client(self.access, self.module.CLIENT).region
        except CallError:
            return str(self.access)
        return f"{self.access.aws_conn_id or 'boto3 defaults'}, {region}"

    def settled(self, snapshot: Snapshot, *, retry: Retry = DETAILS) -> Snapshot:
        """Return the last snapshot of a job with what a sweep could not tell, as far as that can be had.

        :param retry: how long this is tried. Default ``DETAILS``.
        """
        try:
            client = service_client(self.access, self.module.CLIENT)
            return run_blocking(client, self.module.settled, snapshot, retry=retry).counting(self.container)
        except CallError as error:
            log.warning("Could not get the details of %s %s: %s", self.module.NOUN, snapshot.job_id, error)
            return snapshot

    def verdict(self, snapshot: Snapshot, tolerance: Tolerance) -> tuple[Outcome, JobflowError | None]:
        """Judge an ended job: its outcome, and the error that it is, if it is one."""
        if snapshot.array:
            return self.verdict_on_array([(snapshot, range(snapshot.array.size))], snapshot.array.size, tolerance)
        diagnosis = diagnose(snapshot, service=self.service)
        outcome = self.outcome(snapshot)
        return outcome, self._error(snapshot, outcome, diagnosis) if diagnosis else None

    def verdict_on_array(
        self, parts: Sequence[tuple[Snapshot, Sequence[int]]], size: int, tolerance: Tolerance
    ) -> tuple[Outcome, JobflowError | None]:
        """Judge an array of which the last to run were these parts; children in none of them had succeeded before.

        :param parts: arrays, or plain jobs, that have ended, and the indexes that their children have in the whole.
        :param size: how many children the whole has.
        """
        failed: list[int] = []
        children: list[ChildFailure] = []
        count = 0
        for part, indexes in parts:
            in_part, first = self._failed_children(part)
            failed += [indexes[index] for index in in_part]
            children += [ChildFailure(indexes[child.index], child.snapshot) for child in first]
            # The service's count may lag behind its list, and the list may be empty for other reasons than success.
            counted = part.array.failed if part.array and part.state is not JobState.SUCCEEDED else 0
            count += max(len(in_part), counted)
        self.children.update((child.index, child.snapshot) for child in children)
        ended = [part for part, _ in parts]
        decides = next((part for part in ended if part.state is not JobState.SUCCEEDED), ended[-1])
        whole = dataclasses.replace(decides, array=ArrayProgress(size, succeeded=size - count, failed=count))
        diagnosis = diagnose(whole, service=self.service, children=[child.snapshot for child in children])
        array = ArrayOutcome(size, size - count, count, sorted(failed))
        stopped = any(part.stopped_by_request for part in ended)
        if diagnosis is None or (failed and not stopped and tolerance.allows(count, size)):
            return self.outcome(whole, state=JobState.SUCCEEDED, array=array), None
        outcome = self.outcome(whole, array=array)
        return outcome, self._error(whole, outcome, diagnosis, array.failed_indexes, most_telling(children, diagnosis))

    def _error(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        diagnosis: Diagnosis,
        failed: Sequence[int] = (),
        children: Sequence[ChildFailure] = (),
    ) -> JobflowError:
        message = failure(
            self.module.NOUN,
            snapshot,
            diagnosis,
            failed=failed,
            children=children,
            log_lines=self.last_lines(children[0].snapshot if children else snapshot),
            console_url=outcome.console_url,
        )
        error = JobStopped if snapshot.stopped_by_request else JobFailed
        return error(message, outcome=outcome.to_dict(), diagnosis=diagnosis)

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
            console_url=next(iter(console_links(self.service, snapshot).values()), None),
            array=array,
            details=snapshot.details,
        )

    def _failed_children(self, snapshot: Snapshot) -> tuple[list[int], list[ChildFailure]]:
        """List the failed children of an array, which only Batch has, and describe the most telling of them.

        A plain job counts as an array of one. A listing has reasons and exit codes, but no log.
        """
        if snapshot.state is JobState.SUCCEEDED:
            return [], []
        if not snapshot.array:
            return [0], [ChildFailure(0, snapshot)]
        children: dict[int, ChildFailure] = {}
        try:
            client = service_client(self.access, batch.CLIENT)
            failed = run_blocking(client, failed_children, snapshot.job_id, retry=DETAILS)
            children = {child.index: child for child in failed}
            explained = decisive(diagnoses(child.snapshot for child in failed))
            first = [child.index for child in most_telling(failed, explained)[: batch.BATCH_SIZE]]
            described = run_blocking(client, batch.children, snapshot.job_id, first, retry=DETAILS)
            children |= {
                child.index: ChildFailure(child.index, child.snapshot.counting(self.container)) for child in described
            }
        except CallError as error:
            log.warning("Could not describe the failed children of %s: %s", snapshot.job_id, error)
        return list(children), list(children.values())

    def evidence(self, snapshot: Snapshot) -> list[str]:
        """Return the lines of a message that show what a job which has not ended wrote last, and its page."""
        located = self.settled(snapshot, retry=WHILE_IT_RUNS)
        lines = self.last_lines(located, arrival=0.0, retry=WHILE_IT_RUNS)
        return evidence(lines, self.outcome(located).console_url)

    def last_lines(self, snapshot: Snapshot, *, arrival: float | None = None, retry: Retry = DETAILS) -> list[str]:
        """Return the last lines of a job's log, as many as go into an error, or one that says why there are none.

        Of a job that has no log stream, such as one that never started, none are returned.

        :param arrival: see ``jobs.logs.last_lines``.
        :param retry: how long this is tried. Default ``DETAILS``.
        """
        if not snapshot.log or not self.log_lines:
            return []
        region = snapshot.log.region or self.access.region_name
        try:
            client = service_client(dataclasses.replace(self.access, region_name=region), logs.CLIENT)
            return run_blocking(client, logs.last_lines, snapshot.log, self.log_lines, arrival, retry=retry)
        except CallError as error:
            return [f"(the log could not be read: {error})"]


def failed_children(call: Call, parent_id: str, most: int | None = None) -> list[ChildFailure]:
    """List an array's failed children, in order, with what a listing tells: no log. One call for each 1,000.

    :param most: how many are enough; None for all.
    """
    listed = (
        ChildFailure(child["arrayProperties"]["index"], batch.snapshot(child))
        for page in pages(call, "list_jobs", arrayJobId=parent_id, jobStatus="FAILED")
        for child in page["jobSummaryList"]
        if "index" in child.get("arrayProperties", {})
    )
    children = list(islice(listed, most))
    return sorted(children, key=lambda child: child.index)
