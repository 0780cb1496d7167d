"""Base of the operators: render, submit once, record, look, wait, finish.

Thin: how a job is submitted lies in the subclass, what its end means in ``jobs``.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import TaskDeferralError

from airflow_jobflow import params
from airflow_jobflow.airflow_compat.deferrals import call_if_deferral_rejected, timed_out
from airflow_jobflow.airflow_compat.states import DELETED, is_cancelled
from airflow_jobflow.airflow_compat.task_context import task_state_store
from airflow_jobflow.exceptions import (
    CapacityUnavailable,
    JobflowError,
    JobNotFound,
    JobStopped,
    JobTimeout,
    QueueTimeout,
    SubmissionError,
    WaitError,
)
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.operators.attempts import ABANDONING, JobStarter
from airflow_jobflow.ui.failure_report import note_stopped, reporting_failures
from airflow_jobflow.waiting import DEFERRAL_TIMEOUT_MARGIN, JobWaiter, snapshots

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.triggers.base import WaitTrigger

KILLED = "The Airflow task was killed"

NOT_OURS = "It was left running, because this task did not start it."

FINAL_DESCRIBE_TIMEOUT = 1.0
"""Seconds for which a worker that was killed waits for the last status of its job, before it stops it."""

OF_ONE_JOB = dict.fromkeys(
    ("redrive", "tolerated_failure_count", "tolerated_failure_percentage"),
    "is for arrays and maps, and this runs a single job; leave it out",
)
"""Parameters that mean nothing for a single job, and why."""

SHORTEST_CAPACITY_PAUSE, LONGEST_CAPACITY_PAUSE = 15.0, 300.0
"""Seconds before a start that found no room is made again, doubling from the first to the longest."""


class JobOperator(JobStarter):
    """Base of the operators that start a job.

    :param wait_for_completion: False returns once the job is started, with ``state: SUBMITTED``, for a sensor to
        wait on. Default True.
    :param queued_timeout: seconds, or a timedelta, in which the job must leave the queue. Default None, for ever.
    :param cancel_on_kill: stop the job when the task is killed. Default True.
    :param cancel_on_timeout: stop the job when a deadline passes. Default True.
    :param durable: start one job, whatever crashes. The submit carries a token: in the job's name on Batch, as client
        token on ECS, as an argument of a Glue job run. It is noted before, so that a retry finds what was started: it
        waits for what still runs, takes the result of what has succeeded, and starts anew only what failed; a clear
        starts over. False sends no token, looks for nothing, and a retry starts another job. Default True.
    :param tolerated_failure_count: of an array, the failed children that still count as success. Default 0.
    :param tolerated_failure_percentage: the same, as a percentage; whichever of the two allows more. Default 0.
    :param redrive: of an array or a map, a retry runs only what has not succeeded. Default False: all of it.

    The other parameters are those of :class:`airflow_jobflow.waiting.JobWaiter`.
    """

    when_stuck: ClassVar[str] = (
        "Look at the queue's compute environments: are they enabled, large enough, and able to run it?"
    )
    """What to do about a job that never left the queue."""

    NOT_HONOURED: ClassVar[Mapping[str, str]] = {}
    """Parameters that mean nothing for the operator, and why. They are rejected by name, if they are given."""

    template_fields: Sequence[str] = (
        *JobWaiter.template_fields,
        "queued_timeout",
        "tolerated_failure_count",
        "tolerated_failure_percentage",
    )

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        queued_timeout: float | str | timedelta | None = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        redrive: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.redrive = redrive
        self._to_stop: Sequence[str] = ()
        """What this process has started, and may stop."""
        self._last_seen: dict[str, Snapshot] = {}
        """What was last seen of it, as far as this process has described it."""
        self._killed = False

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        params.reject(self, self.NOT_HONOURED)
        self._tolerance()
        if self.queued_timeout is not None:
            params.seconds("queued_timeout", self.queued_timeout)

    def _tolerance(self) -> Tolerance:
        return Tolerance(
            params.integer("tolerated_failure_count", self.tolerated_failure_count, least=0),
            params.number("tolerated_failure_percentage", self.tolerated_failure_percentage, least=0, most=100),
        )

    @abstractmethod
    def submit(self, context: Context) -> Sequence[str]:
        """Start the job, once, and return its id; of what takes several jobs, their ids.

        :raises CapacityUnavailable: nothing was started, for the service has no room just now.
        """

    def check_container(self, function: Callable[..., Sequence[str] | None], definition: str, *names: str) -> None:
        """Check that the containers exist that the parameters name. Makes a call if they name one.

        :param function: returns the names of a definition's containers; None if there is no such definition.
        :param definition: what ``function`` takes.
        :param names: further names, beside ``container``'s.
        :raises InvalidParameter: the definition has no such container.
        """
        from airflow_jobflow.aws import ONCE
        from airflow_jobflow.faults import CallError

        given = [each for each in (self.container(), *names) if each is not None]
        if not given:
            return
        try:
            known = self.call(function, definition, retry=ONCE)
        except CallError as error:  # a missing permission, or what the submission is about to meet itself
            self.log.warning("Could not check whether %s has a container %s: %s", definition, ", ".join(given), error)
            return
        for name in given:
            if known is not None and name not in known:
                rule = f"must be one of the named containers of {definition}, which has {', '.join(known) or 'none'}"
                raise params.invalid_parameter("container_name", name, rule)

    @property
    def may_be_reaped(self) -> bool:
        """Whether the orphan reaper may stop the job: the task waits for it, and it is not to outlive the task."""
        # Without a token nothing proves that it is no copy that somebody else has made of the job.
        return self.durable and self.wait_for_completion and self.cancel_on_kill and self.cancel_on_timeout

    def execute(self, context: Context) -> Any:
        """Start the job, and wait for it.

        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
        :raises InvalidParameter: a parameter is wrong.
        :raises SubmissionRejected: AWS rejects the request; nothing was started.
        :raises SubmissionError: nothing was started, or it is not known whether it was; the message says which.
        :raises JobflowError: what ``airflow_jobflow.exceptions`` lists.
        """
        with reporting_failures(self, context):
            self.check()
            self.begin(context)
            return self.start(context)

    def start(self, context: Context, event: object = None, attempt: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Continue with what an earlier try has left, or submit the job, and wait for it.

        :param event: of the trigger after which it is submitted again; it has no news.
        :param attempt: the attempt that waited for capacity, if this resumes it.
        """
        if attempt is not None:
            self.resume(context, attempt)
        self.call_deadline = self.attempt.deadline or self.deadline_from_now()
        left = {} if self.attempt.number else self.previous_attempt(context)
        job_ids = list(left) or self._submit_when_possible(context)
        self._to_stop = job_ids if self.is_own() else ()
        if self._killed:
            said = NOT_OURS
            if self._to_stop:
                self.attempt.abandoned = True
                self.save_if_possible(context)
                said = self._stopped(self._to_stop, KILLED)
            names = self.outcome_builder.called(job_ids, {})
            raise JobStopped(f"The task was killed while it started {names}. {said}")
        seen = self._last_seen = self.initial_status(context, job_ids, left)
        if not self.wait_for_completion:
            return self._submitted(job_ids[0], seen.get(job_ids[0]))
        return self._wait(context, job_ids, seen, may_be_stuck=self.queued_timeout is not None)

    def _submit_when_possible(self, context: Context) -> list[str]:
        """Submit the job as soon as AWS has capacity for it, and return its ids."""
        while True:
            if self.attempt.waits_since and (job_ids := self._find_started(context)):
                break
            self._raise_if_cancelled()
            try:
                job_ids = list(self.submit(context))
                break
            except CapacityUnavailable as full:
                self._wait_for_capacity(full)
        self.attempt.job_ids, self.attempt.waits_since, self.attempt.queued_at = job_ids, None, time.time()
        if not self.durable:  # the job cannot be found again
            self.save_if_possible(context)
        verb = "Started" if self.is_own() else "Joined"
        for job_id in job_ids:
            self.log.info("%s %s %s", verb, self.service_module.DISPLAY_NAME, job_id)
        return job_ids

    def _find_started(self, context: Context) -> list[str]:
        """Return the job that this attempt has started, although AWS seemed to have no capacity for it.

        :raises SubmissionError: it cannot be found out.
        """
        from airflow_jobflow.faults import CallError

        try:
            found = self.call(self.find_started, context) if self.durable else None
        except CallError as error:
            raise SubmissionError(
                f"{self.attempt.no_capacity} It was not started again, because it could not be checked whether it was "
                f"started all the same: {sentence(str(error))} The next try checks that first."
            ) from error
        return [found] if found else []

    def _raise_if_cancelled(self) -> None:
        """Give up if the deadline has passed, or the task was killed, while AWS had no capacity.

        :raises JobTimeout, JobStopped: nothing was started.
        """
        attempt = self.attempt
        if not attempt.waits_since:
            return
        if self._killed:
            raise JobStopped(f"{attempt.no_capacity} The task was killed while it waited; nothing was started.")
        if time.time() >= (attempt.deadline or float("inf")):
            raise JobTimeout(self._never_started(attempt.no_capacity, self.limit_named()))

    def _wait_for_capacity(self, full: CapacityUnavailable) -> None:
        """Wait a while before a start that found no capacity is repeated, in the triggerer or here.

        :raises JobTimeout, QueueTimeout: the time for that has passed.
        """
        attempt, now = self.attempt, time.time()
        attempt.waits_since = attempt.waits_since or now
        attempt.starts += 1
        attempt.no_capacity = str(full)
        limit, kind = self._turn_limit(attempt.deadline, attempt.waits_since)
        if now >= limit:
            which = self.limit_named() if kind is JobTimeout else self._queue_limit()
            raise kind(self._never_started(str(full), which))
        until = min(
            now + min(SHORTEST_CAPACITY_PAUSE * 2.0 ** min(attempt.starts - 1, 10), LONGEST_CAPACITY_PAUSE), limit
        )
        self.log.info("%s Starting it again in %.0f s (attempt %d)", full, until - now, attempt.starts + 1)
        if self.defers:
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger

            from airflow_jobflow.triggers.base import MIN_DEFERRAL

            trigger = DateTimeTrigger(datetime.fromtimestamp(until, tz=UTC))
            if until - now >= MIN_DEFERRAL:
                if self._context is not None:  # Airflow drops what a deferral carries, if it ends it itself
                    self.save_if_possible(self._context)
                self.defer(
                    trigger=trigger,
                    method_name="start",
                    kwargs={"attempt": attempt.to_dict()},
                    timeout=timedelta(seconds=until - now + DEFERRAL_TIMEOUT_MARGIN),
                )
        time.sleep(until - now)

    def _never_started(self, why: str, limit: str) -> str:
        """Return the message of a task that could not start its job before a deadline.

        :param limit: the deadline's parameter and seconds.
        """
        starts = self.attempt.starts
        times = "once" if starts == 1 else f"{starts} times"
        return f"{why} It was tried {times} within {limit}, and nothing was started. Give it more time."

    def _queue_limit(self) -> str:
        return f"{params.seconds('queued_timeout', self.queued_timeout):g} s (queued_timeout)"

    def _turn_limit(self, deadline: float | None, since: float) -> tuple[float, type[JobflowError]]:
        """Return when waiting for a turn must end, and what is raised then."""
        limits: list[tuple[float, type[JobflowError]]] = [(deadline or float("inf"), JobTimeout)]
        if self.queued_timeout is not None:
            limits.append((since + params.seconds("queued_timeout", self.queued_timeout), QueueTimeout))
        return min(limits, key=lambda limit: limit[0])

    def _wait(
        self, context: Context, job_ids: Sequence[str], seen: Mapping[str, Snapshot], *, may_be_stuck: bool
    ) -> Any:
        queue_deadline = None
        if may_be_stuck and not any(snapshot.left_queue for snapshot in seen.values()):
            since = self.attempt.queued_at or time.time()
            queue_deadline = since + params.seconds("queued_timeout", self.queued_timeout)
        return self.wait_for(
            context,
            job_ids,
            seen,
            deadline=self.attempt.deadline,
            queue_deadline=queue_deadline,
            cancel_on_kill=self.cancel_on_kill and self.is_own(),
            cancel_on_timeout=self.cancel_on_timeout and self.is_own(),
        )

    def resume_arguments(self) -> dict[str, Any]:
        """Return what the task needs when it is resumed."""
        return {"attempt": self.attempt.to_dict()}

    def again(self, context: Context, event: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Say whether what has ended is to be started once more within this try of the task."""
        return False

    def _submitted(self, job_id: str, seen: Snapshot | None) -> dict[str, Any]:
        from airflow_jobflow.jobs.model import JobState, Snapshot

        snapshot = seen or Snapshot(job_id, JobState.SUBMITTED, JobState.SUBMITTED.value)
        return self.outcome_builder.outcome(snapshot, state=JobState.SUBMITTED).to_dict()

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Finish: return the outcome, or raise what has gone wrong.

        :param event: what the trigger has seen.
        :param attempt: what the deferral carried.
        """
        if attempt is not None:
            self.resume(context, attempt)
        event = self.final_status(event)
        seen = snapshots(event)
        if event["limit"] == "queue_deadline" and any(snapshot.left_queue for snapshot in seen.values()):
            # It left the queue after the trigger's last look, or no triggerer lived to see it.
            return self._wait(context, event["job_ids"], seen, may_be_stuck=False)
        if event["limit"]:
            raise self._given_up(context, event)
        if self.again(context, event):
            return self.start(context)
        try:
            return self.conclude(context, event, self._tolerance())[0]
        except (WaitError, JobNotFound) as error:  # no reason to stop the job, which may be well
            raise type(error)(f"{error} {self._what_follows(context)}") from error

    def raises_failures(self) -> bool:
        """Return whether a failure is raised: that of a job which this task has stopped is no outcome to return."""
        return super().raises_failures() or self._killed

    def _what_follows(self, context: Context) -> str:
        """Say what becomes of a job that cannot be described."""
        if self._has_next_try(context):
            return "The next try continues with it, if it can be described then."
        return "No try is left to wait for it: look it up in the AWS console before you start it again."

    def _has_next_try(self, context: Context) -> bool:
        """Return whether another try of the task may continue with the job."""
        ti = context["ti"]
        return self.durable and ti.try_number <= (ti.max_tries or 0)

    def _let_go(self, context: Context, job_ids: Sequence[str]) -> str:
        """Stop the jobs of a trigger that has failed, unless the next try continues with them; say what was done."""
        if self._has_next_try(context):
            return "The next try continues with it."
        return self._stop_unwanted(context, job_ids, "Airflow: the task's trigger has failed")

    def _stop_unwanted(self, context: Context, job_ids: Sequence[str], reason: str) -> str:
        """Stop what nobody will wait for, as far as the task may, and say what was done."""
        if not self.is_own():
            return NOT_OURS
        if not self.cancel_on_timeout:
            return "It was left running, as cancel_on_timeout=False says."
        stopped = self._stopped(job_ids, reason)
        self.attempt.abandoned = True
        self.save_if_possible(context)
        return stopped

    def _stopped_by_trigger(self, context: Context, event: Mapping[str, Any]) -> str | None:
        """Return what the trigger did to the jobs when the deadline passed; None if it did nothing."""
        left = event.get("unstopped")
        if not left and not event.get("stopped"):
            return None
        self.attempt.abandoned = True
        self.save_if_possible(context)
        if not left:
            return "It was stopped."
        why = "; ".join(f"{job_id}: {message}" for job_id, message in left.items())
        then = "The triggerer keeps trying for ten minutes" if self.defers else "Stop it in the console"
        reaper = "; the orphan reaper stops what is left" if self.may_be_reaped else ""
        return f"It could not be stopped yet ({why}). {then}{reaper}."

    def _given_up(self, context: Context, event: Mapping[str, Any]) -> JobflowError:
        """Stop a job whose deadline has passed, and say how far it came."""
        job_ids, seen = event["job_ids"], snapshots(event)
        if not job_ids:  # Airflow has ended the deferral, and no job of this try was found
            noun = self.service_module.DISPLAY_NAME
            return JobTimeout(
                f"The task timed out after {self.limit_named()}, and no {noun} of this try was found (asked with "
                f"{self.origin()}). Nothing was stopped. Look for it in the AWS console before you start it again."
            )
        stopped, stands = self._stopped_by_trigger(context, event), ""
        if stopped is None:
            if event["limit"] == "queue_deadline":
                stands = self.queue_position(seen)  # a job that was stopped has none
            limit = event["limit"].replace("_", " ")
            stopped = self._stop_unwanted(context, job_ids, f"Airflow: the {limit} of the task has passed")
        outcomes = [self.outcome_builder.outcome(snapshot).to_dict() for snapshot in seen.values()]
        if len(seen) == 1:
            self.keep_links(context, seen.values())
        outcome = next(iter(outcomes), None) if len(job_ids) == 1 else outcomes
        outcome_builder = self.outcome_builder
        what = outcome_builder.called(
            job_ids, seen, unseen=f"not described since it was started (asked with {self.origin()})"
        )
        if event["limit"] == "queue_deadline":
            outcome_builder = replace(outcome_builder, log_lines=0)  # what never ran wrote nothing
            first = f"{what}, did not leave the queue within {self._queue_limit()}. {stands}{stopped} {self.when_stuck}"
        else:
            first = f"{what}, did not end within {self.limit_named()}. {stopped} Give it more time, or make it faster."
        shown = outcome_builder.evidence(next(iter(seen.values()))) if len(seen) == len(job_ids) == 1 else []
        error = QueueTimeout if event["limit"] == "queue_deadline" else JobTimeout
        return error("\n".join([first, *shown]), outcome=outcome)

    def queue_position(self, seen: Mapping[str, Snapshot]) -> str:  # noqa: ARG002
        """Say where in the queue the jobs stand, as a sentence; nothing where the service does not tell."""
        return ""

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral; one that Airflow itself timed out, because no triggerer ran, ends the same way."""
        if timed_out(next_method, next_kwargs):
            job_ids = self._jobs_of_this_try(context)
            event = {"job_ids": job_ids, "jobs": {}, "errors": {}, "limit": "deadline"}
            # Without a job it waited for capacity, and may try once more.
            waited = self.attempt.waits_since and not job_ids
            next_method, next_kwargs = ("start" if waited else "execute_complete"), {"event": event}
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralError:  # the trigger itself has failed
            try:
                self.trigger_failed(context)
            except SubmissionError as error:
                self.log.warning("%s", error)
            raise

    def trigger_failed(self, context: Context) -> None:
        """Log what becomes of the jobs whose trigger has failed, and stop them if nobody will wait for them."""
        if job_ids := self._jobs_of_this_try(context):
            jobs = self.outcome_builder.called(job_ids, {})
            self.log.warning("The trigger has failed that waited for %s. %s", jobs, self._let_go(context, job_ids))

    def _jobs_of_this_try(self, context: Context) -> list[str]:
        """Return the jobs that this try waits for, if Airflow has dropped what the deferral carried.

        :raises SubmissionError: they cannot be found out.
        """
        from airflow_jobflow.faults import CallError

        self.resume(context, None)
        is_recorded = task_state_store(context) is not None
        try:
            if not self.durable or self.attempt.job_ids:
                pass
            elif not is_recorded:
                this_try = self.this_try(context)
                found = self.call(self.find_group, context, self.attempt)
                self.attempt.job_ids = [each.job.job_id for each in found if each.by == this_try]
            elif self.attempt.number:
                started = self.call(self.find_started, context)
                self.attempt.job_ids = [started] if started else []
        except CallError as error:
            raise SubmissionError(
                f"The {self.service_module.DISPLAY_NAME} of this try could not be looked up, and may still run "
                f"(asked with {self.origin()}): {error}"
            ) from error
        return self.attempt.job_ids

    def _stopped(self, job_ids: Sequence[str], reason: str) -> str:
        """Stop jobs, and say whether that could be done."""
        from airflow_jobflow.faults import CallError

        try:
            self.stop(job_ids, reason)
        except CallError as error:
            return f"It could not be stopped, so stop it in the console: {sentence(str(error))}"
        return "It was stopped."

    def defer_to(self, trigger: WaitTrigger) -> None:
        """Defer, and stop the job if Airflow rejects that because a user cancelled the task meanwhile."""
        if self.defers and self.has_started and self.cancel_on_kill and self._context is not None:
            call_if_deferral_rejected(self._context["ti"], self._stop_if_cancelled)
        super().defer_to(trigger)

    @property
    def has_started(self) -> bool:
        """Whether there is something that a kill has to stop before the task is deferred."""
        return bool(self._to_stop)

    def stop_started(self) -> str:
        """Stop what was started, because the task was killed; return what was done, for the log."""
        return f"{self.outcome_builder.called(self._to_stop, {})}: {self._stopped(self._to_stop, KILLED)}"

    def _stop_if_cancelled(self, state: str | None) -> None:
        """Stop the job if a user cancelled the task before it was deferred."""
        if not is_cancelled(state):
            return  # the next try continues with the job, or decides about it
        self.log.warning("The task is %s: it was cancelled before it could be deferred", state)
        if self._context is not None and state != DELETED:
            self.attempt.abandoned = True
            self.save_if_possible(self._context)
        self.log.warning("%s", self.stop_started())
        if self._context is not None and state != DELETED:
            note_stopped(self, self._context, self._last_seen)

    def on_kill(self) -> None:
        """Stop the job when the worker is told to end while it waits here; one that is being submitted, right after.

        Airflow tells a worker so when it is shut down, and when a person clears the task or ends it. What is stopped is
        marked, so that no later try waits for it. Five seconds later Airflow kills the process, so nothing here waits
        for anything but the stop.
        """
        self._killed = self.cancel_on_kill
        if self._to_stop and self.cancel_on_kill:
            recording = self.abandon()
            looking = threading.Thread(target=self._log_last_status, args=(self._to_stop,), daemon=True)
            looking.start()
            looking.join(FINAL_DESCRIBE_TIMEOUT)
            self._stopped(self._to_stop, KILLED)  # what cannot be stopped is logged: what is interrupted goes on
            noting = self.in_thread(lambda context: note_stopped(self, context, self._last_seen))
            for thread in (recording, noting):
                thread.join(ABANDONING)

    def _log_last_status(self, job_ids: Sequence[str]) -> None:
        from airflow_jobflow.aws import ONCE

        self._last_seen = {**self._last_seen, **self.look(job_ids, retry=ONCE)}
        for job_id, snapshot in self._last_seen.items():
            self.log.info("%s %s: last seen %s", self.service_module.DISPLAY_NAME, job_id, snapshot.progress())
