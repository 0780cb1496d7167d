"""Which jobs the next describe call asks for: new ones first, then those that are due, then single ones and halves.

A job is polled at the shortest interval of its waits. Where events report changes, it is polled only every
``event_poll_interval`` seconds, except for a while after an event or a new wait: what a describe call returns may lag
behind an event, and an event may have come before its wait began. The short interval ends with an answer whose call was
sent ``EVENT_LAG`` later.

Pure: the caller passes the time.

Invariants:

- A batch has at most ``batch_size`` jobs, and a job is in at most one batch each time it is scheduled.
- Two polls of a job are at least nine tenths of its interval apart. The exceptions are the second poll of a new wait
  and the first at ``event_poll_interval``, which align the job with others, and polls that an event requests, which are
  at least ``MIN_POLL_DISTANCE`` apart.
- ``describes_per_second`` is the sum over the intervals of all jobs.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Generic

from airflow_jobflow.polling.subscription import Answer, PolledJob

NEW_JOB_DELAY = 0.5
"""Seconds for which a new job may wait for others to share its first call. Any call that is sent takes it along."""

EARLY_FRACTION = 0.1
"""The part of its interval by which a poll may come early, to share a call that is made anyway."""

MIN_POLL_DISTANCE = 1.0
"""The least seconds between two polls of a job, however many events arrive at once."""

EVENT_LAG = 20.0
"""Seconds by which a describe call may lag behind an event. A call that is sent this much later knows of the change."""


class PollSchedule(Generic[Answer]):
    """The jobs of a watcher, ordered by when they are polled next.

    :param batch_size: the most jobs in one call.
    """

    def __init__(self, batch_size: int) -> None:
        self.describes_per_second = 0.0
        """Describes a second that all jobs together need."""
        self.event_poll_interval = 0.0
        """Seconds between two polls of a job about which there are no events; 0 for the interval of its waits."""
        self._batch_size = batch_size
        self._new: deque[tuple[float, PolledJob[Answer]]] = deque()
        self._due: list[tuple[float, int, PolledJob[Answer]]] = []
        self._due_single: list[tuple[float, int, PolledJob[Answer]]] = []
        """Jobs that are described in calls of their own."""
        self._halves: list[tuple[int, int, list[PolledJob[Answer]]]] = []
        """Parts of rejected batches, the smallest first, so that the job that causes a rejection is found soon."""
        self._orders = itertools.count()
        self._half_was_last = self._single_was_last = False

    # How often a job is polled.

    def update_interval(self, job: PolledJob[Answer]) -> None:
        """Recompute a job's interval, because its waits have changed, or whether an event has requested polls.

        :param job: the job.
        """
        self.remove(job)
        requested = min((wait.interval for wait in job.waits), default=float("inf"))
        job.interval = max(requested, self.event_poll_interval) if job.woken_at is None else requested
        self.describes_per_second += 1 / job.interval

    def remove(self, job: PolledJob[Answer]) -> None:
        """Stop counting a job in ``describes_per_second``.

        :param job: the job.
        """
        self.describes_per_second -= 1 / job.interval

    def speed_up(self, job: PolledJob[Answer], now: float) -> None:
        """Poll a job at the interval of its waits for a while.

        :param job: the job.
        :param now: the time in seconds.
        """
        job.woken_at = now
        self.update_interval(job)

    def slow_down(self, job: PolledJob[Answer], sent_at: float) -> None:
        """Return to ``event_poll_interval``, if an answered call was sent late enough to know of the last event.

        :param job: the job.
        :param sent_at: when the call was sent, in seconds.
        """
        if job.woken_at is not None and sent_at >= job.woken_at + EVENT_LAG:
            job.woken_at = None
            if self.event_poll_interval:
                job.due = None  # so that the next poll is aligned with those of other jobs
            self.update_interval(job)

    # When a job is polled next.

    def add_new(self, job: PolledJob[Answer], now: float) -> bool:
        """Schedule the first poll for a new wait.

        :param job: the job of the wait.
        :param now: the time in seconds.
        :return: whether no other new job is scheduled.
        """
        job.queued, job.due = True, None
        self._new.append((now + NEW_JOB_DELAY, job))
        return len(self._new) == 1

    def schedule(self, job: PolledJob[Answer], due: float, sent_at: float) -> None:
        """Schedule the next poll of a job after a call, unless it is already scheduled or in a newer call.

        :param job: the job.
        :param due: when to poll it, in seconds.
        :param sent_at: when the call was sent, in seconds.
        """
        if self._needs_schedule(job, sent_at):
            self._push(job, due)

    def reschedule(self, job: PolledJob[Answer], now: float, *, at_once: bool) -> None:
        """Poll a job sooner, unless it is already scheduled for an earlier time.

        Also while a call for the job is under way: the service may have read its answer before the event.

        :param job: the job.
        :param now: the time in seconds.
        :param at_once: whether to poll as soon as possible, or when the job's interval is over.
        """
        if at_once:
            due = max(now, job.sent_at + MIN_POLL_DISTANCE)
        else:
            due = max(_next_step(now, job.interval), job.sent_at + (1 - EARLY_FRACTION) * job.interval)
        if not job.queued or (job.due is not None and due < job.due):
            self._push(job, due)

    def schedule_single(self, job: PolledJob[Answer], sent_at: float) -> None:
        """Schedule a call of its own for a job at once, unless it is already scheduled or in a newer call.

        :param job: the job.
        :param sent_at: when the last call was sent, in seconds.
        """
        if self._needs_schedule(job, sent_at):
            heapq.heappush(self._halves, (1, next(self._orders), [job]))

    def reschedule_single(self, job: PolledJob[Answer], due: float) -> None:
        """Schedule a call of its own for a job, whenever it was scheduled before.

        :param job: the job.
        :param due: when to make the call, in seconds.
        """
        if not job.removed:
            job.polled_alone = True
            self._push(job, due)

    def split(self, batch: list[PolledJob[Answer]]) -> None:
        """Schedule the two halves of a rejected batch.

        :param batch: at least two jobs.
        """
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            heapq.heappush(self._halves, (len(part), next(self._orders), part))

    @staticmethod
    def _needs_schedule(job: PolledJob[Answer], sent_at: float) -> bool:
        return not job.queued and not job.removed and sent_at >= job.sent_at

    def _push(self, job: PolledJob[Answer], due: float) -> None:
        job.queued, job.due = True, due
        heapq.heappush(self._due_single if job.polled_alone else self._due, (due, job.order, job))

    # The next batch.

    def due_in(self, now: float) -> float:
        """Return the seconds until a job is due; 0 or less if one is due now, infinity if none is scheduled.

        :param now: the time in seconds.
        """
        while self._halves and all(job.removed for job in self._halves[0][2]):
            heapq.heappop(self._halves)
        return 0.0 if self._halves else self._seconds_until_due(now)

    def _seconds_until_due(self, now: float) -> float:
        while self._new and not _is_current(self._new[0][1], None):
            self._new.popleft()
        for heap in (self._due, self._due_single):
            # The watcher waits for the rate limiter only if a job is due, so outdated entries must not count.
            while heap and not _is_current(heap[0][2], heap[0][0]):
                heapq.heappop(heap)
        first_new = self._new[0][0] if self._new else float("inf")
        first_due = self._due[0][0] if self._due else float("inf")
        first_single = self._due_single[0][0] if self._due_single else float("inf")
        return min(first_new, first_due, first_single) - now

    def pop_batch(self, now: float) -> list[PolledJob[Answer]]:
        """Pop the next batch to describe.

        :param now: the time in seconds.
        :return: the jobs; empty if their waits were cancelled meanwhile.
        """
        # Halves alternate with the others: finding the cause of a rejected batch of a hundred takes a while.
        self._half_was_last = bool(self._halves) and not (self._half_was_last and self._seconds_until_due(now) <= 0)
        batch = heapq.heappop(self._halves)[2] if self._half_was_last else self._pop_due(now)
        batch = [job for job in batch if not job.removed]
        for job in batch:
            job.sent_at = now
        return batch

    def _pop_due(self, now: float) -> list[PolledJob[Answer]]:
        """Pop a job that is described alone, or jobs that share a call; alternate if both are due."""
        if self._single_was_last:
            return self._pop_shared(now) or self._pop_single(now)
        return self._pop_single(now) or self._pop_shared(now)

    def _pop_single(self, now: float) -> list[PolledJob[Answer]]:
        batch: list[PolledJob[Answer]] = []
        while self._due_single and self._due_single[0][0] <= now and not batch:
            due, _, job = heapq.heappop(self._due_single)
            self._add_if_current(job, due, batch)
        self._single_was_last = bool(batch)
        return batch

    def _pop_shared(self, now: float) -> list[PolledJob[Answer]]:
        batch: list[PolledJob[Answer]] = []
        self._single_was_last = False
        while self._new and len(batch) < self._batch_size:
            self._add_if_current(self._new.popleft()[1], None, batch)
        while self._due and len(batch) < self._batch_size:
            due, _, job = self._due[0]
            earliest = job.sent_at + (1 - EARLY_FRACTION) * job.interval
            if min(due, max(due - EARLY_FRACTION * job.interval, earliest)) > now:
                break
            heapq.heappop(self._due)
            self._add_if_current(job, due, batch)
        return batch

    @staticmethod
    def _add_if_current(job: PolledJob[Answer], due: float | None, batch: list[PolledJob[Answer]]) -> None:
        if _is_current(job, due):
            job.queued = False
            batch.append(job)


def _is_current(job: PolledJob[Answer], due: float | None) -> bool:
    """Return whether an entry of the schedule still counts: its job is neither removed, in a call nor rescheduled."""
    return job.queued and job.due == due and not job.removed


def next_poll(job: PolledJob[Answer], sent_at: float, stretch: float) -> float:
    """Return when to poll a job again after a call.

    Jobs of one interval are polled at its multiples, so that they share calls. If the rate limit is too low for all
    jobs, every interval is stretched by the same factor. A poll up to ``EARLY_FRACTION`` before a multiple counts for
    it. After a late poll, the next one keeps its distance. It does not after the first poll of a new wait, nor at the
    change to ``event_poll_interval``, so that the job is aligned with the others.

    :param job: the job.
    :param sent_at: when the call was sent, in seconds.
    :param stretch: by what factor the rate limit is too low; 1 or less if it suffices.
    """
    interval = job.interval
    if stretch > 1:
        return sent_at + interval * stretch
    step = _next_step(sent_at + EARLY_FRACTION * interval, interval)
    return step if job.due is None else max(step, sent_at + (1 - EARLY_FRACTION) * interval)


def _next_step(now: float, interval: float) -> float:
    return (now // interval + 1) * interval
