"""Base of the operators: render, submit once, record, look, wait, finish.

Thin: how a job is submitted lies in the subclass, what its end means in ``jobs``.
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_jobflow import checks
from airflow_jobflow.exceptions import JobflowError, JobStopped, JobStuck, JobTimedOut
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.waiting import JobWaiter, snapshots, timed_out

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot

KILLED = "The Airflow task was killed"

RECORD = "jobflow"
"""Key in the task state store under which a task notes what it has started."""


class JobOperator(JobWaiter):
    """Base of the operators that start a job.

    :param wait_for_completion: False returns once the job is started, with ``state: SUBMITTED``, for a sensor to
        wait on. Default True.
    :param queued_timeout: seconds, or a timedelta, in which the job must leave the queue. Default None, for ever.
    :param cancel_on_kill: stop the job when the task is killed. Default True.
    :param cancel_on_timeout: stop the job when a deadline passes. Default True.
    :param durable: the submit carries a token, by which it starts one job also where its answer is lost: part of the
        job's name on Batch, which is looked up; the client token on ECS. False sends none. Default True.
    :param tolerated_failure_count: of an array, the failed children that still count as success. Default 0.
    :param tolerated_failure_percentage: the same, as a percentage; whichever of the two allows more. Default 0.

    The other parameters are those of :class:`airflow_jobflow.waiting.JobWaiter`.
    """

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
        durable: bool = True,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self._job_id: str | None = None
        self._killed = False

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        self._tolerance()
        if self.queued_timeout is not None:
            checks.seconds("queued_timeout", self.queued_timeout)

    def _tolerance(self) -> Tolerance:
        return Tolerance(
            checks.whole("tolerated_failure_count", self.tolerated_failure_count, least=0),
            checks.number("tolerated_failure_percentage", self.tolerated_failure_percentage, least=0, most=100),
        )

    @abstractmethod
    def submit(self, context: Context) -> str:
        """Start the job, once, and return its id."""

    def execute(self, context: Context) -> Any:
        """Start the job, and wait for it.

        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
        :raises InvalidParameter: a parameter is wrong.
        :raises SubmissionRefused: nothing was started.
        :raises SubmissionError: nothing was started, or it is not known whether it was; the message says which.
        :raises JobflowError: what ``airflow_jobflow.exceptions`` lists.
        """
        self.check()
        self.record(context, attempt=0, deadline=self.deadline_from_now())
        return self.start(context)

    def start(self, context: Context) -> Any:
        """Submit the job, note its id before anything else, and wait for it."""
        self._job_id = job_id = self.submit(context)
        self.record(context, job_id=job_id)
        self.log.info("Started %s %s", self.service_module.NOUN, job_id)
        if self._killed:
            self.stop(job_id, KILLED)
            raise JobStopped(f"{self.service_module.NOUN} {job_id} was stopped: the task was killed while it started")
        seen = self.first_look(context, [job_id])
        if not self.wait_for_completion:
            return self._submitted(job_id, seen.get(job_id))
        return self._wait(context, job_id, seen, may_be_stuck=self.queued_timeout is not None)

    def _wait(self, context: Context, job_id: str, seen: Mapping[str, Snapshot], *, may_be_stuck: bool) -> Any:
        queue_deadline = None
        if may_be_stuck and not any(snapshot.left_queue for snapshot in seen.values()):
            queue_deadline = time.time() + checks.seconds("queued_timeout", self.queued_timeout)
        return self.wait_for(
            context,
            [job_id],
            seen,
            deadline=self.recorded(context).get("deadline"),
            queue_deadline=queue_deadline,
            cancel_on_kill=self.cancel_on_kill,
        )

    def new_attempt(self, context: Context) -> tuple[str, int]:
        """Note, before anything is submitted, that a new attempt begins; return its nonce and its number, from 1."""
        nonce, attempt = secrets.token_hex(4), self.recorded(context)["attempt"] + 1
        self.record(context, nonce=nonce, attempt=attempt, max_tries=context["ti"].max_tries, job_id=None)
        return nonce, attempt

    def again(self, context: Context, event: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Say whether what has ended is to be started once more within this try of the task."""
        return False

    def record(self, context: Context, **what: Any) -> None:
        """Note in the task state store what this try of the task has started, beside what it has noted before."""
        store = context["task_state_store"]
        store.set(RECORD, {**self.recorded(context), **what})

    def recorded(self, context: Context) -> dict[str, Any]:
        """Return what has been noted by this task instance, in this try or an earlier one."""
        noted = context["task_state_store"].get(RECORD)
        return dict(noted) if isinstance(noted, Mapping) else {}

    def _submitted(self, job_id: str, seen: Snapshot | None) -> dict[str, Any]:
        from airflow_jobflow.jobs.model import JobState, Snapshot

        snapshot = seen or Snapshot(job_id, JobState.SUBMITTED, JobState.SUBMITTED.value)
        return self.judge.outcome(snapshot, state=JobState.SUBMITTED).to_dict()

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish: return the outcome, or raise what has gone wrong."""
        event = self.last_look(event)
        seen = snapshots(event)
        if event["limit"] == "queue_deadline" and any(snapshot.left_queue for snapshot in seen.values()):
            # It left the queue after the trigger's last look, or no triggerer lived to see it.
            return self._wait(context, event["job_ids"][0], seen, may_be_stuck=False)
        if event["limit"]:
            raise self._given_up(event)
        if self.again(context, event):
            return self.start(context)
        return self.conclude(context, event, self._tolerance())[0]

    def _given_up(self, event: Mapping[str, Any]) -> JobflowError:
        """Stop a job whose deadline has passed, and say how far it came."""
        job_id = event["job_ids"][0]
        seen = snapshots(event).get(job_id)
        how_far = f"last seen {seen.progress()}" if seen else "not seen since it was started"
        stopped = "It was left running, as cancel_on_timeout=False says."
        if self.cancel_on_timeout:
            stopped = self._stopped(job_id, f"Airflow: the {event['limit'].replace('_', ' ')} of the task has passed")
        outcome = self.judge.outcome(seen).to_dict() if seen else None
        what = f"{self.service_module.NOUN} {job_id}"
        if event["limit"] == "queue_deadline":
            return JobStuck(
                f"{what} did not leave the queue within queued_timeout={self.queued_timeout}: {how_far}. {stopped} "
                "Look at the queue's compute environments: are they enabled, large enough, and able to run it?",
                outcome=outcome,
            )
        name, _ = self.first_limit() or ("job_timeout", 0)
        return JobTimedOut(
            f"{what} had not ended within {name}={getattr(self, name)}: {how_far}. {stopped} "
            "Give it more time, or make it faster.",
            outcome=outcome,
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself timed out, for want of a triggerer, ends the same way."""
        if timed_out(next_method, next_kwargs):
            event = {"job_ids": [self.recorded(context)["job_id"]], "jobs": {}, "errors": {}, "limit": "deadline"}
            next_method, next_kwargs = "execute_complete", {"event": event}
        return super().resume_execution(next_method, next_kwargs, context)

    def _stopped(self, job_id: str, reason: str) -> str:
        """Stop a job, and say whether that could be done."""
        from airflow_jobflow.aws import no_answer

        try:
            self.stop(job_id, reason)
        except no_answer() as error:
            return f"It could not be stopped ({error}): stop it in the console."
        return "It was stopped."

    def stop(self, job_id: str, reason: str) -> None:
        """Stop a job; one that has ended already stays as it is."""
        self.log.info("Stopping %s %s: %s", self.service_module.NOUN, job_id, reason)
        self.service_module.stop(self.client(), job_id, self.scope(), reason)

    def on_kill(self) -> None:
        """Stop the job when the worker is told to end while it waits here; one that is being submitted, right after."""
        self._killed = self.cancel_on_kill
        if self._job_id and self.cancel_on_kill:
            for snapshot in self.look([self._job_id]).values():
                self.log.info("%s %s: last seen %s", self.service_module.NOUN, self._job_id, snapshot.progress())
            self.stop(self._job_id, KILLED)
