"""What the response to a describe call means for the jobs in it: news for their waits, or another call.

Invariants: those of ``watcher`` about what a wait receives, and when it fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Generic

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import NotFound, WatchError
from airflow_jobflow.polling.refusals import Refusals
from airflow_jobflow.polling.schedule import PollSchedule, next_poll
from airflow_jobflow.polling.subscription import Answer, PolledJob

log = logging.getLogger(__name__)

MAX_RETRY_PAUSE = 30.0
"""The longest pause in seconds before a failed call is repeated."""


class Responses(Generic[Answer]):
    """Applies the responses of a watcher's calls to its jobs.

    :param schedule: when each job is described next.
    :param missing_grace, denied_grace, jitter: see ``Watcher``.
    :param stretch: returns by what factor the rate limit is too low for all jobs.
    :param fail: fails all waits for the given jobs.
    """

    def __init__(
        self,
        schedule: PollSchedule[Answer],
        *,
        missing_grace: float,
        denied_grace: float,
        stretch: Callable[[], float],
        jitter: Callable[[float], float],
        fail: Callable[[Iterable[PolledJob[Answer]], WatchError], None],
    ) -> None:
        self._schedule = schedule
        self._missing_grace = missing_grace
        self._refusals: Refusals[Answer] = Refusals(denied_grace)
        self._stretch = stretch
        self._jitter = jitter
        self._fail = fail
        self._failures = 0
        """How many calls in a row have failed with a transient fault."""
        self._warned = False
        """Whether it was logged that calls are refused."""

    def forget(self, job: PolledJob[Answer]) -> None:
        """Forget the refused calls for a job that was removed.

        :param job: the job.
        """
        self._refusals.forget(job)

    def answered(self, batch: list[PolledJob[Answer]], answers: Mapping[str, Answer | None], sent_at: float) -> None:
        """Publish the answers to the waits, and schedule the next polls.

        :param batch: the jobs in the call.
        :param answers: what it returned, see ``watcher.Describe``.
        :param sent_at: when it was sent, in seconds.
        """
        now = _now()
        described = {job.job_id: answers[job.job_id] for job in batch if job.job_id in answers}
        had_failed = self._failures > 0
        self._failures = 0
        self._refusals.answered(now)
        stretch = self._stretch()
        for job in batch:
            if job.removed:
                continue
            self._refusals.forget(job)
            job.polled_alone = False
            answer = described.get(job.job_id)
            if answer is None and job.job_id in described and len(batch) > 1:
                self._schedule.schedule_single(job, sent_at)
                continue
            if answer is not None:
                self._schedule.slow_down(job, sent_at)
            due = next_poll(job, sent_at, stretch)
            if sent_at >= job.answered_sent_at:  # otherwise a later call was answered first
                due = min(due, self._publish(job, answer, now))
            job.answered_sent_at = max(job.answered_sent_at, sent_at)
            self._schedule.schedule(job, due, sent_at)
        refusals_over = self._warned and not self._refusals  # one job may be refused while all others are answered
        if had_failed or refusals_over:
            log.info("Describe calls recovered")
        self._warned = self._warned and not refusals_over

    def _publish(self, job: PolledJob[Answer], answer: Answer | None, now: float) -> float:
        """Publish an answer to the waits, or fail them if the job has been unknown for the grace period.

        :return: when the grace period ends, in seconds; infinity if the job is known.
        """
        if answer is not None:
            job.missing_since = None
            for wait in job.waits:
                wait.publish(job.job_id, answer)
            return float("inf")
        job.missing_since = now if job.missing_since is None else job.missing_since
        if now - job.missing_since >= self._missing_grace:
            self._fail([job], NotFound(job.job_id, now - job.missing_since))
        return job.missing_since + self._missing_grace

    def failed(self, batch: list[PolledJob[Answer]], error: CallError, sent_at: float) -> None:
        """Repeat a call that failed, after a pause that depends on the fault.

        :param batch: the jobs in the call.
        :param error: why it failed.
        :param sent_at: when it was sent, in seconds.
        """
        if error.fault not in (Fault.THROTTLED, Fault.TRANSIENT):
            self._refused(batch, error, sent_at)
            return
        self._refusals.interrupt(batch)
        failures = 0  # after throttling, the rate limiter holds back the next call
        if error.fault is Fault.TRANSIENT:
            if not self._failures:
                log.warning("A describe call failed and will be repeated: %s", error)
            self._failures += 1
            failures = self._failures
        self._repeat(batch, failures, sent_at)

    def crashed(self, batch: list[PolledJob[Answer]], error: Exception, sent_at: float) -> None:
        """Repeat a call whose response could not be read: one of its jobs may be the cause.

        :param batch: the jobs in the call.
        :param error: what was raised.
        :param sent_at: when it was sent, in seconds.
        """
        if not self._warned:
            log.error("Unexpected error while describing %d jobs", len(batch), exc_info=error)
        self._refused(batch, CallError(Fault.REJECTED, f"unexpected error: {error!r}"), sent_at)

    def _refused(self, batch: list[PolledJob[Answer]], error: CallError, sent_at: float) -> None:
        """Repeat a call that was refused, in parts if one of its jobs may be the cause."""
        if self._refusals.must_split(batch, error.fault):
            self._schedule.split(batch)
            return
        if not self._warned:
            self._warned = True
            grace = self._refusals.grace(error.fault)
            log.warning("Describe calls fail and will be repeated for up to %g s: %s", grace, error)
        refused = self._refusals.add(batch, error, sent_at)
        for job in batch:
            if not job.removed and (final := self._refusals.final_error(job, error)):
                self._fail([job], final)
        if probe := self._refusals.probe(batch, error.fault, _now(), random.choice):
            self._schedule.reschedule_single(*probe)
        self._repeat(batch, refused, sent_at)

    def _repeat(self, batch: list[PolledJob[Answer]], failures: int, sent_at: float) -> None:
        """Describe jobs again after a pause that grows with the failures, but not beyond their waits' intervals."""
        now = _now()
        bound = min(MAX_RETRY_PAUSE, 2.0 ** min(failures - 1, 10)) if failures else 0.0
        pause = self._jitter(bound)
        for job in batch:
            interval = min((wait.interval for wait in job.waits), default=0.0)
            self._schedule.schedule(job, now + min(pause, max(interval, 1.0)), sent_at)


def _now() -> float:
    return asyncio.get_running_loop().time()
