"""The jobs that earlier tries of a task have started: found again, continued, or stopped.

Invariants:

- A first try looks nothing up, because nothing can have been started before it.
- ``jobs.reattach`` alone decides what happens to jobs of earlier tries.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.attempt import Attempt
from airflow_jobflow.jobs.starting import LOOKUPS
from airflow_jobflow.operators import changes

if TYPE_CHECKING:
    from airflow_jobflow.faults import CallError
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec

YOUNG = 60.0
"""Seconds after an attempt for which its job is looked up more than once."""


@dataclass(frozen=True)
class EarlierTries:
    """The jobs of earlier tries, and what this try does with them.

    :param execution: the execution of the operator.
    """

    execution: Execution[JobSpec]

    def reattach(self) -> dict[str, Snapshot | None]:
        """Return the jobs of an earlier try that this try waits for, as described now; empty if it starts one.

        :raises SubmissionError: they cannot be found, or a job that has to be stopped cannot be.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.reattach import Action, Now, decide

        record, jobs = self.execution.record, self.execution.jobs
        if not record.durable or record.is_first_try:
            return {}
        recorded, clear_number = record.stored(), record.this_try.clear_number
        now = time.time()
        run_began_at = _seconds(record.context["dag_run"].start_date)
        grace = conf.getfloat("jobflow", "missing_grace")
        try:
            elsewhere = recorded.location not in ("", record.location)
            # A job that was just started may not be listed yet.
            is_young = now - recorded.began_at < YOUNG and not recorded.job_ids
            found = [] if elsewhere else self._find(recorded, is_young=is_young)
            decision = decide(recorded, found, Now(clear_number, record.location, run_began_at, now, grace))
            self.execution.log.info("Earlier tries: %s (%s)", decision.why, decision.action.value)
            jobs.stop(decision.stop, f"Airflow: {decision.why}")
        except CallError as error:
            raise SubmissionError(
                "The jobs of earlier tries could not be found or stopped, so nothing was started (connection: "
                f"{jobs.origin}): {error}"
            ) from error
        not_cleared = recorded.clear_number == clear_number
        seen = {each.job.job_id: each.job for each in found}
        record.is_repeated = decision.action is Action.REPEAT
        if decision.action is Action.KEEP:
            record.attempt = recorded if not_cleared else Attempt()
            self._continue(decision.keep, seen)
            record.save_if_possible()
            return {job_id: seen.get(job_id) for job_id in decision.keep}
        if not_cleared and not elsewhere:
            record.attempt = recorded
            recorded.job_ids = recorded.job_ids or list(decision.failed)
        if not record.is_repeated:
            record.attempt.number = 0
            failed = record.attempt.job_ids or decision.failed
            changes.follow(self.execution, [seen[job_id] for job_id in failed if job_id in seen])
        record.attempt.waits_since, record.attempt.starts = None, 0
        return {}

    def started_in_triggerer(self, event: Mapping[str, Any]) -> dict[str, Snapshot | None]:
        """Return the jobs that a trigger has started in this try before it gave up, as described now.

        :param event: the event of the trigger that gave up. Even if this one started nothing, an earlier trigger may
            have.
        :raises SubmissionError: they cannot be found.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.reattach import SKEW

        is_young = "may_have_started" in event
        since = _seconds(self.execution.record.context["dag_run"].start_date) - SKEW
        try:
            found = self._find(Attempt(), is_young=is_young, since=since)
        except CallError as error:
            raise self._cannot_look_up(error) from error
        seen = {each.job.job_id: each.job for each in found}
        job_ids = _waited_for([each.job for each in found if self._is_of_this_try(each)])
        if job_ids:
            self.execution.log.info("Continuing with %s, which was started in the triggerer", ", ".join(job_ids))
            self._continue(job_ids, seen)
            self.execution.record.save_if_possible()
        return {job_id: seen[job_id] for job_id in job_ids}

    def _is_of_this_try(self, found: Found) -> bool:
        """Return whether this try has started a job. In a triggerer, only the number of a try is known."""
        return found.by is not None and found.by.try_number == self.execution.record.this_try.try_number

    def _continue(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> None:
        """Make the job of an earlier try this try's own."""
        record = self.execution.record
        attempt = record.attempt
        if not attempt.began_at:  # nothing is recorded, so the job's own time counts
            created = [_seconds(seen[each].created_at) for each in job_ids if each in seen and seen[each].created_at]
            attempt.began_at = min(created, default=time.time())
            attempt.deadline = self.execution.deadlines.after(attempt.began_at)
        attempt.job_ids, attempt.starts, attempt.waits_since = list(job_ids), 0, None
        attempt.queued_at = attempt.queued_at or attempt.began_at
        attempt.number = max(attempt.number, 1)
        record.continue_attempt(self.execution.given.get("queued_timeout"))
        attempt.location, attempt.clear_number = record.location, record.this_try.clear_number

    def _find(self, recorded: Attempt, *, is_young: bool, since: float = 0.0) -> list[Found]:
        """Find the jobs of the task instance: by the group, and by the ids that were recorded.

        :param is_young: whether to look more than once, because AWS may not list them yet.
        :param since: older jobs are left out: those of a run that was deleted, and created again with the same id, have
            the same group and the same try. In seconds since the epoch. Default: none is.
        :raises CallError: they cannot be listed or described.
        """
        from airflow_jobflow.faults import CallError, Fault

        not_found: CallError | None = None
        for pause in (0.0, *LOOKUPS):
            time.sleep(pause)
            try:
                found = [
                    each
                    for each in self.execution.jobs.call(self._found_now, recorded)
                    if not each.job.created_at or _seconds(each.job.created_at) >= since
                ]
            except CallError as error:
                if error.fault is not Fault.SCOPE_NOT_FOUND:
                    raise
                not_found = error  # a single such response proves nothing
                continue
            if found or not is_young:
                return found
        if not_found:
            self.execution.log.warning(
                "No earlier try can have a job: its queue, cluster or Glue job does not exist: %s", not_found
            )
        return []

    def _found_now(self, call: Call, recorded: Attempt) -> list[Found]:
        from airflow_jobflow.jobs.reattach import Found

        group = recorded.group or self.execution.record.owner.group
        found = [
            replace(each, job=each.job.counting(self.execution.jobs.container))
            for each in self.execution.spec.find_group(call, group, recorded)
        ]
        missing = set(recorded.job_ids) - {each.job.job_id for each in found}
        described = self.execution.jobs.describe(call, sorted(missing)) if missing else {}
        return [*found, *(Found(job) for job in described.values())]

    def jobs_of_this_try(self) -> list[str]:
        """Return the jobs that this try waits for, if Airflow has dropped the arguments of the deferral.

        :raises SubmissionError: they cannot be found.
        """
        from airflow_jobflow.faults import CallError

        record = self.execution.record
        attempt = record.attempt
        try:
            if not record.durable or attempt.job_ids:
                pass
            elif record.store is None or not attempt.number:  # or it was started in the triggerer
                found = self.execution.jobs.call(self.execution.spec.find_group, record.group, attempt)
                attempt.job_ids = _waited_for([each.job for each in found if self._is_of_this_try(each)])
            else:
                started = self.execution.jobs.call(self.execution.spec.find_started, record)
                attempt.job_ids = [started] if started else []
        except CallError as error:
            raise self._cannot_look_up(error) from error
        return attempt.job_ids

    def _cannot_look_up(self, error: CallError) -> SubmissionError:
        return SubmissionError(
            f"The {self.execution.jobs.display_name} of this try could not be looked up, and may still run "
            f"(connection: {self.execution.jobs.origin}): {error}"
        )


def _waited_for(jobs: Sequence[Snapshot]) -> list[str]:
    """Return those of a try's jobs that it still waits for: not those whose Spot capacity was taken back before."""
    running = [job.job_id for job in jobs if not job.state.ended]
    newest = sorted(jobs, key=lambda job: job.created_at or "")[-1:]
    return running or [job.job_id for job in newest]


def _seconds(moment: Any) -> float:
    """Return a datetime, or a time in ISO 8601, in seconds since the epoch; 0 for none."""
    if not moment:
        return 0.0
    return (moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))).timestamp()
