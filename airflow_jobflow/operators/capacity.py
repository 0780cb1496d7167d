"""Waits until AWS has capacity for a job, in the triggerer or in the worker."""

from __future__ import annotations

import time
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
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN
from airflow_jobflow.waiting.timeouts import never_started

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.operators.spec import JobSpec
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs

SHORTEST_CAPACITY_PAUSE, LONGEST_CAPACITY_PAUSE = 15.0, 300.0
"""Seconds before a start that met no capacity is repeated, doubling from the shortest to the longest."""


class CapacityWait:
    """The wait of a task for capacity.

    :param task: the operator, which is resumed with its method ``start``.
    :param spec: what is started.
    :param record: the attempt.
    :param deadlines: the time limits of the task.
    :param queued_timeout: seconds for which it waits at most; None for no such limit.
    :param defers: whether it waits in the triggerer, and not in the worker.
    """

    def __init__(
        self,
        task: BaseOperator,
        spec: JobSpec,
        record: AttemptRecord,
        deadlines: Deadlines,
        *,
        queued_timeout: float | None,
        defers: bool,
    ) -> None:
        self._task: Any = task
        self._spec = spec
        self._record = record
        self._deadlines = deadlines
        self._queued_timeout = queued_timeout
        self._defers = defers

    def find_started(self, jobs: RemoteJobs) -> list[str]:
        """Return the job of this attempt, if AWS has started it despite reporting no capacity.

        :param jobs: makes the API calls.
        :raises SubmissionError: it cannot be looked up.
        """
        from airflow_jobflow.faults import CallError

        record = self._record
        if not record.attempt.waits_since or not record.durable:
            return []
        try:
            found = jobs.call(self._spec.find_started, record)
        except CallError as error:
            raise SubmissionError(
                f"{record.attempt.no_capacity} It was not started again: AWS may have started it nevertheless, "
                f"and the check failed: {sentence(str(error))} The next try checks that first."
            ) from error
        return [found] if found else []

    def raise_if_over(self, *, killed: bool) -> None:
        """Give up if the deadline has passed, or the task was killed, while AWS had no capacity.

        :param killed: whether the task was killed.
        :raises JobTimeout, JobStopped: nothing was started.
        """
        attempt = self._record.attempt
        if not attempt.waits_since:
            return
        if killed:
            raise JobStopped(f"{attempt.no_capacity} The task was killed while it waited; nothing was started.")
        if time.time() >= (attempt.deadline or float("inf")):
            raise JobTimeout(never_started(attempt, attempt.no_capacity, str(self._deadlines)))

    def wait(self, full: CapacityUnavailable) -> None:
        """Wait before a start that failed for lack of capacity is repeated.

        :param full: what the start raised.
        :raises JobTimeout, QueueTimeout: a time limit has passed.
        """
        attempt, now = self._record.attempt, time.time()
        attempt.waits_since = attempt.waits_since or now
        attempt.starts += 1
        attempt.no_capacity = str(full)
        ends_at, error, limit = self._first_limit(attempt.deadline, attempt.waits_since)
        if now >= ends_at:
            raise error(never_started(attempt, str(full), limit))
        pause = min(SHORTEST_CAPACITY_PAUSE * 2.0 ** min(attempt.starts - 1, 10), LONGEST_CAPACITY_PAUSE)
        until = min(now + pause, ends_at)
        self._task.log.info("%s Starting it again in %.0f s (attempt %d)", full, until - now, attempt.starts + 1)
        if self._defers:
            self._defer(until, now)
        time.sleep(until - now)

    def _first_limit(self, deadline: float | None, since: float) -> tuple[float, type[JobflowError], str]:
        """Return when the wait ends, what is raised then, and the limit for the message."""
        limits: list[tuple[float, type[JobflowError], str]] = [
            (deadline or float("inf"), JobTimeout, str(self._deadlines))
        ]
        if self._queued_timeout is not None:
            limit = f"{self._queued_timeout:g} s (queued_timeout)"
            limits.append((since + self._queued_timeout, QueueTimeout, limit))
        return min(limits, key=lambda limit: limit[0])

    def _defer(self, until: float, now: float) -> None:
        """Wait in the triggerer, unless the wait is too short for that."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        from airflow_jobflow.triggers.base import MIN_DEFERRAL

        if until - now < MIN_DEFERRAL:
            return
        if self._record.has_begun:  # Airflow drops what a deferral carries, if it ends the deferral itself
            self._record.save_if_possible()
        self._task.defer(
            trigger=DateTimeTrigger(datetime.fromtimestamp(until, tz=UTC)),
            method_name="start",
            kwargs={"attempt": self._record.attempt.to_dict()},
            timeout=timedelta(seconds=until - now + DEFERRAL_TIMEOUT_MARGIN),
        )
