"""What is to be looked at next: new jobs first, then the due with the soon due, and the halves of rejected calls.

Pure: the caller brings the time. What always holds: a batch never holds more than ``batch_size`` jobs, a job is in at
most one batch it was queued for once, and two looks at a job keep at least nine tenths of its interval between them,
but for those that fall into step, a new wait's second and the first of a slow round, and for those that an event calls
for, which keep ``MIN_POLL_DISTANCE``.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Generic

from airflow_jobflow.polling.subscription import Answer, PolledJob

GATHERING = 0.5
"""Seconds a new wait may stay for company before it is looked at; ended early by any call that goes out."""

SOON = 0.1
"""The part of its interval by which a look may come early, to go along with a call that is made anyway."""


MIN_POLL_DISTANCE = 1.0
"""The least seconds between two looks at a job, however many events call for one at once."""


class PollSchedule(Generic[Answer]):
    """The jobs to look at, in the order of their looks.

    :param batch_size: the most jobs in one call.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._new: deque[tuple[float, PolledJob[Answer]]] = deque()
        self._due: list[tuple[float, int, PolledJob[Answer]]] = []
        self._alone: list[tuple[float, int, PolledJob[Answer]]] = []
        """Jobs that are described in calls of their own."""
        self._halves: list[tuple[int, int, list[PolledJob[Answer]]]] = []
        """By size: the smallest first, so that it is soon known which job is to blame."""
        self._orders = itertools.count()
        self._half_was_last = self._alone_was_last = False

    def add(self, entry: PolledJob[Answer], now: float) -> bool:
        """Put a job in for a first look on behalf of a new wait; return whether it is the first of the new ones."""
        entry.queued, entry.due = True, None
        self._new.append((now + GATHERING, entry))
        return len(self._new) == 1

    def put_back(self, entry: PolledJob[Answer], due: float, sent_at: float) -> None:
        """Put a job in for its next look, unless it is in as a new wait's, or in a call newer than ``sent_at``'s."""
        if not entry.queued and not entry.forgotten and sent_at >= entry.described_at:
            entry.queued, entry.due = True, due
            heapq.heappush(self._alone if entry.alone else self._due, (due, entry.order, entry))

    def reschedule(self, entry: PolledJob[Answer], now: float, *, at_once: bool) -> None:
        """Put a job in for a look at once, or else in step with its interval, unless one is to come sooner.

        Also while a call about it is under way, for that may have been answered before what it is to be looked at for.
        """
        if at_once:
            due = max(now, entry.described_at + MIN_POLL_DISTANCE)
        else:
            due = max(_next_step(now, entry.interval), entry.described_at + (1 - SOON) * entry.interval)
        if not entry.queued or (entry.due is not None and due < entry.due):
            entry.queued, entry.due = True, due
            heapq.heappush(self._alone if entry.alone else self._due, (due, entry.order, entry))

    def split(self, batch: list[PolledJob[Answer]]) -> None:
        """Put a rejected batch in as two."""
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            heapq.heappush(self._halves, (len(part), next(self._orders), part))

    def alone(self, entry: PolledJob[Answer], sent_at: float) -> None:
        """Put a job in for a call of its own, where ``put_back`` would put it in."""
        if not entry.queued and not entry.forgotten and sent_at >= entry.described_at:
            heapq.heappush(self._halves, (1, next(self._orders), [entry]))

    def isolate(self, entry: PolledJob[Answer], due: float) -> None:
        """Put a job in for a call of its own at a time, whatever place it had."""
        if not entry.forgotten:
            entry.alone, entry.queued, entry.due = True, True, due
            heapq.heappush(self._alone, (due, entry.order, entry))

    def due_in(self, now: float) -> float:
        """Seconds until there is something to look at; 0 or less for at once."""
        while self._halves and all(entry.forgotten for entry in self._halves[0][2]):
            heapq.heappop(self._halves)
        return 0.0 if self._halves else self._seconds_until_due(now)

    def _seconds_until_due(self, now: float) -> float:
        while self._new and not _is_live(self._new[0][1], None):
            self._new.popleft()
        for heap in (self._due, self._alone):
            # A turn is waited for when something is due: it must not turn out to be nothing.
            while heap and not _is_live(heap[0][2], heap[0][0]):
                heapq.heappop(heap)
        first_new = self._new[0][0] if self._new else float("inf")
        first_due = self._due[0][0] if self._due else float("inf")
        first_alone = self._alone[0][0] if self._alone else float("inf")
        return min(first_new, first_due, first_alone) - now

    def take(self, now: float) -> list[PolledJob[Answer]]:
        """Take out what the next call is to look at; maybe nothing, where all of it was left meanwhile."""
        # Halves take turns with the others, for a call of a hundred takes a while to take apart.
        self._half_was_last = bool(self._halves) and not (self._half_was_last and self._seconds_until_due(now) <= 0)
        batch = heapq.heappop(self._halves)[2] if self._half_was_last else self._take_due(now)
        batch = [entry for entry in batch if not entry.forgotten]
        for entry in batch:
            entry.described_at = now
        return batch

    def _take_due(self, now: float) -> list[PolledJob[Answer]]:
        """Take what is due: a job that is described alone, and those that share a call, by turns if there are both."""
        if self._alone_was_last:
            return self._take_together(now) or self._take_alone(now)
        return self._take_alone(now) or self._take_together(now)

    def _take_alone(self, now: float) -> list[PolledJob[Answer]]:
        batch: list[PolledJob[Answer]] = []
        while self._alone and self._alone[0][0] <= now and not batch:
            due, _, entry = heapq.heappop(self._alone)
            self._take_one(entry, due, batch)
        self._alone_was_last = bool(batch)
        return batch

    def _take_together(self, now: float) -> list[PolledJob[Answer]]:
        batch: list[PolledJob[Answer]] = []
        self._alone_was_last = False
        while self._new and len(batch) < self._batch_size:
            self._take_one(self._new.popleft()[1], None, batch)
        while self._due and len(batch) < self._batch_size:
            due, _, entry = self._due[0]
            keeps_distance = entry.described_at + (1 - SOON) * entry.interval
            if min(due, max(due - SOON * entry.interval, keeps_distance)) > now:
                break
            heapq.heappop(self._due)
            self._take_one(entry, due, batch)
        return batch

    @staticmethod
    def _take_one(entry: PolledJob[Answer], due: float | None, batch: list[PolledJob[Answer]]) -> None:
        if _is_live(entry, due):
            entry.queued = False
            batch.append(entry)


def _is_live(entry: PolledJob[Answer], due: float | None) -> bool:
    """Return whether this is still an entry's place: it was not left, is not in a call, and has no newer place."""
    return entry.queued and entry.due == due and not entry.forgotten


def next_poll(entry: PolledJob[Answer], sent_at: float, stretch: float) -> float:
    """Say when a job is to be looked at again after a call that was sent at ``sent_at``.

    In step with all jobs of its interval; where the budget is too small, stretched like every other. A look within
    ``SOON`` before a step counts as that step's. After a late one the next keeps its distance; only a new wait's
    second look does not, nor the first of a slow round, to fall into step.

    :param stretch: by how much the budget is too small; 1 or less if it is not.
    """
    interval = entry.interval
    if stretch > 1:
        return sent_at + interval * stretch
    step = _next_step(sent_at + SOON * interval, interval)
    return step if entry.due is None else max(step, sent_at + (1 - SOON) * interval)


def _next_step(now: float, interval: float) -> float:
    return (now // interval + 1) * interval
