"""The attempt of a task to start its job: its identity, and its record for later tries.

An attempt needs no record to be found again: its job carries the group of the task instance, and the try. Airflow's
task state store records, before anything is started, what cannot be computed: where the job is started, in case a later
try names another queue or region, and the token. Through a deferral, the attempt travels with the task.

Invariants:

- Nothing is started before its location is recorded, if there is a store.
- A token belongs to one attempt, and an attempt that is made once more keeps its token.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.airflow_compat.task_context import clear_number, task_state_store
from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.owner import Owner
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.operators.inputs import NO_INPUTS, JobInputs

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs

RECORD = "jobflow"
"""Key in the task state store of the record of the last try."""


@dataclass(eq=False, repr=False)
class AttemptRecord:
    """The attempt that a try of a task makes, and its record for later tries.

    :param jobs: the jobs of the task in AWS.
    :param deadlines: the time limits of the task.
    :param log: the task's log.
    :param durable: whether the job is found again, see :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param may_be_reaped: whether the orphan reaper may stop the job once the task has ended.
    :param left_at_deadline: whether a job whose deadline passes is left running: ``cancel_on_timeout=False``.
    :param inputs: what the job gets in addition to its parameters: variables, and the address for its result.
    """

    jobs: RemoteJobs
    deadlines: Deadlines
    log: Any
    durable: bool
    may_be_reaped: bool
    left_at_deadline: bool = False
    inputs: JobInputs = NO_INPUTS
    attempt: Attempt = field(default_factory=Attempt)
    """The attempt that this try makes, or waits for."""
    is_repeated: bool = False
    """Whether the recorded attempt is repeated, because it started nothing."""
    before_submit: Callable[[Call], str | None] = lambda _: None
    """Called before each submit: returns the job if it was started already, for example by another triggerer."""
    context: Context = field(init=False)
    """Airflow's context, once a try has begun."""
    this_try: Try = field(init=False)
    """The current try."""
    is_first_try: bool = field(init=False)
    """Whether that is the first try of the task instance."""
    owner: Owner = field(init=False)
    """The owner that the job carries."""
    store: Any = field(init=False)
    """Airflow's task state store; None on Airflow 3.2, which has none."""
    _resolved_location: str = ""

    # The try.

    def begin(self, context: Context, attempt: Mapping[str, Any] | None = None) -> None:
        """Begin to start the job. From now on, calls are not repeated after the deadline.

        :param context: Airflow's context.
        :param attempt: the attempt that waited for capacity, if this resumes it. Default None.
        """
        self.resume(context, attempt)
        self.jobs.call_deadline = self.attempt.deadline or self.deadlines.after(time.time())

    def resume(self, context: Context, attempt: Mapping[str, Any] | None) -> None:
        """Continue a try after a deferral.

        :param context: Airflow's context.
        :param attempt: the attempt that the deferral carried; None if this process has it already.
        """
        ti = context["ti"]
        self.context, self.store = context, task_state_store(context)
        self.this_try = Try(ti.try_number, ti.max_tries or 0, clear_number(context))
        self.is_first_try = ti.try_number <= 1
        self.owner = Owner(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            reap=self.may_be_reaped,
            deployment=conf.get("jobflow", "deployment_id", fallback="") or "",
        )
        if attempt is not None:
            self.attempt = Attempt.from_dict(attempt)

    def resume_from_store(self, context: Context) -> None:
        """Continue a try whose deferral failed: Airflow drops what it carried.

        :param context: Airflow's context.
        :raises SubmissionError: the task state store cannot be read.
        """
        self.resume(context, None)
        self.attempt = self.stored()

    @property
    def next_try_continues(self) -> bool:
        """Whether another try of the task may follow and look for the job."""
        return self.durable and self.this_try.try_number <= self.this_try.max_tries

    @property
    def is_own(self) -> bool:
        """Whether this task started the job, so that it may stop it, and did not only join it."""
        return not self.attempt.joined

    @property
    def group(self) -> str:
        """The group of the jobs of this attempt."""
        return self.attempt.group or self.owner.group

    @property
    def location(self) -> str:
        """Where this task starts jobs. Jobs elsewhere cannot be described from here.

        The region is resolved, so that naming the connection's own region changes nothing. Timeouts and other settings
        of the connection may change from try to try.

        :raises SubmissionError: the region cannot be resolved.
        """
        from airflow_jobflow.faults import CallError

        if not self._resolved_location:
            jobs = self.jobs
            scope = (jobs.scope or "").rpartition("/")[2]
            try:
                region = jobs.region
            except CallError as error:
                raise SubmissionError(
                    f"Nothing was started, because the AWS connection {jobs.access} could not be used: "
                    f"{sentence(str(error))} Check aws_conn_id and region_name, or the role of the worker."
                ) from error
            self._resolved_location = " ".join(filter(None, (jobs.service, scope, jobs.access.aws_conn_id, region)))
        return self._resolved_location

    # The record.

    def new_attempt(self, **members: Any) -> str:
        """Record that an attempt begins, before anything is submitted; return its token.

        A start that met no capacity, or started nothing, is still the same attempt. The deadline is that of the first
        attempt of a try.

        :param members: further members of ``Attempt``.
        :raises SubmissionError: it cannot be recorded, so nothing may be started.
        """
        now = self.attempt
        if now.waits_since and now.token:
            return now.token
        follows = now.number and not self.is_repeated
        members = {"changes": now.changes, "changed_after": now.changed_after, **members}
        self.attempt = Attempt(
            number=now.number,
            clear_number=self.this_try.clear_number,
            group=self.owner.group,
            location=self.location,
            began_at=now.began_at if self.is_repeated else time.time(),
            deadline=now.deadline if follows else self.jobs.call_deadline,
            **members,
        )
        if self.is_repeated:
            self.attempt.token, self.attempt.number = now.token, max(now.number, 1)
        else:
            self.attempt.follow(str(self.context["ti"].id))
        self.is_repeated = False
        self.save()
        return self.attempt.token

    def continue_attempt(self, queued_timeout: float | None = None) -> None:
        """Give a job that an earlier try left running at a deadline the full time limits of this try.

        :param queued_timeout: seconds within which it must leave the queue. Default None: no limit.
        """
        attempt, now = self.attempt, time.time()
        if not self.left_at_deadline:
            return
        if attempt.deadline is not None and attempt.deadline <= now:
            attempt.deadline = self.jobs.call_deadline
        if queued_timeout is not None and (attempt.queued_at or now) + queued_timeout <= now:
            attempt.queued_at = now

    def next_token(self) -> str:
        """Give the attempt another token, because AWS accepts its own no more, and record it.

        :raises SubmissionError: it cannot be recorded.
        """
        token = self.attempt.follow(str(self.context["ti"].id))
        self.save()
        return token

    def save(self) -> None:
        """Record the attempt for later tries.

        :raises SubmissionError: the task state store cannot be written.
        """
        try:
            if self.store is not None:
                self.store.set(RECORD, self.attempt.to_dict())
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"The attempt could not be recorded in Airflow's task state store, so nothing was started: {error}"
                ) from error
            self.log.warning("The task state store could not be written: %s", error)

    def save_if_possible(self) -> None:
        """Record what a later try can do without, because it finds the job by its group."""
        try:
            self.save()
        except SubmissionError as error:
            self.log.warning("The state of the attempt could not be recorded: %s", error.__cause__)

    def stored(self) -> Attempt:
        """Return the record of the last try.

        :raises SubmissionError: the task state store cannot be read.
        """
        try:
            return Attempt.from_dict(None if self.store is None else self.store.get(RECORD))
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"Airflow's task state store could not be read, so nothing was started: {error}"
                ) from error
            self.log.warning("The task state store could not be read: %s", error)
            return Attempt()

    def abandon(self) -> None:
        """Record that the job was abandoned, so that no later try waits for it."""
        self.attempt.abandoned = True
        self.save_if_possible()

    def abandon_in_thread(self) -> threading.Thread:
        """Do the same in a thread, which is returned."""
        self.attempt.abandoned = True
        return self.in_thread(lambda _: self.save_if_possible())

    def in_thread(self, work: Callable[[Context], object]) -> threading.Thread:
        """Call Airflow from a signal handler: in a thread, which is returned.

        The interrupted code may hold the connection to Airflow.

        :param work: called with the context.
        """
        thread = threading.Thread(target=work, args=(self.context,), daemon=True)
        thread.start()
        return thread
