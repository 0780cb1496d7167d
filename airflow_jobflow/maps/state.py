"""A map: one job for each item. What to start next, what has ended, whether too many have failed.

Pure: a state machine of plain data; the caller starts, watches and stops jobs, and says what became of them.

Invariants:

- An item has at most one job at a time that counts, and no more than ``max_concurrency`` items have one.
- With ``stop_on_failure`` nothing is started once more items have failed than are tolerated.
- Items are started in their order, those that are started again first.
- What is kept is bounded: a character an item, the ids of what runs, and what the caller has said of failures (of
  every item, where these are few).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.map_statuses import FAILED, IN_FULL, NOT_STARTED, RUNNING, STARTING, STOPPED, SUCCEEDED
from airflow_jobflow.jobs.maps import Found, Start

ENDS_KEPT = frozenset({SUCCEEDED, FAILED})
"""Ends that stand, also for a trigger that goes on with the map; what was stopped is run again."""


class MapState:
    """How far a map is.

    :param size: how many items the map has.
    :param indexes: which of them are to be run; the others have succeeded in an earlier try.
    :param max_concurrency: how many items may have a job at the same time.
    :param tolerance: how many of all items may fail.
    :param attempts: how many attempts an item gets if they are interrupted. Default 1.
    :param stop_on_failure: whether the map ends as soon as more items have failed than are tolerated; if not, all items
        are run. Default True.
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
        self._lines: dict[int, str] = {}
        """What was said of items that have ended, as far as it is to be told."""
        self._stop_on_failure = stop_on_failure
        self._max_concurrency = max_concurrency
        self._statuses = bytearray(SUCCEEDED.encode() * size)
        for index in indexes:
            self._statuses[index] = ord(NOT_STARTED)
        self._to_start = deque(indexes)
        self._made: dict[int, tuple[int, int]] = {}
        """Attempt and turn of the items that are past their first."""
        self._running: dict[str, int] = {}
        """Index of each job that counts, by its id."""
        self._starting = 0

    # What is to be done.

    @property
    def broken(self) -> bool:
        """Whether the map is to end because more items have failed than are tolerated."""
        return self._stop_on_failure and not self.tolerance.allows(self.count(FAILED), self.size)

    @property
    def over(self) -> bool:
        """Whether nothing is left to be waited for."""
        return self.broken or not (self._to_start or self._starting or self._running)

    @property
    def stalled(self) -> bool:
        """Whether items are left that are not to be started any more, and nothing runs."""
        return self._max_concurrency == 0 and bool(self._to_start) and not (self._starting or self._running)

    @property
    def ready(self) -> bool:
        """Whether an item may be started now."""
        return bool(self._to_start) and not self.broken and self._starting + len(self._running) < self._max_concurrency

    @property
    def has_waiting(self) -> bool:
        """Whether items wait to be started, so that the end of a job is news to act on."""
        return bool(self._to_start) and self._max_concurrency > 0 and not self.broken

    def take(self) -> Start | None:
        """Return the start that is to be made next, if one may be made now; its item counts as being started."""
        if not self.ready:
            return None
        index = self._to_start.popleft()
        self._set(index, STARTING)
        self._starting += 1
        attempt, turn = self._made.get(index, (1, 0))
        return Start(index, attempt, turn)

    # What has happened.

    def started(self, index: int, job_id: str) -> None:
        """Take in that a start has started a job."""
        self._starting -= 1
        self._run(index, job_id)

    def found(self, found: Found) -> bool:
        """Take in what was started by an earlier trigger; return whether this job is the one that counts.

        Call it before anything is taken, for the newest attempt of an item first.
        """
        if not 0 <= found.index < self.size or self._status(found.index) != NOT_STARTED:
            return False
        self._made[found.index] = (found.attempt, 0)
        self._run(found.index, found.job_id)
        return True

    def resume(self) -> None:
        """Forget about starting what was found to have been started; call it once all is found."""
        self._to_start = deque(index for index in self._to_start if self._status(index) == NOT_STARTED)

    def start_no_more(self) -> None:
        """Start nothing from now on; what was started continues."""
        self._max_concurrency = 0

    def put_back(self, start: Start, *, full: bool = False) -> None:
        """Take in that a start has started nothing and is to be made again.

        :param full: whether for want of room: the next one is then another start to the service.
        """
        self._starting -= 1
        self._made[start.index] = (start.attempt, start.turn + full)
        self._wait_again(start.index)

    def refused(self, index: int, line: str) -> None:
        """Take in that an item's start was refused: the item has failed."""
        self._starting -= 1
        self._end(index, FAILED, line)

    def ended(self, job_id: str, line: str, *, succeeded: bool, interrupted: bool = False) -> bool:
        """Take in the end of a job; return whether the item is to be started again, for its job was interrupted.

        :param line: what is to be told of it.
        """
        index = self._running.pop(job_id)
        attempt, _ = self._made.get(index, (1, 0))
        if interrupted and attempt < self.attempts:
            self._made[index] = (attempt + 1, 0)
            self._wait_again(index)
            return True
        self._end(index, SUCCEEDED if succeeded else FAILED, line)
        return False

    def stopped(self, job_id: str, line: str) -> None:
        """Take in that a job was stopped before it had ended, for the map was ended."""
        self._end(self._running.pop(job_id), STOPPED, line)

    def restored(self, statuses: str, lines: Mapping[int, str]) -> None:
        """Take in what an earlier trigger knew to have ended; call it before anything is found."""
        for index, status in enumerate(statuses[: self.size]):
            if status in ENDS_KEPT and self._status(index) == NOT_STARTED:
                self._end(index, status, lines.get(index, ""))

    def _run(self, index: int, job_id: str) -> None:
        self._running[job_id] = index
        self._set(index, RUNNING)

    def _wait_again(self, index: int) -> None:
        self._set(index, NOT_STARTED)
        self._to_start.appendleft(index)

    def _end(self, index: int, status: str, line: str) -> None:
        self._set(index, status)
        self._made.pop(index, None)
        if line and (status != SUCCEEDED or self.size <= IN_FULL):
            self._lines[index] = line

    # How far it is.

    def _status(self, index: int) -> str:
        return chr(self._statuses[index])

    def _set(self, index: int, status: str) -> None:
        self._statuses[index] = ord(status)

    def count(self, status: str) -> int:
        """Return how many items stand so."""
        return self._statuses.count(status.encode())

    @property
    def statuses(self) -> str:
        """How each item stands, a character for each, in their order."""
        return self._statuses.decode()

    @property
    def running(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return list(self._running)

    def index_of(self, job_id: str) -> int:
        """Return whose job it is, one that has not ended."""
        return self._running[job_id]

    def attempt_of(self, job_id: str) -> int:
        """Return which attempt a job is that has not ended."""
        return self._made.get(self._running[job_id], (1, 0))[0]

    def told(self) -> list[str]:
        """Return what was said of items that have ended, in their order."""
        return [line for _, line in sorted(self._lines.items())]

    def reported_since(self, count: int) -> list[str]:
        """Return what was said of items that have ended, in the order of their ends, but for the first so many."""
        return list(islice(self._lines.values(), count, None))

    def progress(self) -> str:
        """Say in a few words how far it is, as one line of a task's log."""
        return map_statuses.progress(self.statuses)


def newest_first(found: Iterable[Found]) -> list[Found]:
    """Put jobs in the order in which ``MapState.found`` is to hear of them."""
    return sorted(found, key=lambda each: (each.index, -each.attempt))
