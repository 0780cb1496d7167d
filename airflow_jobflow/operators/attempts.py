"""The attempt of a task to start its job: its identity, its record, and the jobs of earlier tries.

An attempt needs no record to be found again: its job carries the group of the task instance, and the try. Airflow's
task state store records, before anything is started, what cannot be computed: where the job is started, in case a later
try names another queue or region, and the token. Through a deferral, the attempt travels with the task.

Invariants:

- A first try looks nothing up, because nothing can have been started before it.
- Nothing is started before its location is recorded, if there is a store.
- ``jobs.reattach`` alone decides what happens to jobs of earlier tries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.airflow_compat.task_context import clear_number, task_state_store
from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.owner import Owner
from airflow_jobflow.jobs.starting import LOOKUPS
from airflow_jobflow.jobs.wording import sentence

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.spec import Spec
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs

RECORD = "jobflow"
"""Key in the task state store of the record of the last try."""

YOUNG = 60.0
"""Seconds after an attempt for which its job is looked up more than once."""

ABANDONING = 5.0
"""Seconds that a killed task takes to record that it was killed, beside stopping its job."""


class AttemptRecord:
    """The attempt that a try of a task makes, and its record for later tries.

    :param spec: what is started.
    :param jobs: the jobs of the task in AWS.
    :param deadlines: the time limits of the task.
    :param log: the task's log.
    :param durable: whether the job is found again, see :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param may_be_reaped: whether the orphan reaper may stop the job once the task has ended.
    """

    def __init__(
        self,
        spec: Spec,
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
        self._spec = spec
        self._jobs = jobs
        self._deadlines = deadlines
        self._log = log
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
            self._log.warning("The task state store could not be written: %s", error)

    def save_if_possible(self) -> None:
        """Record what a later try can do without, because it finds the job by its group."""
        try:
            self.save()
        except SubmissionError as error:
            self._log.warning("The state of the attempt could not be recorded: %s", error.__cause__)

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
            self._log.warning("The task state store could not be read: %s", error)
            return Attempt()

    def abandon(self) -> None:
        """Record that the job was given up, so that no later try waits for it."""
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

    # The jobs of earlier tries.

    def reattach(self) -> dict[str, Snapshot | None]:
        """Return the jobs of an earlier try that this try waits for, as described now; empty if it starts one.

        :raises SubmissionError: they cannot be found, or a job that has to be stopped cannot be.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.reattach import Action, Now, decide

        if not self.durable or self.is_first_try:
            return {}
        recorded = self.stored()
        now = time.time()
        run_began_at = _seconds(self.context["dag_run"].start_date)
        grace = conf.getfloat("jobflow", "missing_grace")
        try:
            elsewhere = recorded.location not in ("", self.location)
            found = [] if elsewhere else self._find(recorded, now)
            decision = decide(recorded, found, Now(self.clear_number, self.location, run_began_at, now, grace))
            self._log.info("Earlier tries: %s (%s)", decision.why, decision.action.value)
            self._jobs.stop(decision.stop, f"Airflow: {decision.why}")
        except CallError as error:
            raise SubmissionError(
                "The jobs of earlier tries could not be found or stopped, so nothing was started (asked with "
                f"{self._jobs.origin}): {error}"
            ) from error
        not_cleared = recorded.clear_number == self.clear_number
        seen = {each.job.job_id: each.job for each in found}
        self.is_repeated = decision.action is Action.REPEAT
        if decision.action is Action.KEEP:
            self.attempt = recorded if not_cleared else Attempt()
            self._continue(decision.keep, seen)
            self.save_if_possible()
            return {job_id: seen.get(job_id) for job_id in decision.keep}
        if not_cleared and not elsewhere:
            self.attempt = recorded
            recorded.job_ids = recorded.job_ids or list(decision.failed)
        if not self.is_repeated:
            self.attempt.number = 0
        self.attempt.waits_since, self.attempt.starts = None, 0
        return {}

    def _continue(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> None:
        """Make the job of an earlier try this try's own."""
        attempt = self.attempt
        if not attempt.began_at:  # nothing is recorded, so the job's own time counts
            created = [_seconds(seen[each].created_at) for each in job_ids if each in seen and seen[each].created_at]
            attempt.began_at = min(created, default=time.time())
            attempt.deadline = self._deadlines.after(attempt.began_at)
        attempt.job_ids, attempt.starts, attempt.waits_since = list(job_ids), 0, None
        attempt.queued_at = attempt.queued_at or attempt.began_at
        attempt.number = max(attempt.number, 1)
        attempt.location, attempt.clear_number = self.location, self.clear_number

    def _find(self, recorded: Attempt, now: float) -> list[Found]:
        """Find the jobs of earlier tries: by the group, and by the ids that were recorded.

        :raises CallError: they cannot be listed or described.
        """
        from airflow_jobflow.faults import CallError, Fault

        # A job that was just started may not be listed yet.
        is_young = now - recorded.began_at < YOUNG and not recorded.job_ids
        not_found: CallError | None = None
        for pause in (0.0, *LOOKUPS):
            time.sleep(pause)
            try:
                found = self._jobs.call(self._found_now, recorded)
            except CallError as error:
                if error.fault is not Fault.SCOPE_NOT_FOUND:
                    raise
                not_found = error  # a single such response proves nothing
                continue
            if found or not is_young:
                return found
        if not_found:
            self._log.warning(
                "No earlier try can have a job: its queue, cluster or Glue job does not exist: %s", not_found
            )
        return []

    def _found_now(self, call: Call, recorded: Attempt) -> list[Found]:
        from airflow_jobflow.jobs.reattach import Found

        group = recorded.group or self.owner.group
        found = [
            replace(each, job=each.job.counting(self._jobs.container))
            for each in self._spec.find_group(call, group, recorded)
        ]
        missing = set(recorded.job_ids) - {each.job.job_id for each in found}
        described = self._jobs.describe(call, sorted(missing)) if missing else {}
        return [*found, *(Found(job) for job in described.values())]

    def find_started(self, call: Call) -> str | None:
        """Return the job that this attempt has started, although AWS reported no capacity or a response was lost.

        :param call: makes the API calls.
        :raises CallError: it cannot be looked up.
        """
        from airflow_jobflow.operators.spec import JobSpec

        spec = self._spec
        return spec.find_started(call, self) if isinstance(spec, JobSpec) else None

    def jobs_of_this_try(self) -> list[str]:
        """Return the jobs that this try waits for, if Airflow dropped what the deferral carried.

        :raises SubmissionError: they cannot be found.
        """
        from airflow_jobflow.faults import CallError

        try:
            if not self.durable or self.attempt.job_ids:
                pass
            elif not self.has_store:
                found = self._jobs.call(self._spec.find_group, self.group, self.attempt)
                self.attempt.job_ids = [each.job.job_id for each in found if each.by == self.this_try]
            elif self.attempt.number:
                started = self._jobs.call(self.find_started)
                self.attempt.job_ids = [started] if started else []
        except CallError as error:
            raise SubmissionError(
                f"The {self._jobs.display_name} of this try could not be looked up, and may still run "
                f"(asked with {self._jobs.origin}): {error}"
            ) from error
        return self.attempt.job_ids


def _region(call: Call) -> str:
    return call.region


def _seconds(moment: Any) -> float:
    """Return a datetime, or a time in ISO 8601, in seconds since the epoch; 0 for none."""
    if not moment:
        return 0.0
    return (moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))).timestamp()
