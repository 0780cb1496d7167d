"""What a task knows of the jobs it starts, and what it does with those that earlier tries have started.

An attempt needs no record to be found again: its job carries the group of the task instance, and the try. Recorded in
Airflow's task state store, before anything is started, is what cannot be computed: where the job is started, in case a
later try names another queue or region, and the token. Through a deferral, the attempt travels with the task.

Invariants:

- A first try looks for nothing: nothing can have been started before it.
- Nothing is started before it is recorded where, if there is a store.
- What to do with jobs of earlier tries is decided by ``jobs.reattach`` alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.airflow_compat.task_context import clear_number, task_state_store
from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.owner import Owner
from airflow_jobflow.jobs.starting import LOOKUPS
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.waiting import JobWaiter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Found

RECORD = "jobflow"
"""Key in the task state store of what the last try has started."""

YOUNG = 60.0
"""Seconds after an attempt for which what it may have started is looked for more than once."""

STOP_PATIENCE = 300.0
"""Seconds for which stopping a job is repeated. A worker that is told to end has less: Airflow kills it before."""

ABANDONING = 5.0
"""Seconds that a task which is killed takes to record that, beside stopping its job."""


class JobStarter(JobWaiter):
    """Base of everything that starts jobs: it knows what it has started, in this try of the task and in earlier ones.

    :param durable: see :class:`airflow_jobflow.operators.base.JobOperator`.
    """

    def __init__(self, *, durable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.durable = durable
        self.attempt = Attempt()
        """The attempt that this try makes, or waits for."""
        self.resubmits = False
        """Whether the recorded attempt is made once more, for it has left no trace."""
        self._context: Context | None = None

    # The record.

    def begin(self, context: Context) -> None:
        """Begin a try of the task."""
        self._context, self.attempt, self.resubmits = context, Attempt(), False

    def resume(self, context: Context, attempt: Mapping[str, Any] | None) -> None:
        """Continue a try after a deferral.

        :param attempt: what the deferral carried; None if Airflow has dropped it, as it does when a deferral fails.
        """
        self._context = context
        self.attempt = Attempt.from_dict(attempt) if attempt is not None else self._recorded(context)

    def save(self, context: Context) -> None:
        """Record the attempt for later tries.

        :raises SubmissionError: the task state store cannot be written.
        """
        store = task_state_store(context)
        try:
            if store is not None:
                store.set(RECORD, self.attempt.to_dict())
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"The attempt could not be recorded in Airflow's task state store, so nothing was started: {error}"
                ) from error
            self.log.warning("The task state store could not be written: %s", error)

    def save_if_possible(self, context: Context) -> None:
        """Record something that a later try can do without: it finds the job by its group."""
        try:
            self.save(context)
        except SubmissionError as error:
            self.log.warning("The state of the attempt could not be recorded: %s", error.__cause__)

    def _recorded(self, context: Context) -> Attempt:
        """Return what the last try has recorded.

        :raises SubmissionError: the task state store cannot be read.
        """
        store = task_state_store(context)
        try:
            return Attempt.from_dict(None if store is None else store.get(RECORD))
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(
                    f"Airflow's task state store could not be read, so nothing was started: {error}"
                ) from error
            self.log.warning("The task state store could not be read: %s", error)
            return Attempt()

    def is_own(self) -> bool:
        """Return whether the job was started by this task, which may then stop it, and not merely joined."""
        return not self.attempt.joined

    # Identity.

    def job_owner(self, context: Context) -> Owner:
        """Return what the job carries to say whose it is."""
        ti = context["ti"]
        return Owner(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            reap=self.may_be_reaped,
            deployment=conf.get("jobflow", "deployment_id", fallback="") or "",
        )

    @property
    def may_be_reaped(self) -> bool:
        """Whether the orphan reaper may stop the job once the task has ended."""
        return True

    def group_of(self, context: Context, attempt: Attempt) -> str:
        """Return the group of the jobs of an attempt of this task instance."""
        return attempt.group or self.job_owner(context).group

    def this_try(self, context: Context) -> Try:
        """Return the try that is made."""
        ti = context["ti"]
        return Try(ti.try_number, ti.max_tries or 0, self._clear_number(context))

    @staticmethod
    def _clear_number(context: Context) -> int:
        return clear_number(context)

    def new_attempt(self, context: Context, where: Mapping[str, str] | None = None, **more: Any) -> str:
        """Record, before anything is submitted, that an attempt begins; return its token.

        A start that found no capacity, or that has left no trace, is still the same attempt. The deadline is that of
        the first attempt of a try.

        :param where: what the job will be found by, such as its queue and name.
        :param more: other fields of ``Attempt``.
        :raises SubmissionError: it cannot be recorded, so nothing may be started.
        """
        now = self.attempt
        if now.waits_since and now.token:
            return now.token
        before = now if now.number else Attempt()
        self.attempt = Attempt(
            number=before.number,
            clear_number=self._clear_number(context),
            group=self.job_owner(context).group,
            location=self._location(),
            where=dict(where or {}),
            began_at=now.began_at if self.resubmits else time.time(),
            deadline=before.deadline if before.number and not self.resubmits else self.deadline_from_now(),
            **more,
        )
        if self.resubmits:
            self.attempt.token, self.attempt.number = now.token, max(now.number, 1)
        else:
            self.attempt.follow(str(context["ti"].id))
        self.resubmits = False
        self.save(context)
        return self.attempt.token

    # What earlier tries have left.

    def previous_attempt(self, context: Context) -> dict[str, Snapshot | None]:
        """Return the jobs that an earlier try has started and this one waits for, as described now; see jobs.reattach.

        :raises SubmissionError: it cannot be found out.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.reattach import Action, Now, decide

        if not self.durable or context["ti"].try_number <= 1:
            return {}
        recorded = self._recorded(context)
        now = time.time()
        try:
            location = self._location()
            elsewhere = recorded.location not in ("", location)
            found = [] if elsewhere else self._find(context, recorded, now)
            decision = decide(
                recorded,
                found,
                Now(
                    self._clear_number(context),
                    location,
                    _seconds(context["dag_run"].start_date),
                    now,
                    conf.getfloat("jobflow", "missing_grace"),
                ),
            )
            self.log.info("Earlier tries: %s (%s)", decision.why, decision.action.value)
            self.stop(decision.stop, f"Airflow: {decision.why}")
        except CallError as error:
            raise SubmissionError(
                "The jobs of earlier tries could not be found or stopped, so nothing was started (asked with "
                f"{self.origin()}): {error}"
            ) from error
        not_cleared = recorded.clear_number == self._clear_number(context)
        seen = {each.job.job_id: each.job for each in found}
        self.resubmits = decision.action is Action.REPEAT
        if decision.action is Action.KEEP:
            self.attempt = recorded if not_cleared else Attempt()
            self._continue(context, decision.keep, seen)
            self.save_if_possible(context)
            return {job_id: seen.get(job_id) for job_id in decision.keep}
        if not_cleared and not elsewhere:
            self.attempt = recorded
            recorded.job_ids = recorded.job_ids or list(decision.failed)
        if not self.resubmits:
            self.attempt.number = 0
        self.attempt.waits_since, self.attempt.starts = None, 0
        return {}

    def _continue(self, context: Context, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> None:
        """Make the job of an earlier try this try's own."""
        attempt = self.attempt
        if not attempt.began_at:  # nothing is recorded: the job itself tells
            created = [_seconds(seen[each].created_at) for each in job_ids if each in seen and seen[each].created_at]
            attempt.began_at = min(created, default=time.time())
            limit = self.first_limit()
            attempt.deadline = None if limit is None else attempt.began_at + limit[1]
        attempt.job_ids, attempt.starts, attempt.waits_since = list(job_ids), 0, None
        attempt.queued_at = attempt.queued_at or attempt.began_at
        attempt.number = max(attempt.number, 1)
        attempt.location, attempt.clear_number = self._location(), self._clear_number(context)

    def _find(self, context: Context, recorded: Attempt, now: float) -> list[Found]:
        """Find what earlier tries have started: by the group, and by the ids that were recorded.

        :raises CallError: it cannot be found out.
        """
        from airflow_jobflow.faults import CallError, Fault

        # What was just started may not be listed yet.
        is_young = now - recorded.began_at < YOUNG and not recorded.job_ids
        not_found: CallError | None = None
        for pause in (0.0, *LOOKUPS):
            time.sleep(pause)
            try:
                found = self.call(self._found_now, context, recorded)
            except CallError as error:
                if error.fault is not Fault.SCOPE_NOT_FOUND:
                    raise
                not_found = error  # a single such response proves nothing
                continue
            if found or not is_young:
                return found
        if not_found:
            self.log.warning(
                "No earlier try can have a job: its queue, cluster or Glue job does not exist: %s", not_found
            )
        return []

    def _found_now(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:
        from airflow_jobflow.jobs.reattach import Found

        found = [
            replace(each, job=each.job.counting(self.container())) for each in self.find_group(call, context, recorded)
        ]
        missing = set(recorded.job_ids) - {each.job.job_id for each in found}
        described = self.described(call, sorted(missing)) if missing else {}
        return [*found, *(Found(job) for job in described.values())]

    def find_group(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:
        """Return all jobs of this task instance that AWS knows, whichever try has started them.

        :param call: makes the API calls.
        :param recorded: what the last try has recorded, such as the queue and the name it used.
        """
        raise NotImplementedError

    def find_started(self, call: Call, context: Context) -> str | None:  # noqa: ARG002
        """Return the job that this attempt has started, if AWS seemed to have no capacity, or its id was lost.

        :param call: makes the API calls.
        """
        return None

    def _location(self) -> str:
        """Return where this task starts jobs: what is known elsewhere cannot be described from here.

        The region is resolved, so that naming the connection's own region changes nothing. How it is called, such as
        with which timeouts, may change from try to try.

        :raises SubmissionError: the region cannot be found out.
        """
        from airflow_jobflow.faults import CallError

        if not self._resolved:
            scope = (self.scope() or "").rpartition("/")[2]
            try:
                region = self.call(_region)
            except CallError as error:
                raise SubmissionError(
                    f"Nothing was started, because the AWS connection {self.access} could not be used: "
                    f"{sentence(str(error))} Check aws_conn_id and region_name, or the role of the worker."
                ) from error
            self._resolved = " ".join(filter(None, (self.service, scope, self.aws_conn_id, region)))
        return self._resolved

    _resolved = ""

    # Stopping.

    def stop(self, job_ids: Sequence[str], reason: str) -> None:
        """Stop jobs; one that has ended already stays as it is.

        :raises CallError: some could not be stopped; the first error, after all were tried.
        """
        from airflow_jobflow.aws import Retry
        from airflow_jobflow.faults import CallError

        retry = Retry(STOP_PATIENCE, denied_patience=STOP_PATIENCE)
        errors: list[Exception] = []
        noun = self.service_module.DISPLAY_NAME
        for job_id in job_ids:
            self.log.info("Stopping %s %s: %s", noun, job_id, reason)
            try:
                self.call(self.service_module.stop, job_id, self.scope(), reason, retry=retry, past_deadline=True)
            except CallError as error:
                self.log.error("Could not stop %s %s, and it may still run: %s", noun, job_id, error)  # noqa: TRY400
                errors.append(error)
            else:
                self.log.info("Stopped %s %s", noun, job_id)
                self.stops[job_id] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if errors:
            raise errors[0]

    def abandon(self) -> threading.Thread:
        """Record that nobody wants the job any more, in a thread, which is returned."""
        self.attempt.abandoned = True
        return self.in_thread(self.save_if_possible)

    def in_thread(self, work: Callable[[Context], object]) -> threading.Thread:
        """Run what talks to Airflow in a thread, which is returned.

        Not here: this is a signal's handler, and what it has interrupted may hold the connection to Airflow.

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


def _seconds(moment: Any) -> float:
    """Return a datetime, or a moment in ISO 8601, in seconds since the epoch; 0 for none."""
    if not moment:
        return 0.0
    return (moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))).timestamp()
