"""Submits a job as soon as AWS has capacity for it; waits in the triggerer or in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import (
    CapacityUnavailable,
    JobflowError,
    JobStopped,
    JobTimeout,
    QueueTimeout,
    SubmissionError,
)
from airflow_jobflow.faults import Fault
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.operators import changes
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN
from airflow_jobflow.waiting.timeouts import never_started

if TYPE_CHECKING:
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec

SHORTEST_CAPACITY_PAUSE, LONGEST_CAPACITY_PAUSE = 15.0, 300.0
"""Seconds before a start that met no capacity is repeated, doubling from the shortest to the longest."""


@dataclass(frozen=True)
class CapacityWait:
    """Submits the job of a task, and waits for capacity.

    :param task: the operator, which is resumed with its method ``start``.
    :param execution: its execution.
    """

    task: Any
    execution: Execution[JobSpec]

    def submit(self, is_killed: Callable[[], bool]) -> list[str]:
        """Submit the job as soon as AWS has capacity for it, and return its ids.

        :param is_killed: returns whether the task was killed in the meantime.
        :raises SubmissionError: it cannot be looked up whether AWS has started the job.
        :raises JobTimeout, QueueTimeout, JobStopped: it was not started, and a time limit has passed, or the task was
            killed.
        """
        execution, record = self.execution, self.execution.record
        job_ids = self.find_started(killed=is_killed()) if record.attempt.waits_since else []
        while not job_ids:
            try:
                job_ids = execution.spec.submit(record, execution.jobs)
            except CapacityUnavailable as full:
                record.attempt.no_capacity = str(full)
                if execution.spec.changes and getattr(full.__cause__, "fault", None) is Fault.NO_CAPACITY:
                    job_ids = self.find_started(killed=is_killed())
                    if job_ids or changes.without_capacity(execution, "AWS had no capacity for it"):
                        continue
                self.wait(full)
                job_ids = self.find_started(killed=is_killed())
        attempt = record.attempt
        attempt.job_ids, attempt.waits_since, attempt.queued_at = job_ids, None, time.time()
        if not record.durable:  # the job cannot be found again
            record.save_if_possible()
        for job_id in job_ids:
            execution.log.info(
                "%s %s %s", "Joined" if attempt.joined else "Started", execution.jobs.display_name, job_id
            )
        return job_ids

    def find_started(self, *, killed: bool) -> list[str]:
        """Return the job of this attempt, if AWS has started it although it reported no capacity.

        :param killed: whether the task was killed while it waited.
        :raises SubmissionError: it cannot be looked up.
        :raises JobTimeout, JobStopped: it was not started, and the deadline has passed, or the task was killed.
        """
        from airflow_jobflow.faults import CallError

        attempt, found = self.execution.record.attempt, None
        try:
            if self.execution.record.durable:
                found = self.execution.jobs.call(self.execution.spec.find_started, self.execution.record)
        except CallError as error:
            raise SubmissionError(
                f"{attempt.no_capacity} It was not started again: AWS may have started it despite this error, "
                f"and the check failed: {sentence(str(error))} The next try checks that first."
            ) from error
        if found:
            return [found]
        if killed:
            raise JobStopped(f"{attempt.no_capacity} The task was killed while it waited; nothing was started.")
        if time.time() >= (attempt.deadline or float("inf")):
            raise JobTimeout(never_started(attempt, attempt.no_capacity, str(self.execution.deadlines)))
        return []

    def wait(self, full: CapacityUnavailable) -> None:
        """Wait before a start that failed for lack of capacity is repeated.

        :param full: what the start raised.
        :raises JobTimeout, QueueTimeout: a time limit has passed.
        """
        attempt, now = self.execution.record.attempt, time.time()
        attempt.waits_since = attempt.waits_since or now
        attempt.starts += 1
        attempt.no_capacity = str(full)
        ends_at, error, limit = self._first_limit(attempt.deadline, attempt.waits_since)
        if now >= ends_at:
            raise error(never_started(attempt, str(full), limit))
        pause = min(SHORTEST_CAPACITY_PAUSE * 2.0 ** min(attempt.starts - 1, 10), LONGEST_CAPACITY_PAUSE)
        until = min(now + pause, ends_at)
        self.task.log.info("%s Starting it again in %.0f s (attempt %d)", full, until - now, attempt.starts + 1)
        if self.execution.wait.parameters.defers:
            self._defer(until, now)
        time.sleep(until - now)

    def _first_limit(self, deadline: float | None, since: float) -> tuple[float, type[JobflowError], str]:
        """Return when the wait ends, what is raised then, and the limit for the message."""
        limits: list[tuple[float, type[JobflowError], str]] = [
            (deadline or float("inf"), JobTimeout, str(self.execution.deadlines))
        ]
        if (seconds := self.execution.given.get("queued_timeout")) is not None:
            limits.append((since + seconds, QueueTimeout, f"{seconds:g} s (queued_timeout)"))
        return min(limits, key=lambda limit: limit[0])

    def _defer(self, until: float, now: float) -> None:
        """Wait in the triggerer, unless the wait is too short for that."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        from airflow_jobflow.triggers.base import MIN_DEFERRAL

        if until - now < MIN_DEFERRAL:
            return
        # Airflow drops what a deferral carries, if it ends the deferral itself.
        self.execution.record.save_if_possible()
        self.task.defer(
            trigger=DateTimeTrigger(datetime.fromtimestamp(until, tz=UTC)),
            method_name="start",
            kwargs={"attempt": self.execution.record.attempt.to_dict()},
            timeout=timedelta(seconds=until - now + DEFERRAL_TIMEOUT_MARGIN),
        )
