"""Waits for jobs, in the triggerer or in the worker, and turns what was seen of them into outcomes."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.airflow_compat.task_context import is_mapped
from airflow_jobflow.metrics import publish_usage
from airflow_jobflow.ui.failure_report import report_failure
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN
from airflow_jobflow.waiting.remote import RemoteJobs

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.jobs.targets import Target
    from airflow_jobflow.triggers.base import WaitTrigger
    from airflow_jobflow.triggers.job import JobTrigger
    from airflow_jobflow.ui.task_report import TaskReport
    from airflow_jobflow.waiting.parameters import WaitParameters

JobOutcomes = Sequence[tuple["Outcome", "JobflowError | None"]]
"""The outcome of each job, and the exception of each that failed."""


@dataclass(eq=False, repr=False)
class JobWait:
    """How a task waits for its jobs.

    :param task: the operator or sensor.
    :param jobs: its jobs in AWS.
    :param report: what it reports of them.
    :param parameters: its shared parameters.
    :param target: what it waits for.
    """

    task: Any
    jobs: RemoteJobs
    report: TaskReport
    parameters: WaitParameters
    target: Target

    @classmethod
    def of(
        cls, task: Any, report: TaskReport, parameters: WaitParameters, target: Target | None = None, **where: Any
    ) -> JobWait:
        """Return the wait of an operator or a sensor.

        :param task, report, parameters: see the class.
        :param target: see the class. Default None: the end of the jobs.
        :param where: what its calls are confined to, see :class:`airflow_jobflow.waiting.remote.RemoteJobs`.
        """
        from airflow_jobflow.jobs.targets import Target

        jobs = RemoteJobs(task.service, parameters.access, report, task.log, log_lines=parameters.log_lines, **where)
        return cls(task, jobs, report, parameters, target or Target())

    def initial_status(
        self, job_ids: Sequence[str], seen: Mapping[str, Snapshot | None] | None = None
    ) -> dict[str, Snapshot]:
        """Describe jobs before the wait: they may have ended, and their pages in the console are known now.

        :param job_ids: the ids of the jobs.
        :param seen: what was just seen of them; by default they are described.
        :return: their snapshots, as far as they are known.
        """
        from airflow_jobflow.aws import ONCE

        # Once, because the watcher of the trigger repeats it.
        seen = seen or self.jobs.describe_now(job_ids, retry=ONCE)
        known = {job_id: snapshot for job_id, snapshot in seen.items() if snapshot}
        for job_id, snapshot in known.items():
            self.task.log.info("%s %s: %s", self.jobs.display_name, job_id, snapshot.progress())
        if len(job_ids) == 1:
            self.report.keep_links(known.values())
        return known

    def submitted_outcome(self, job_id: str, seen: Mapping[str, Snapshot]) -> dict[str, Any]:
        """Return the outcome of a task that does not wait.

        :param job_id: the id of the job.
        :param seen: its last snapshot, by its id, if it was described.
        """
        from airflow_jobflow.jobs.model import JobState, Snapshot

        snapshot = seen.get(job_id) or Snapshot(job_id, JobState.SUBMITTED, JobState.SUBMITTED.value)
        return self.jobs.outcome_builder.outcome(snapshot, state=JobState.SUBMITTED).to_dict()

    def until_ended(
        self,
        context: Context,
        job_ids: Sequence[str],
        seen: Mapping[str, Snapshot],
        *,
        deadline: float | None = None,
        queue_deadline: float | None = None,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        returns: str | None = None,
        result: str | None = None,
        resumes_with: Mapping[str, Any] | None = None,
        before_deferral: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Wait until all jobs have ended, or a deadline has passed, and return the event of the trigger.

        Does not return if the task waits in the triggerer: then Airflow calls ``execute_complete`` with the event.

        :param context: Airflow's context.
        :param job_ids: the ids of the jobs.
        :param seen: what was last seen of them. If the wait is over, this returns at once.
        :param deadline: when the wait ends, in seconds since the epoch. Default None: never.
        :param queue_deadline: when it ends if no job has left the queue. Default None: never.
        :param cancel_on_kill: whether the trigger stops the jobs when the task is killed. Default False.
        :param cancel_on_timeout: whether the trigger stops the jobs when a deadline has passed. Default False.
        :param returns: what the task returns if it ends in the triggerer, see ``triggers.ending``. Default None: a
            worker ends it.
        :param result: where the job writes its result: ``s3://bucket/prefix``, or ``log``. Default None: it has none.
        :param resumes_with: further arguments of ``execute_complete`` when the task is resumed. Default: none.
        :param before_deferral: called before the task defers. Default None.
        """
        all_ended = self._is_over(job_ids, seen)
        if all_ended and not self.parameters.copies_logs:
            return self._ended_event(job_ids, seen)
        trigger = self.trigger(
            job_ids,
            deadline=None if all_ended else deadline,  # only logs are copied then
            queue_deadline=None if all_ended else queue_deadline,
            deferred_at=time.time(),
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
            result_kind=returns if self._may_end_in_triggerer(context) else None,
            result=result,
            reported_statuses={job_id: snapshot.progress() for job_id, snapshot in seen.items()},
            **({} if all_ended else self.report.begin(context, job_ids, seen)),
        )
        if self.parameters.defers and not all_ended:
            if before_deferral:
                before_deferral()
            self.defer(trigger, **(resumes_with or {}))
        return self.in_worker(trigger)

    def trigger(self, job_ids: Sequence[str], **arguments: Any) -> JobTrigger:
        """Return a trigger that waits for jobs.

        :param job_ids: the ids of the jobs.
        :param arguments: those that not all waits of a task have.
        """
        from airflow_jobflow.triggers.job import JobTrigger

        return JobTrigger(
            service=self.jobs.service,
            job_ids=job_ids,
            scope=self.jobs.scope,
            container_name=self.jobs.container,
            **dataclasses.asdict(self.jobs.access),
            poll_interval=self.parameters.poll_interval,
            target=dataclasses.asdict(self.target) if self.target.status else None,
            **self.parameters.logs,
            **arguments,
        )

    def _is_over(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> bool:
        return all(job_id in seen and self.target.decided(seen[job_id]) for job_id in job_ids)

    def _ended_event(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> dict[str, Any]:
        """Return the event of a trigger for jobs that have all ended."""
        jobs = {job_id: snapshot.to_dict() for job_id, snapshot in seen.items()}
        self.report.event = event = {"job_ids": list(job_ids), "jobs": jobs, "errors": {}, "limit": None}
        return event

    def _may_end_in_triggerer(self, context: Context) -> bool:
        mapped = is_mapped(context)
        return trigger_eligibility.is_ours(type(self.task)) and trigger_eligibility.may_end(self.task, is_mapped=mapped)

    def defer(self, trigger: WaitTrigger, **arguments: Any) -> None:
        """Hand the wait over to the triggerer. Does not return.

        :param trigger: the trigger.
        :param arguments: further arguments of ``execute_complete`` when the task is resumed.
        """
        left = None if trigger.deadline is None else max(trigger.deadline - time.time(), 0)
        timeout = None if left is None else timedelta(seconds=left + DEFERRAL_TIMEOUT_MARGIN)
        self.task.defer(trigger=trigger, method_name="execute_complete", kwargs=arguments, timeout=timeout)

    def in_worker(self, trigger: WaitTrigger) -> dict[str, Any]:
        """Wait in this process, and return the event of the trigger.

        :param trigger: the trigger.
        """
        self.report.event = event = asyncio.run(trigger.wait())
        return event

    def final_status(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return an event, after describing the jobs once more if a deadline has passed.

        A job that ended in the meantime did not time out. The trigger does the same before it stops a job.

        :param event: the event of the trigger.
        """
        self.jobs.outcome_builder.copied.update(event.get("copied") or ())
        if not event["limit"] or event.get("stopped") or event.get("unstopped") or not event["job_ids"]:
            return dict(event)
        seen = {**snapshots(event), **self.jobs.describe_now(event["job_ids"])}
        ended = self._is_over(event["job_ids"], seen)
        jobs = {job_id: snapshot.to_dict() for job_id, snapshot in seen.items()}
        return {**event, "jobs": jobs, "limit": None if ended else event["limit"]}

    def outcomes(
        self,
        context: Context,
        event: Mapping[str, Any],
        build_outcomes: Callable[[Sequence[Snapshot]], JobOutcomes],
        *,
        raise_on_failure: bool,
        instead: Callable[[JobflowError], Exception | None] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Return the outcomes of jobs that have ended, in the order of their ids.

        :param context: Airflow's context.
        :param event: the event of the trigger.
        :param build_outcomes: returns outcomes and exceptions of snapshots.
        :param raise_on_failure: whether a failure is raised, and not only logged and reported.
        :param instead: returns an exception that is raised in place of a failure, even without ``raise_on_failure``, or
            None. Default: none is.
        :raises JobNotFound, WaitError, AccessDenied: a job can no longer be described.
        :raises JobFailed, JobStopped: a job failed or was stopped, and ``raise_on_failure`` is set.
        """
        from airflow_jobflow.jobs.model import JobState
        from airflow_jobflow.outcomes import combined_failure

        builder, seen = self.jobs.outcome_builder, snapshots(event)
        if event["errors"]:
            raise builder.watch_error(event["errors"], seen)
        ended = [builder.with_final_details(seen[job_id]) for job_id in event["job_ids"]]
        built = build_outcomes(ended)
        outcomes = [outcome.to_dict() for outcome, _ in built]
        for outcome in outcomes:
            publish_usage(builder.service, outcome["usage"])
        failed = [snapshot for snapshot in ended if snapshot.state is not JobState.SUCCEEDED]
        self.report.keep_links((failed or ended)[:1])
        failures = [error for _, error in built if error]
        if failures:
            failure = combined_failure(failures, outcomes)
            if raised := instead(failure) or (failure if raise_on_failure else None):
                raise raised
        for error in failures:
            self.task.log.warning("%s", error)
            report_failure(self.report, context, error)
        return outcomes


def snapshots(event: Mapping[str, Any]) -> dict[str, Snapshot]:
    """Return the snapshots in the event of a trigger, by the ids of the jobs.

    :param event: the event.
    """
    from airflow_jobflow.jobs.model import Snapshot

    return {job_id: Snapshot.from_dict(seen) for job_id, seen in event["jobs"].items()}
