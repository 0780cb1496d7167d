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
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.airflow_compat.task_context import clear_number, task_state_store
from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.owner import Owner
from airflow_jobflow.jobs.wording import sentence

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs

RECORD = "jobflow"
"""Key in the task state store of the record of the last try."""

ABANDONING = 5.0
"""Seconds that a killed task takes to record that it was killed, beside stopping its job."""


class AttemptRecord:
    """The attempt that a try of a task makes, and its record for later tries.

    :param jobs: the jobs of the task in AWS.
    :param deadlines: the time limits of the task.
    :param log: the task's log.
    :param durable: whether the job is found again, see :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param may_be_reaped: whether the orphan reaper may stop the job once the task has ended.
    """

    def __init__(
        self,
        jobs: RemoteJobs,
        deadlines: Deadlines,
        log: Any,
        *,
        durable: bool,
        may_be_reaped: bool,
    ) -> None:
        self.attempt = Attempt()
        """The attempt that this try makes, or waits for."""
        self.durable = durable
        self.may_be_reaped = may_be_reaped
        self.is_repeated = False
        """Whether the recorded attempt is made once more, because nothing of it was started."""
        self._jobs = jobs
        self._deadlines = deadlines
        self._logger = log
        self._context: Context | None = None
        self._resolved_location = ""

    # The try.

    def begin(self, context: Context) -> None:
        """Begin a try of the task.

        :param context: Airflow's context.
        """
        self._context, self.attempt, self.is_repeated = context, Attempt(), False

    def resume(self, context: Context, attempt: Mapping[str, Any] | None) -> None:
        """Continue a try after a deferral.

        :param context: Airflow's context.
        :param attempt: the attempt that the deferral carried; None if this process has it already.
        """
        self._context = context
        if attempt is not None:
            self.attempt = Attempt.from_dict(attempt)

    def resume_from_store(self, context: Context) -> None:
        """Continue a try whose deferral failed: Airflow drops what it carried.

        :param context: Airflow's context.
        :raises SubmissionError: the task state store cannot be read.
        """
        self._context = context
        self.attempt = self.stored()

    @property
    def context(self) -> Context:
        """Airflow's context.

        :raises RuntimeError: no try has begun.
        """
        if self._context is None:
            raise RuntimeError("no try of the task has begun")
        return self._context

    @property
    def has_begun(self) -> bool:
        """Whether a try has begun in this process."""
        return self._context is not None

    @property
    def has_store(self) -> bool:
        """Whether Airflow has a task state store: 3.2 has none."""
        return task_state_store(self.context) is not None

    @property
    def is_first_try(self) -> bool:
        """Whether this is the first try of the task instance."""
        return bool(self.context["ti"].try_number <= 1)

    @property
    def has_next_try(self) -> bool:
        """Whether another try of the task may follow."""
        ti = self.context["ti"]
        return bool(ti.try_number <= (ti.max_tries or 0))

    @property
    def is_own(self) -> bool:
        """Whether this task started the job, so that it may stop it, and did not only join it."""
        return not self.attempt.joined

    # Identity.

    @property
    def owner(self) -> Owner:
        """The owner that the job carries."""
        ti = self.context["ti"]
        return Owner(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            reap=self.may_be_reaped,
            deployment=conf.get("jobflow", "deployment_id", fallback="") or "",
        )

    @property
    def group(self) -> str:
        """The group of the jobs of this attempt."""
        return self.attempt.group or self.owner.group

    @property
    def this_try(self) -> Try:
        """The try that is made."""
        ti = self.context["ti"]
        return Try(ti.try_number, ti.max_tries or 0, self.clear_number)

    @property
    def clear_number(self) -> int:
        """How often anything in the DAG run was cleared."""
        return clear_number(self.context)

    @property
    def location(self) -> str:
        """Where this task starts jobs. Jobs elsewhere cannot be described from here.

        The region is resolved, so that naming the connection's own region changes nothing. Timeouts and other settings
        of the connection may change from try to try.

        :raises SubmissionError: the region cannot be resolved.
        """
        from airflow_jobflow.faults import CallError

        if not self._resolved_location:
            jobs = self._jobs
            scope = (jobs.scope or "").rpartition("/")[2]
            try:
                region = jobs.call(_region)
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
        before = now if now.number else Attempt()
        start = time.time()
        self.attempt = Attempt(
            number=before.number,
            clear_number=self.clear_number,
            group=self.owner.group,
            location=self.location,
            began_at=now.began_at if self.is_repeated else start,
            deadline=before.deadline if before.number and not self.is_repeated else self._deadlines.after(start),
            **members,
        )
        if self.is_repeated:
            self.attempt.token, self.attempt.number = now.token, max(now.number, 1)
        else:
            self.attempt.follow(str(self.context["ti"].id))
        self.is_repeated = False
        self.save()
        return self.attempt.token

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
        store = task_state_store(self.context)
        try:
            if store is not None:
                store.set(RECORD, self.attempt.to_dict())
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"The attempt could not be recorded in Airflow's task state store, so nothing was started: {error}"
                ) from error
            self._logger.warning("The task state store could not be written: %s", error)

    def save_if_possible(self) -> None:
        """Record what a later try can do without, because it finds the job by its group."""
        try:
            self.save()
        except SubmissionError as error:
            self._logger.warning("The state of the attempt could not be recorded: %s", error.__cause__)

    def stored(self) -> Attempt:
        """Return the record of the last try.

        :raises SubmissionError: the task state store cannot be read.
        """
        store = task_state_store(self.context)
        try:
            return Attempt.from_dict(None if store is None else store.get(RECORD))
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"Airflow's task state store could not be read, so nothing was started: {error}"
                ) from error
            self._logger.warning("The task state store could not be read: %s", error)
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

        :param work: called with the context, if a try has begun.
        """

        def run() -> None:
            if self._context is not None:
                work(self._context)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


def _region(call: Call) -> str:
    return call.region
