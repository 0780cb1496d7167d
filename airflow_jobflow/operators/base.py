"""The base of the operators that start a job: validate, start or reattach, wait, finish.

The rest is in objects of the operator: ``_spec`` is what to start, ``_record`` the attempt, and ``_jobs`` calls AWS.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.airflow_compat.copies import MakesObjects
from airflow_jobflow.airflow_compat.retry_policy import TaskBase
from airflow_jobflow.exceptions import CapacityUnavailable, JobNotFound, JobStopped, SubmissionError, WaitError
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.operators.attempts import ABANDONING, AttemptRecord
from airflow_jobflow.operators.capacity import CapacityWait
from airflow_jobflow.operators.earlier_tries import EarlierTries
from airflow_jobflow.operators.kills import stop_if_deferral_is_rejected
from airflow_jobflow.ui.failure_report import note_stopped, reporting_failures
from airflow_jobflow.ui.task_report import TaskReport
from airflow_jobflow.waiting import parameters as wait_parameters
from airflow_jobflow.waiting import timeouts
from airflow_jobflow.waiting.deadlines import Deadlines
from airflow_jobflow.waiting.remote import RemoteJobs
from airflow_jobflow.waiting.resume import Method, resume
from airflow_jobflow.waiting.wait import JobWait, snapshots

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.spec import JobSpec
    from airflow_jobflow.triggers.base import WaitTrigger

NOT_OURS = "It was left running, because this task did not start it."

FINAL_DESCRIBE_TIMEOUT = 1.0
"""Seconds for which a killed worker waits for the last status of its job before it stops the job."""

OF_ARRAYS = dict.fromkeys(
    ("redrive", "tolerated_failure_count", "tolerated_failure_percentage"),
    "is for arrays and maps, and this runs a single job; leave it out",
)
"""Parameters that a single job rejects, each with the reason."""


class AwsJobOperator(MakesObjects, TaskBase):
    """Base of the operators that start a job.

    :param aws_conn_id: Airflow connection to AWS; None for boto3's own credential chain. Default ``aws_default``, the
        only connection that need not exist.
    :param region_name: overrides the connection's region. Default None.
    :param verify: whether to verify certificates, or the CA bundle to verify them with. Default None: as the connection
        says.
    :param botocore_config: arguments for ``botocore.config.Config``. Retries, timeouts and the size of the connection
        pool are set by this package: it retries calls within the rate limit, and abandons each after the
        ``request_timeout`` setting. Default None.
    :param deferrable: wait in the triggerer (True) or in the worker (False), through the same watcher either way.
        Default ``[jobflow] deferrable``, which is True.
    :param poll_interval: seconds between two describe calls for one job. Jobs share calls, so a call may come up to a
        tenth of the interval early. Default ``[jobflow] poll_interval``, which is 10.
    :param raise_on_failure: raise an exception if the job fails. False returns its outcome instead, for a later task to
        branch on. Default True.
    :param job_timeout: seconds, or a timedelta, until the wait ends: one absolute deadline, kept through deferrals and
        restarts. ``execution_timeout`` counts too; the earlier wins. Default None: no deadline.
    :param number_logs_exception: how many of the last log lines of the failed container the error quotes. Default 20.
    :param wait_for_completion: wait until the job has ended. False returns as soon as the job is started, with
        ``state: SUBMITTED``; a sensor can then wait for the job. Default True.
    :param queued_timeout: seconds, or a timedelta, within which the job must leave the queue. Default None: no limit.
    :param cancel_on_kill: stop the job when the task is killed. Default True.
    :param cancel_on_timeout: stop the job when a deadline passes. Default True.
    :param durable: start one job for each attempt, even if a worker or triggerer crashes. The submit carries a token:
        in the job's name on Batch, as client token on ECS, as an argument of a Glue job run. The token is recorded
        before the submit, so that a retry can find the job. The retry waits for the job if it still runs, returns its
        result if it succeeded, and starts a new job only if it failed. Clearing the task starts over. False sends no
        token, and every retry starts another job. Default True.
    :param tolerated_failure_count: for an array: how many children may fail without failing the array. Default 0.
    :param tolerated_failure_percentage: the same as a percentage of the children. The limit that allows more failures
        applies. Default 0.
    :param redrive: for an array or a map: a retry runs only the children or items that have not succeeded. Default
        False: it runs all of them.
    """

    service: ClassVar[str]
    """This package's name for the service, such as ``batch``."""

    template_fields: Sequence[str] = (
        *wait_parameters.TEMPLATE_FIELDS,
        "queued_timeout",
        "tolerated_failure_count",
        "tolerated_failure_percentage",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        poll_interval: float | str | timedelta | None = None,
        raise_on_failure: bool = True,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        wait_for_completion: bool = True,
        queued_timeout: float | str | timedelta | None = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        redrive: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.raise_on_failure = raise_on_failure
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.redrive = redrive
        self._to_stop: Sequence[str] = ()
        """The jobs that this process started, and may stop."""
        self._last_seen: dict[str, Snapshot] = {}
        """Their last snapshots. A job that this process has not described is missing."""
        self._killed = False

    # The objects of the operator. Each is created when it is first used: the parameters are rendered by then.

    @abstractmethod
    def _job_spec(self) -> JobSpec:
        """Return what to start, built from the rendered parameters."""

    @cached_property
    def _spec(self) -> JobSpec:
        return self._job_spec()

    @cached_property
    def _report(self) -> TaskReport:
        return TaskReport(self, self.service)

    @cached_property
    def _jobs(self) -> RemoteJobs:
        spec = self._spec
        return RemoteJobs.of(
            self, self.service, self._report, scope=spec.scope, container=spec.container, name=spec.name
        )

    @cached_property
    def _deadlines(self) -> Deadlines:
        return wait_parameters.deadlines(self)

    @cached_property
    def _wait(self) -> JobWait:
        return JobWait.of(self, self._jobs, self._report)

    @cached_property
    def _record(self) -> AttemptRecord:
        # Without a token, a job cannot be told from a copy of it that somebody has made.
        may_be_reaped = self.durable and self.wait_for_completion and self.cancel_on_kill and self.cancel_on_timeout
        return AttemptRecord(
            self._jobs,
            self._deadlines,
            self.log,
            durable=self.durable,
            may_be_reaped=may_be_reaped and self._spec.carries_owner,
        )

    @cached_property
    def _earlier_tries(self) -> EarlierTries:
        return EarlierTries(self._spec, self._record, self._jobs, self._deadlines, self.log)

    @cached_property
    def _capacity(self) -> CapacityWait:
        queued_timeout, defers = self._queued_timeout(), wait_parameters.defers(self)
        return CapacityWait(
            self, self._spec, self._record, self._deadlines, queued_timeout=queued_timeout, defers=defers
        )

    @property
    def kept_links(self) -> dict[str, str]:
        """The known URLs of the task's link buttons, by the key of the link."""
        return self._report.kept_links

    # The parameters.

    def check(self) -> None:
        """Validate the parameters. Makes no call.

        :raises InvalidParameter: one of them is invalid, or has no effect in this operator.
        """
        wait_parameters.check(self)
        self._tolerance()
        self._queued_timeout()
        self._spec.check()
        if not self._spec.is_array:
            params.reject(self, OF_ARRAYS)

    def _tolerance(self) -> Tolerance:
        return Tolerance(
            params.integer("tolerated_failure_count", self.tolerated_failure_count, least=0),
            params.number("tolerated_failure_percentage", self.tolerated_failure_percentage, least=0, most=100),
        )

    def _queued_timeout(self) -> float | None:
        return None if self.queued_timeout is None else params.seconds("queued_timeout", self.queued_timeout)

    # Start and wait.

    def execute(self, context: Context) -> Any:
        """Start the job, and wait for it.

        :param context: Airflow's context.
        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
        :raises InvalidParameter: a parameter is invalid.
        :raises SubmissionRejected: AWS rejects the request; nothing was started.
        :raises SubmissionError: nothing was started, or it is not known whether it was; the message says which.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        self._begin_execution()
        with reporting_failures(self._report, context):
            self.check()
            self._record.begin(context)
            return self.start(context)

    def start(self, context: Context, event: object = None, attempt: Mapping[str, Any] | None = None) -> Any:
        """Continue with the job of an earlier try, or submit one, and wait for it.

        :param context: Airflow's context.
        :param event: the event of the trigger that waited for capacity, if this resumes it; not used. Default None.
        :param attempt: the attempt that waited for capacity, if this resumes it. Default None.
        :return: the outcome.
        """
        record, jobs = self._record, self._jobs
        record.resume(context, attempt)
        jobs.call_deadline = record.attempt.deadline or self._deadlines.after(time.time())

        reattached = {} if record.attempt.number else self._earlier_tries.reattach()
        job_ids = list(reattached) or self._submit_when_possible()
        self._to_stop = job_ids if record.is_own else ()
        if self._killed:
            raise self._killed_while_starting(job_ids)

        seen = self._last_seen = self._wait.initial_status(job_ids, reattached)
        if not self.wait_for_completion:
            return self._submitted(job_ids[0], seen.get(job_ids[0]))
        event = self._wait_until_ended(job_ids, seen, may_be_stuck=self.queued_timeout is not None)
        return self.execute_complete(context, event)

    def _submit_when_possible(self) -> list[str]:
        """Submit the job as soon as AWS has capacity for it, and return its ids."""
        record, jobs = self._record, self._jobs
        while not (job_ids := self._capacity.find_started(jobs)):
            self._capacity.raise_if_over(killed=self._killed)
            try:
                job_ids = list(self._spec.submit(record, jobs))
                break
            except CapacityUnavailable as full:
                self._capacity.wait(full)
        record.attempt.job_ids, record.attempt.waits_since, record.attempt.queued_at = job_ids, None, time.time()
        if not self.durable:  # the job cannot be found again
            record.save_if_possible()
        for job_id in job_ids:
            self.log.info("%s %s %s", "Started" if record.is_own else "Joined", jobs.display_name, job_id)
        return job_ids

    def _killed_while_starting(self, job_ids: Sequence[str]) -> JobStopped:
        """Stop the jobs that a killed task was just starting, if they are its own, and return the exception."""
        said = NOT_OURS
        if self._to_stop:
            self._record.abandon()
            said = self._jobs.try_to_stop(self._to_stop, KILL_REASON)
        return JobStopped(f"The task was killed while it started {self._jobs.called(job_ids)}. {said}")

    def _submitted(self, job_id: str, seen: Snapshot | None) -> dict[str, Any]:
        """Return the outcome of a task that does not wait."""
        from airflow_jobflow.jobs.model import JobState, Snapshot

        snapshot = seen or Snapshot(job_id, JobState.SUBMITTED, JobState.SUBMITTED.value)
        return self._jobs.outcome_builder.outcome(snapshot, state=JobState.SUBMITTED).to_dict()

    def _wait_until_ended(
        self, job_ids: Sequence[str], seen: Mapping[str, Snapshot], *, may_be_stuck: bool
    ) -> dict[str, Any]:
        """Wait until the jobs have ended, and return the event. If the task defers, this does not return."""
        record = self._record
        queue_deadline, queued_timeout = None, self._queued_timeout()
        if may_be_stuck and queued_timeout is not None and not any(each.left_queue for each in seen.values()):
            queue_deadline = (record.attempt.queued_at or time.time()) + queued_timeout
        returns = "outcome" if self.do_xcom_push else "nothing"
        return self._wait.until_ended(
            record.context,
            job_ids,
            seen,
            deadline=record.attempt.deadline,
            queue_deadline=queue_deadline,
            cancel_on_kill=self.cancel_on_kill and record.is_own,
            cancel_on_timeout=self.cancel_on_timeout and record.is_own,
            returns=returns if self._spec.may_end_in_triggerer(record.attempt) else None,
            defer=self._defer,
        )

    def _defer(self, trigger: WaitTrigger) -> None:
        """Defer, and stop the job if Airflow rejects that because a user cancelled the task meanwhile."""
        if self._to_stop and self.cancel_on_kill:
            stop_if_deferral_is_rejected(
                self._record,
                self.log,
                lambda: f"{self._jobs.called(self._to_stop)}: {self._jobs.try_to_stop(self._to_stop, KILL_REASON)}",
                lambda: note_stopped(self._report, self._record.context, self._last_seen),
            )
        self._wait.defer(trigger, attempt=self._record.attempt.to_dict())

    # Finish.

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Finish: return the outcome, or raise an exception.

        :param context: Airflow's context.
        :param event: the event of the trigger.
        :param attempt: the attempt, as the deferral stored it. Default None: this process has it already.
        :return: the outcome.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        record = self._record
        record.resume(context, attempt)
        event = self._wait.final_status(event)
        seen = snapshots(event)
        if event["limit"] == "queue_deadline" and any(snapshot.left_queue for snapshot in seen.values()):
            # The job left the queue after the trigger's last describe call, or while no triggerer was running.
            event = self._wait_until_ended(event["job_ids"], seen, may_be_stuck=False)
            return self.execute_complete(context, event)
        if event["limit"]:
            raise self._timed_out(event, seen)
        if self._spec.runs_again(event, record.attempt):
            return self.start(context)
        judge = partial(self._spec.outcomes, self._jobs.outcome_builder)
        try:
            outcomes = self._wait.outcomes(
                context,
                event,
                lambda ended: judge(ended, record.attempt, self._tolerance()),
                # A killed task has stopped the job itself; that outcome is always raised.
                raise_on_failure=self.raise_on_failure or self._killed,
            )
        except (WaitError, JobNotFound) as error:  # the job is not stopped: it may be running well
            raise type(error)(f"{error} {self._what_follows()}") from error
        return outcomes[0]

    def _what_follows(self) -> str:
        """Return a sentence that says what happens to a job that cannot be described."""
        if self.durable and self._record.has_next_try:
            return "The next try continues with it, if it can be described then."
        return "No try is left to wait for it: look it up in the AWS console before you start it again."

    def _timed_out(self, event: Mapping[str, Any], seen: Mapping[str, Snapshot]) -> JobflowError:
        """Stop jobs whose deadline has passed, unless the trigger has done so, and return the exception."""
        job_ids, is_stuck = event["job_ids"], event["limit"] == "queue_deadline"
        if not job_ids:  # Airflow ended the deferral, and no job of this try was found
            return timeouts.no_job_found(self._jobs, str(self._deadlines))
        stopped, position = self._stopped_by_trigger(event), ""
        if stopped is None:
            if is_stuck:
                position = self._spec.queue_position(self._jobs, seen)  # a stopped job has none
            limit = event["limit"].replace("_", " ")
            stopped = self._stop_unwanted(job_ids, f"Airflow: the {limit} of the task has passed")
        if len(seen) == 1:
            self._report.keep_links(seen.values())
        if not is_stuck:
            return timeouts.job_timeout(self._jobs, event, str(self._deadlines), stopped)
        limit, advice = f"{self._queued_timeout() or 0:g} s (queued_timeout)", self._spec.when_stuck
        return timeouts.queue_timeout(self._jobs, event, limit, stopped, position=position, advice=advice)

    def _stopped_by_trigger(self, event: Mapping[str, Any]) -> str | None:
        """Return what the trigger did to the jobs when the deadline passed; None if it did nothing."""
        left = event.get("unstopped")
        if not left and not event.get("stopped"):
            return None
        self._record.abandon()
        if not left:
            return "It was stopped."
        why = "; ".join(f"{job_id}: {message}" for job_id, message in left.items())
        defers = wait_parameters.defers(self)
        then = "The triggerer keeps trying for ten minutes" if defers else "Stop it in the console"
        reaper = "; the orphan reaper stops what is left" if self._record.may_be_reaped else ""
        return f"It could not be stopped yet ({why}). {then}{reaper}."

    def _stop_unwanted(self, job_ids: Sequence[str], reason: str) -> str:
        """Stop jobs that no try will wait for, if the task may stop them. Return a sentence that says what was done."""
        if not self._record.is_own:
            return NOT_OURS
        if not self.cancel_on_timeout:
            return "It was left running, as cancel_on_timeout=False says."
        stopped = self._jobs.try_to_stop(job_ids, reason)
        self._record.abandon()
        return stopped

    # Deferrals that Airflow ends, and kills.

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, including one that Airflow has timed out or whose trigger has failed.

        :param next_method: the method to continue with.
        :param next_kwargs: its arguments.
        :param context: Airflow's context.
        :return: what that method returns.
        """
        return resume(
            super().resume_execution,
            (next_method, next_kwargs),
            context,
            self._report,
            on_timeout=partial(self._deferral_timed_out, context),
            on_trigger_failure=partial(self._trigger_failed, context),
        )

    def _deferral_timed_out(self, context: Context) -> Method:
        self._record.resume_from_store(context)
        job_ids = self._earlier_tries.jobs_of_this_try()
        event = {"job_ids": job_ids, "jobs": {}, "errors": {}, "limit": "deadline"}
        # If it has no job yet, it was waiting for capacity, and may try to start once more.
        waited = self._record.attempt.waits_since and not job_ids
        return ("start" if waited else "execute_complete"), {"event": event}

    def _trigger_failed(self, context: Context) -> None:
        """Stop the jobs whose trigger failed if no other try follows, and log what happens to them."""
        try:
            self._record.resume_from_store(context)
            if not (job_ids := self._earlier_tries.jobs_of_this_try()):
                return
        except SubmissionError as error:
            self.log.warning("%s", error)
            return
        if self.durable and self._record.has_next_try:
            said = "The next try continues with it."
        else:
            said = self._stop_unwanted(job_ids, "Airflow: the task's trigger has failed")
        self.log.warning("The trigger that waited for %s has failed. %s", self._jobs.called(job_ids), said)

    def on_kill(self) -> None:
        """Stop the job when the worker is killed while it waits. A job that is being submitted is stopped right after.

        Airflow kills a worker process when the worker shuts down, and when a user clears the task or sets its state.
        The attempt is recorded as abandoned, so that no later try waits for its job. Airflow ends the process five
        seconds later, so only the stop may take long.
        """
        self._killed = self.cancel_on_kill
        if self._to_stop and self.cancel_on_kill:
            recording = self._record.abandon_in_thread()
            describing = threading.Thread(target=self._log_last_status, args=(self._to_stop,), daemon=True)
            describing.start()
            describing.join(FINAL_DESCRIBE_TIMEOUT)
            self._jobs.try_to_stop(self._to_stop, KILL_REASON)  # a failure is logged, and the interrupted code goes on
            noting = self._record.in_thread(lambda context: note_stopped(self._report, context, self._last_seen))
            for thread in (recording, noting):
                thread.join(ABANDONING)

    def _log_last_status(self, job_ids: Sequence[str]) -> None:
        from airflow_jobflow.aws import ONCE

        self._last_seen = {**self._last_seen, **self._jobs.describe_now(job_ids, retry=ONCE)}
        for job_id, snapshot in self._last_seen.items():
            self.log.info("%s %s: last seen %s", self._jobs.display_name, job_id, snapshot.progress())
