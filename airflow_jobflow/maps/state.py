"""The state of a map, which runs one job per item: what to start next, what has ended, whether too many have failed.

Pure: a state machine over plain data. The caller starts, watches and stops jobs, and records the results here.

Invariants:

- An item has at most one counting job at a time, and at most ``max_concurrency`` items have one.
- An item has at most ``attempts`` jobs, which differ in their histories. An item that will be started again has not
  failed.
- With ``stop_on_failure`` nothing is started once more items have failed than are tolerated.
- An item whose job cannot be described has not failed: no job is stopped because another cannot be described.
- Items are started in their order. Items that are started again come first.
- Memory is bounded: one character per item, the ids of running jobs, and the result lines of items that failed or were
  started again (of all items, if the map is small).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.changes import CAUSES, Change
from airflow_jobflow.jobs.map_statuses import (
    FAILED,
    IN_FULL,
    NOT_DESCRIBED,
    NOT_STARTED,
    RUNNING,
    STARTING,
    STOPPED,
    SUCCEEDED,
)
from airflow_jobflow.jobs.maps import Found, Start

FINAL_STATUSES = frozenset({SUCCEEDED, FAILED, NOT_DESCRIBED})
"""Statuses that a trigger that continues the map keeps. Stopped items run again."""


class MapState:
    """The state of one map.

    :param size: the number of items of the map.
    :param indexes: indexes of the items to run; the others succeeded in an earlier try.
    :param max_concurrency: how many items may have a job at the same time.
    :param tolerance: how many of all items may fail.
    :param attempts: how many attempts an item gets at most. Default 1.
    :param stop_on_failure: whether the map ends as soon as more items have failed than are tolerated; if not, all items
        run. Default True.
    """

    def __init__(
        self,
        size: int,
        indexes: Sequence[int],
        *,
        max_concurrency: int,
        tolerance: Tolerance,
        attempts: int = 1,
        stop_on_failure: bool = True,
    ) -> None:
        self.size = size
        self.tolerance = tolerance
        self.attempts = attempts
        self.has_started_any = False
        """Whether any job of these items was started, by this trigger or an earlier one."""
        self.restored = 0
        """How many items had ended according to an earlier trigger."""
        self._started_again: Counter[str] = Counter()
        """How often an item was started again, by the letter of the cause."""
        self._lines: dict[int, str] = {}
        """Result lines of items that have ended, in the order of their ends."""
        self._stop_on_failure = stop_on_failure
        self._max_concurrency = max_concurrency
        self._statuses = bytearray(SUCCEEDED.encode() * size)
        for index in indexes:
            self._statuses[index] = ord(NOT_STARTED)
        self._to_start = deque(indexes)
        self._next_starts: dict[int, Start] = {}
        """The last start, or the next one, of the items that are past their first start."""
        self._changes: dict[int, dict[int, dict[str, Any]]] = {}
        """What was changed for items that were started again, by index and attempt, as far as this trigger did it."""
        self._changed_starts: dict[int, list[dict[str, Any]]] = {}
        """What was changed, by index, because there was no capacity to start an attempt."""
        self._running: dict[str, int] = {}
        """The index of each counting job, by its id."""
        self._starting = 0

    # What to do next.

    @property
    def too_many_failed(self) -> bool:
        """Whether the map has to end because more items have failed than are tolerated."""
        return self._stop_on_failure and not self.tolerance.allows(self.count(FAILED), self.size)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.too_many_failed or not (self._to_start or self._starting or self._running)

    @property
    def is_stalled(self) -> bool:
        """Whether starting was stopped before all items were started, and nothing runs."""
        return self._max_concurrency == 0 and bool(self._to_start) and not (self._starting or self._running)

    @property
    def can_start(self) -> bool:
        """Whether an item may be started now."""
        has_slot = self._starting + len(self._running) < self._max_concurrency
        return bool(self._to_start) and not self.too_many_failed and has_slot

    @property
    def has_waiting(self) -> bool:
        """Whether items wait to be started, so that the end of a job frees a slot for one."""
        return bool(self._to_start) and self._max_concurrency > 0 and not self.too_many_failed

    def next_start(self) -> Start | None:
        """Return the start to make next, and mark its item as being started. None if nothing may be started now."""
        if not self.can_start:
            return None
        index = self._to_start.popleft()
        self._set_status(index, STARTING)
        self._starting += 1
        return self._start_of(index)

    # What has happened.

    def record_started(self, index: int, job_id: str) -> None:
        """Record that an item's job was started.

        :param index: the item's index.
        :param job_id: the job's id.
        """
        self._starting -= 1
        self._run(index, job_id)

    def record_found(self, found: Found) -> bool:
        """Record a job that an earlier trigger has started.

        Call it before ``next_start``, for the newest attempt of an item first.

        :param found: the job, from a listing.
        :return: whether this job is its item's counting one.
        """
        if not 0 <= found.index < self.size or self._status(found.index) != NOT_STARTED:
            return False
        if len(found.history) < len(self._start_of(found.index).history):
            return False  # its end is recorded, and the next attempt is due
        self._next_starts[found.index] = Start(found.index, found.history)
        self._run(found.index, found.job_id)
        return True

    def drop_found(self) -> None:
        """Remove the items whose jobs were found from those to start. Call it when all are recorded."""
        self._to_start = deque(index for index in self._to_start if self._status(index) == NOT_STARTED)

    def stop_starting(self) -> None:
        """Stop starting items; running ones continue."""
        self._max_concurrency = 0

    def requeue(self, start: Start, *, no_capacity: bool = False, change: Change | None = None) -> None:
        """Record that a start has started nothing and has to be made again.

        :param start: the start.
        :param no_capacity: whether the service had no capacity. The next start is then a new one for the service, with
            another token. Default False.
        :param change: what changes then. Nothing was started, so it is the same attempt. Default None: nothing.
        """
        self._starting -= 1
        values = start.values if change is None else {**start.values, **change.values}
        self._next_starts[start.index] = replace(start, turn=start.turn + no_capacity, values=values)
        if change:
            self._changed_starts.setdefault(start.index, []).append(change.to_dict(start.attempt))
        self._wait_again(start.index)

    def record_rejected(self, index: int, line: str) -> None:
        """Record that the service rejected an item's start, so the item has failed.

        :param index: the item's index.
        :param line: the item's result line.
        """
        self._starting -= 1
        self._end(index, FAILED, line)

    def record_end(self, job_id: str, line: str, status: str) -> None:
        """Record the end of an item's last job, or that it cannot be described.

        :param job_id: the job's id.
        :param line: the item's result line.
        :param status: ``SUCCEEDED``, ``FAILED`` or ``NOT_DESCRIBED``.
        """
        self._end(self._running.pop(job_id), status, line)

    def has_attempt_left(self, job_id: str) -> bool:
        """Return whether the item of a running job may be started again.

        :param job_id: the job's id.
        :raises KeyError: no such job is running.
        """
        return self.last_start(job_id).attempt < self.attempts

    def start_again(self, job_id: str, change: Change) -> None:
        """Record that a job has failed, and that the next attempt at its item is due.

        :param job_id: the job's id.
        :param change: what the next attempt changes.
        """
        last = self.last_start(job_id)
        del self._running[job_id]
        again = Start(last.index, last.history + change.cause, values=change.values)
        self._next_starts[last.index] = again
        self._changes.setdefault(last.index, {})[again.attempt] = change.to_dict(again.attempt)
        self._started_again[change.cause] += 1
        self._wait_again(last.index)

    def record_stopped(self, job_id: str, line: str) -> None:
        """Record that a running job was stopped because the map was ended.

        :param job_id: the job's id.
        :param line: the item's result line.
        """
        self._end(self._running.pop(job_id), STOPPED, line)

    def restore(self, statuses: str, lines: Mapping[int, str]) -> None:
        """Record the items that had ended according to an earlier trigger. Call it before ``record_found``.

        :param statuses: the statuses of all items.
        :param lines: result lines by index.
        """
        for index, status in enumerate(statuses[: self.size]):
            if status in FINAL_STATUSES and self._status(index) == NOT_STARTED:
                self.has_started_any = True
                self.restored += 1
                self._end(index, status, lines.get(index, ""))

    def _run(self, index: int, job_id: str) -> None:
        self.has_started_any = True
        self._running[job_id] = index
        self._set_status(index, RUNNING)

    def _wait_again(self, index: int) -> None:
        self._set_status(index, NOT_STARTED)
        self._to_start.appendleft(index)

    def _end(self, index: int, status: str, line: str) -> None:
        self._set_status(index, status)
        has_changed = bool(self.changes_of(index))
        self._next_starts.pop(index, None)
        self._changes.pop(index, None)
        self._changed_starts.pop(index, None)
        if line and (status != SUCCEEDED or has_changed or self.size <= IN_FULL):
            self._lines[index] = line

    # Progress.

    def _status(self, index: int) -> str:
        return chr(self._statuses[index])

    def _set_status(self, index: int, status: str) -> None:
        self._statuses[index] = ord(status)

    def count(self, status: str) -> int:
        """Return the number of items in a status.

        :param status: one of the characters of ``jobs.map_statuses``.
        """
        return self._statuses.count(status.encode())

    @property
    def statuses(self) -> str:
        """The status of each item, one character each, in the items' order."""
        return self._statuses.decode()

    @property
    def running(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return list(self._running)

    def is_undescribed(self, found: Found) -> bool:
        """Return whether a job belongs to an item whose job cannot be described, so that nobody wants it stopped yet.

        :param found: the job, from a listing.
        """
        return 0 <= found.index < self.size and self._status(found.index) == NOT_DESCRIBED

    def last_start(self, job_id: str) -> Start:
        """Return the start of a running job.

        :param job_id: the job's id.
        :raises KeyError: no such job is running.
        """
        return self._start_of(self._running[job_id])

    def _start_of(self, index: int) -> Start:
        return self._next_starts.get(index) or Start(index)

    def changes_of(self, index: int) -> list[dict[str, Any]]:
        """Return what was changed for an item that has not ended, and why, see ``jobs.changes.Change``.

        Of attempts that another trigger has started, only the cause is known.

        :param index: the item's index.
        """
        known = self._changes.get(index, {})
        unknown: dict[str, Any] = {"changed": {}, "text": "it was started by another triggerer"}
        again = [
            known.get(attempt) or {"attempt": attempt, "cause": name_of(letter), **unknown}
            for attempt, letter in enumerate(self._start_of(index).history, 2)
        ]
        return sorted([*again, *self._changed_starts.get(index, ())], key=lambda each: each["attempt"])

    def lines(self) -> list[str]:
        """Return the result lines of items that have ended, in the items' order."""
        return [line for _, line in sorted(self._lines.items())]

    def lines_since(self, count: int) -> list[str]:
        """Return the result lines in the order in which the items ended.

        :param count: how many of the first lines to leave out.
        """
        return list(islice(self._lines.values(), count, None))

    @property
    def started_again(self) -> str:
        """How often items were started again, by cause, as a text; empty if none was."""
        again = self._started_again
        counts = [f"{count:,} {name_of(letter).replace('_', ' ')}" for letter, count in again.most_common()]
        return f"{again.total():,} started again ({', '.join(counts)})" if counts else ""

    def progress(self) -> str:
        """Return the progress as one line of a task's log."""
        return ", ".join(filter(None, [map_statuses.progress(self.statuses), self.started_again]))


def name_of(letter: str) -> str:
    """Return the name of the cause with a letter; only a newer version has a letter that is not known.

    :param letter: of a history.
    """
    return CAUSES[letter].name if letter in CAUSES else "unknown"
