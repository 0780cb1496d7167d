"""What an ended job comes to: its outcome, or the error that a person reads.

What decides lies in ``jobs``; what is done here is to ask AWS for what an error needs beside the snapshot: an array's
failed children, and the last lines of a log. What cannot be had is left out, and never turns a failure into a success.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobflow.aws import Access, Retry, run_blocking, service_client
from airflow_jobflow.exceptions import JobFailed, JobflowError, JobStopped
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import batch, logs
from airflow_jobflow.jobs.causes import Diagnosis
from airflow_jobflow.jobs.diagnosis import decisive, diagnose, diagnoses
from airflow_jobflow.jobs.interface import Service
from airflow_jobflow.jobs.model import ArrayOutcome, ArrayProgress, ChildFailure, JobState, Outcome, Snapshot
from airflow_jobflow.jobs.report import evidence, failure, most_significant, tolerated
from airflow_jobflow.jobs.usage import total
from airflow_jobflow.jobs.wording import FAILURES_IN_FULL, jobs_named, named, sentence
from airflow_jobflow.jobs.wording import failures as combined_failures
from airflow_jobflow.links import console_links
from airflow_jobflow.usage import job_usage
from airflow_jobflow.wait_failures import WAIT_FAILURES

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance

log = logging.getLogger(__name__)

DETAILS = Retry(patience=30.0, denied_patience=0.0)
"""How long calls are retried that get optional details of an error, such as log lines. The job has ended by then."""

WHILE_IT_RUNS = Retry(patience=3.0, denied_patience=0.0)
"""The same for a job that has not ended: its task has timed out, and Airflow may be about to end it."""


@dataclass(frozen=True, slots=True)
class OutcomeBuilder:
    """Builds outcomes and exceptions from the snapshots of one service's jobs.

    :param service: our name of the service.
    :param module: the module that knows it.
    :param access: the AWS connection to use.
    :param log_lines: how many of the last lines of a log an error quotes.
    :param container: the name of the container that counts. Default None: the one that AWS's rules make decide.
    :param name: what the task calls its job, for messages on a job that was never described. Default: not known.
    :param children: filled with the snapshots of the failed children of an array, by index.
    :param copied: the ids of jobs whose last log lines are in the task's log already. Default none.
    """

    service: str
    module: Service
    access: Access
    log_lines: int
    container: str | None = None
    name: str = ""
    children: dict[int, Snapshot] = field(default_factory=dict)
    copied: set[str] = field(default_factory=set)

    def watch_error(self, errors: Mapping[str, Mapping[str, str]], seen: Mapping[str, Snapshot]) -> JobflowError:
        """Return the exception for jobs that cannot be polled any more.

        :param errors: the errors in the trigger's event, by job id.
        :param seen: the last snapshots of the jobs, by id; some may be missing.
        """
        kind = next(iter(errors.values()))["kind"]
        failure = WAIT_FAILURES[kind]
        advice = f"{failure.advice or 'Check the id and the error from AWS.'} Nothing was stopped."
        of_kind = {job_id: each["message"] for job_id, each in errors.items() if each["kind"] == kind}
        if kind == "vanished":
            advice = self._about_vanished(known=[job_id for job_id in of_kind if job_id in seen])
        jobs, why = self.called(of_kind, seen), "; ".join(dict.fromkeys(of_kind.values()))
        return failure.error(f"{failure.of_jobs}{jobs} (connection: {self.origin}): {sentence(why)} {advice}")

    def _about_vanished(self, known: Sequence[str]) -> str:
        """Return why AWS may not know jobs, and what to check.

        :param known: the jobs that were described before.
        """
        kept = f"AWS describes a {self.module.DISPLAY_NAME} for {self.module.RETENTION} after its end"
        if known:
            return f"{kept}. If it did not end, the connection now leads to another account or region."
        return f"Check the id, and the account and the region of the connection. {kept}."

    def called(self, job_ids: Iterable[str], seen: Mapping[str, Snapshot], *, unseen: str = "", of: int = 1) -> str:
        """Return how a message names jobs, with the last known status of each.

        :param job_ids: the jobs to name.
        :param seen: their last snapshots, by id; some may be missing.
        :param unseen: the text for a job that was never described. Default: none.
        :param of: how many jobs there are in all. Default: these.
        """
        jobs = []
        for job_id in job_ids:
            last = seen.get(job_id)
            how = f"last seen {last.progress()}" if last else unseen
            jobs.append(", ".join(filter(None, [named(job_id, (last and last.name) or self.name), how])))
        return jobs_named(self.module.DISPLAY_NAME, jobs, of)

    @property
    def origin(self) -> str:
        """The connection and the region that are used, for messages."""
        return service_client(self.access, self.module.CLIENT).origin

    def with_final_details(self, snapshot: Snapshot, *, retry: Retry | None = None) -> Snapshot:
        """Return the last snapshot of a job with the details that polling does not fetch, as far as they are available.

        :param snapshot: the last snapshot.
        :param retry: how long this is tried. Default ``DETAILS``.
        """
        try:
            client = service_client(self.access, self.module.CLIENT)
            detailed = run_blocking(client, self.module.with_final_details, snapshot, retry=retry or DETAILS)
            return detailed.counting(self.container)
        except CallError as error:
            log.warning("Could not get the details of %s %s: %s", self.module.DISPLAY_NAME, snapshot.job_id, error)
            return snapshot

    def job_outcomes(
        self, ended: Sequence[Snapshot], tolerance: Tolerance
    ) -> list[tuple[Outcome, JobflowError | None]]:
        """Build the outcome of each of several jobs that have ended, and its error if it failed.

        Logs are read only of the first that failed, because a sensor may wait for a thousand jobs.

        :param ended: the last snapshots of the jobs.
        :param tolerance: how many children of an array may fail.
        """
        builder, failed = self, 0
        results: list[tuple[Outcome, JobflowError | None]] = []
        for snapshot in ended:
            outcome, error = builder.job_outcome(snapshot, tolerance)
            results.append((outcome, error))
            failed += error is not None
            if failed == FAILURES_IN_FULL:
                builder = dataclasses.replace(self, log_lines=0)
        return results

    def job_outcome(self, snapshot: Snapshot, tolerance: Tolerance) -> tuple[Outcome, JobflowError | None]:
        """Return the outcome of a job that has ended, and its exception if it failed.

        :param snapshot: the last snapshot of the job.
        :param tolerance: how many children of an array may fail.
        :return: the outcome, and the exception or None.
        """
        if snapshot.array:
            return self.array_outcome([(snapshot, range(snapshot.array.size))], snapshot.array.size, tolerance)
        diagnosis = diagnose(snapshot, service=self.service)
        outcome = self.outcome(snapshot)
        return outcome, self._error(snapshot, outcome, diagnosis) if diagnosis else None

    def array_outcome(
        self, parts: Sequence[tuple[Snapshot, Sequence[int]]], size: int, tolerance: Tolerance
    ) -> tuple[Outcome, JobflowError | None]:
        """Return the outcome of an array whose last run consisted of these parts; all other children succeeded before.

        :param parts: arrays or plain jobs that have ended, each with the indexes of its children in the whole array.
        :param size: how many children the whole array has.
        :param tolerance: how many of them may fail.
        :return: the outcome, and the exception or None.
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
            if failed:
                what = f"{self.module.DISPLAY_NAME} {whole.name} ({whole.job_id})"
                log.warning("%s", tolerated(what, array.failed_indexes, size, tolerance.count, tolerance.percentage))
            return self.outcome(whole, state=JobState.SUCCEEDED, array=array, parts=ended), None
        outcome = self.outcome(whole, array=array, parts=ended)
        return outcome, self._error(
            whole, outcome, diagnosis, array.failed_indexes, most_significant(children, diagnosis)
        )

    def _error(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        diagnosis: Diagnosis,
        failed: Sequence[int] = (),
        children: Sequence[ChildFailure] = (),
    ) -> JobflowError:
        logged = children[0].snapshot if children else snapshot
        lines, is_copied = self.last_lines(logged), logged.job_id in self.copied
        message = failure(
            self.module.DISPLAY_NAME,
            snapshot,
            diagnosis,
            failed=failed,
            children=children,
            log_lines=lines,
            log_is_copied=is_copied,
            console_url=outcome.console_url,
        )
        error = JobStopped if snapshot.stopped_by_request else JobFailed
        return error(message, outcome=outcome.to_dict(), diagnosis=diagnosis, log_lines=lines if is_copied else ())

    def outcome(
        self,
        snapshot: Snapshot,
        *,
        state: JobState | None = None,
        array: ArrayOutcome | None = None,
        parts: Sequence[Snapshot] = (),
    ) -> Outcome:
        """Return the outcome of a job as of its last snapshot.

        :param snapshot: the last snapshot.
        :param state: replaces the state of the snapshot. Default: none.
        :param array: replaces the array counts of the snapshot. Default: none.
        :param parts: the jobs that ran the array, if it was redriven. Default: the job itself.
        """
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
            usage=total(job_usage(each, self.service) for each in parts or [snapshot]),
        )

    def _failed_children(self, snapshot: Snapshot) -> tuple[list[int], list[ChildFailure]]:
        """List the failed children of an array, which only Batch has, and describe the most significant of them.

        A plain job counts as an array of one. A listing has reasons and exit codes, but no log.
        """
        if snapshot.state is JobState.SUCCEEDED:
            return [], []
        if not snapshot.array:
            return [0], [ChildFailure(0, snapshot)]
        children: dict[int, ChildFailure] = {}
        try:
            client = service_client(self.access, batch.CLIENT)
            failed = run_blocking(client, batch.failed_children, snapshot.job_id, retry=DETAILS)
            children = {child.index: child for child in failed}
            explained = decisive(diagnoses(child.snapshot for child in failed))
            first = [child.index for child in most_significant(failed, explained)[: batch.BATCH_SIZE]]
            described = run_blocking(client, batch.children, snapshot.job_id, first, retry=DETAILS)
            children |= {
                child.index: ChildFailure(child.index, child.snapshot.counting(self.container)) for child in described
            }
        except CallError as error:
            log.warning("Could not describe the failed children of %s: %s", snapshot.job_id, error)
        return list(children), list(children.values())

    def evidence(self, snapshot: Snapshot, *, of: str = "") -> list[str]:
        """Return the lines of a message with the last log lines and the console page of a job that has not ended.

        :param snapshot: the last snapshot of the job.
        :param of: whose log it is, with a leading blank. Default: the job's.
        """
        located = self.with_final_details(snapshot, retry=WHILE_IT_RUNS)
        lines = self.last_lines(located, arrival=0.0, retry=WHILE_IT_RUNS)
        return evidence(lines, self.outcome(located).console_url, of=of)

    def last_lines(self, snapshot: Snapshot, *, arrival: float | None = None, retry: Retry | None = None) -> list[str]:
        """Return the last lines of a job's log for an error, or one line that says why there are none.

        A job without a log stream, for example one that never started, has no lines. For a pod, one line says so.

        :param snapshot: the last snapshot of the job.
        :param arrival: see ``jobs.logs.last_lines``.
        :param retry: how long a failed call is retried. Default ``DETAILS``.
        """
        if not self.log_lines:
            return []
        if not snapshot.log:
            pod = (snapshot.details or {}).get("pod")
            return [f"(no log: AWS names no container of pod {pod} that was started)"] if pod else []
        region = snapshot.log.region or self.access.region_name
        try:
            client = service_client(dataclasses.replace(self.access, region_name=region), logs.CLIENT)
            return run_blocking(client, logs.last_lines, snapshot.log, self.log_lines, arrival, retry=retry or DETAILS)
        except CallError as error:
            return [f"(the log could not be read: {error})"]


def combined_failure(failures: Sequence[JobflowError], outcomes: Sequence[dict[str, Any]]) -> JobflowError:
    """Return the one exception to raise for several jobs that failed.

    A failure counts more than a stop. Among failures, the one counts that a retry helps least.

    :param failures: the exceptions of the jobs that failed, at least one.
    :param outcomes: the outcomes of all jobs.
    """
    serious = [error for error in failures if isinstance(error, JobFailed)] or failures
    explained = decisive(error.diagnosis for error in serious if error.diagnosis)
    by_cause = {error.diagnosis.cause: error for error in reversed(serious) if error.diagnosis}
    worst = by_cause[explained.cause] if explained else serious[0]
    text = combined_failures([str(worst), *(str(error) for error in failures if error is not worst)])
    outcome: Any = list(outcomes) if len(outcomes) > 1 else outcomes[0]
    return type(worst)(text, outcome=outcome, diagnosis=worst.diagnosis, change=worst.change, log_lines=worst.log_lines)
