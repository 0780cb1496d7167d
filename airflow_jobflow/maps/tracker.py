"""Follows the jobs of a map until they end, and records how.

Small groups of new jobs join the process's watcher, so that waiting for thousands costs a describe call for a hundred.
A job that AWS does not know any more, or whose id it rejects, counts as failed. If describe calls are refused for lack
of permission or credentials, the map cannot go on; its jobs may be well.

While items wait to be started, the end of a job frees a slot for one. So jobs are described more often then, at most
every ``REFILL_INTERVAL`` seconds, and only as often as that takes ``REFILL_SHARE`` of the budget. Where events tell of
ends, the watcher describes jobs at its slow interval all the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence

from airflow_jobflow.faults import Fault
from airflow_jobflow.jobs.causes import SPOT_RECLAIMED
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.map_statuses import LOST, span
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.maps.background import BackgroundTasks
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.subscription import Subscription
from airflow_jobflow.polling.watcher import Watcher

log = logging.getLogger(__name__)
"""Of the module: which task a line belongs to, Airflow knows from the context it is logged in."""

GATHERING = 1.0
"""Seconds for which new jobs are gathered before they are watched together."""

REFILL_INTERVAL = 5.0
"""Seconds between two describe calls for a job while items wait to be started, or a multiple of it. Not more than the
map's ``poll_interval``."""

REFILL_SHARE = 0.25
"""The share of the budget that describe calls may take for that, of all maps of a watcher together."""

FAILURES_LOGGED = 20
"""How many failed items get a line of their own in the log."""


class JobTracker:
    """Follows the jobs of a map.

    :param state: how far the map is; every end is recorded in it.
    :param background: where the waiting goes on; it fails if jobs cannot be described for reasons that are not theirs.
    :param watcher: returns what watches the map's jobs.
    :param poll_interval: seconds between two describe calls for one job.
    :param container: the name of the container that counts; None for the one that AWS's rules make decide.
    """

    def __init__(
        self,
        state: MapState,
        background: BackgroundTasks,
        *,
        watcher: Callable[[], Watcher[Snapshot]],
        poll_interval: float,
        container: str | None = None,
    ) -> None:
        self.times: list[str | None] = [None, None, None]
        """When the first job was created, when the first began, and when the last ended."""
        self.lost: list[str] = []
        """Jobs that count as failed because they cannot be described; they may run."""
        self._state = state
        self._background = background
        self._watcher = watcher
        self._poll_interval = self._interval = poll_interval
        self._waits: set[Subscription[Snapshot]] = set()
        self._container = container
        self._new: list[str] = []
        """Jobs that nobody watches yet."""
        self._failures_logged = 0

    def add(self, job_id: str) -> None:
        """Follow a job that was just started."""
        self._new.append(job_id)
        if len(self._new) == 1:
            asyncio.get_running_loop().call_later(min(GATHERING, self._poll_interval), self._follow_new)

    def add_all(self, job_ids: Iterable[str]) -> None:
        """Follow jobs from now on."""
        self._new += job_ids
        self._follow_new()

    def _follow_new(self) -> None:
        new, self._new = self._new, []
        if new and not self._background.closed:
            self._background.spawn(self._follow(new))

    async def keep_pace(self) -> None:
        """Describe jobs as often as items that wait to be started make it worthwhile. Runs until it is cancelled."""
        while self._poll_interval > REFILL_INTERVAL:
            self._set_pace()
            await asyncio.sleep(REFILL_INTERVAL)

    def _set_pace(self) -> None:
        if not self._waits:  # a watcher that nobody joins would never end
            return
        wanted, watcher = self._poll_interval, self._watcher()
        if self._state.has_waiting:
            # In whole steps, so that all jobs have the same interval and share their calls.
            steps = max(1, math.ceil(watcher.interval_for(REFILL_SHARE) / REFILL_INTERVAL))
            wanted = min(wanted, steps * REFILL_INTERVAL)
        if wanted != self._interval:
            self._interval = wanted
            for wait in self._waits:
                watcher.set_interval(wait, wanted)

    async def _follow(self, job_ids: Sequence[str]) -> None:
        watcher = self._watcher()
        with watcher.subscribe(job_ids, self._interval) as wait:
            self._waits.add(wait)
            try:
                await self._until_ended(watcher, wait)
            finally:
                self._waits.discard(wait)

    async def _until_ended(self, watcher: Watcher[Snapshot], wait: Subscription[Snapshot]) -> None:
        left = set(wait.job_ids)
        async for job_id, news in wait:
            if job_id not in left:
                continue
            if isinstance(news, WatchError):
                if not _is_its_own(news):
                    raise news
                self.lost.append(job_id)
                self._end(job_id, not_seen(job_id, LOST, str(news)))
            elif news.state.ended:
                self._end(job_id, news.counting(self._container))
                watcher.unsubscribe(job_id, wait)
            else:
                continue
            left.discard(job_id)
            if not left:
                return

    def _end(self, job_id: str, last: Snapshot) -> None:
        """Record the end of a job."""
        state = self._state
        index, attempt = state.index_of(job_id), state.attempt_of(job_id)
        succeeded = last.state is JobState.SUCCEEDED
        self.times = span(self.times, [last.created_at, last.started_at, last.stopped_at])
        interrupted = not succeeded and state.attempts > 1 and diagnose(last) is SPOT_RECLAIMED
        if state.ended(job_id, line(index, last), succeeded=succeeded, interrupted=interrupted):
            log.info("Item %d: Spot capacity was taken back from attempt %d of %d", index, attempt, state.attempts)
        elif not succeeded and self._failures_logged < FAILURES_LOGGED:
            self._failures_logged += 1
            log.warning("Item %d failed: %s %s", index, job_id, last.progress())
        self._background.changed.set()


def _is_its_own(error: WatchError) -> bool:
    """Return whether a job cannot be described for a reason of its own, and not one of all jobs."""
    return isinstance(error, NotFound) or (isinstance(error, DescribeRejected) and error.fault is Fault.REJECTED)


def not_seen(job_id: str, status: str, reason: str) -> Snapshot:
    """Return what stands for the last snapshot of an item that failed without one."""
    return Snapshot(job_id, JobState.FAILED, status, reason=reason)


def line(index: int, last: Snapshot) -> str:
    """Return what is told of an item that has ended."""
    return json.dumps([index, last.to_dict()])
