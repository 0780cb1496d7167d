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

from airflow.sdk.exceptions import TaskDeferralTimeout

from airflow_jobflow import checks
from airflow_jobflow.exceptions import JobflowError, JobStuck, JobTimedOut
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.waiting import JobWaiter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot

RECORD = "jobflow"
"""Key in the task state store under which a task notes what it has started."""


class JobOperator(JobWaiter):
    """Base of the operators that start a job.

    :param wait_for_completion: False returns once the job is started, with ``state: SUBMITTED``, for a sensor to
        wait on. Default True.
    :param queued_timeout: seconds, or a timedelta, in which the job must leave the queue. Default None, for ever.
    :param cancel_on_kill: stop the job when the task is killed. Default True.
    :param cancel_on_timeout: stop the job when a deadline passes. Default True.
    :param durable: the job's name carries a token, by which a job is found again whose submit got no answer. False
        sends the name as it is and looks nothing up. Default True.
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
        :raises SubmissionError, SubmissionRefused: nothing was started.
        :raises JobflowError: what ``airflow_jobflow.exceptions`` lists.
        """
        self.check()
        deadlines = self._deadlines()
        self.record(context, attempt=0, deadline=time.time() + min(deadlines.values()) if deadlines else None)
        return self.start(context)

    def start(self, context: Context) -> Any:
        """Submit the job, note its id before anything else, and wait for it."""
        self._job_id = job_id = self.submit(context)
        self.record(context, job_id=job_id)
        self.log.info("Started %s %s", self.jobs.NOUN, job_id)
        seen = self.first_look(context, [job_id])
        if not self.wait_for_completion:
            return self._submitted(job_id, seen.get(job_id))
        queued = None if self.queued_timeout is None else checks.seconds("queued_timeout", self.queued_timeout)
        return self.wait_for(
            context,
            [job_id],
            seen,
            deadline=self.recorded(context)["deadline"],
            queue_deadline=None if queued is None else time.time() + queued,
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
        return self.outcome(snapshot, state=JobState.SUBMITTED).to_dict()

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish: return the outcome, or raise what has gone wrong."""
        event = self.last_look(event)
        if event["limit"]:
            raise self._given_up(event)
        if self.again(context, event):
            return self.start(context)
        return self.conclude(context, event, self._tolerance())[0]

    def _given_up(self, event: Mapping[str, Any]) -> JobflowError:
        """Stop a job whose deadline has passed, and say how far it came."""
        from airflow_jobflow.jobs.model import Snapshot

        job_id = event["job_ids"][0]
        seen = Snapshot.from_dict(event["jobs"][job_id]) if job_id in event["jobs"] else None
        how_far = f"last seen {seen.progress()}" if seen else "never seen by DescribeJobs"
        stopped = "It was left running, as cancel_on_timeout=False says."
        if self.cancel_on_timeout:
            self.stop(job_id, f"Airflow: the {event['limit'].replace('_', ' ')} of the task has passed")
            stopped = "It was stopped."
        outcome = self.outcome(seen).to_dict() if seen else None
        if event["limit"] == "queue_deadline":
            return JobStuck(
                f"{self.jobs.NOUN} {job_id} did not leave the queue within queued_timeout={self.queued_timeout}: "
                f"{how_far}. {stopped} Look at the queue's compute environments: are they enabled, large enough, "
                "and of a kind that can run it?",
                outcome=outcome,
            )
        name = min(self._deadlines(), key=self._deadlines().__getitem__, default="job_timeout")
        return JobTimedOut(
            f"{self.jobs.NOUN} {job_id} had not ended within {name}={getattr(self, name)}: {how_far}. {stopped} "
            "Give it more time, or make it faster.",
            outcome=outcome,
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself has timed out, for want of a triggerer, ends the same way."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            event = {"job_ids": [self.recorded(context)["job_id"]], "jobs": {}, "errors": {}, "limit": "deadline"}
            return self.execute_complete(context, event)

    def stop(self, job_id: str, reason: str) -> None:
        """Stop a job; one that has ended already stays as it is."""
        self.log.info("Stopping %s %s: %s", self.jobs.NOUN, job_id, reason)
        self.jobs.stop(self.client(), job_id, self.scope(), reason)

    def on_kill(self) -> None:
        """Stop the job when the worker is told to end while it waits, or submits, here."""
        if self._job_id and self.cancel_on_kill:
            for snapshot in self.look([self._job_id]).values():
                self.log.info("%s %s: last seen %s", self.jobs.NOUN, self._job_id, snapshot.progress())
            self.stop(self._job_id, "The Airflow task was killed")
