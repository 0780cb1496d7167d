"""Tracks the jobs of a map until they end, and records their results.

New jobs are gathered into small groups that join the process's watcher, so that waiting for thousands costs one
describe call per hundred jobs. If AWS has not known a job, or has rejected its id, for the grace period, the wait for
this job ends: the item's state is then unknown, and the other items continue. If describe calls are refused because
permissions or credentials are missing, the map cannot continue, although its jobs may be fine.

While items wait to be started, the end of a job frees a slot for one. So jobs are then described more often: at most
every ``REFILL_INTERVAL`` seconds, and only as often as that takes at most ``REFILL_SHARE`` of the rate limit. If events
report ends, the watcher polls at its slow interval anyway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from airflow_jobflow.faults import Fault
from airflow_jobflow.jobs.changes import Change, Changes
from airflow_jobflow.jobs.map_statuses import FAILED, NOT_DESCRIBED, SUCCEEDED, UNKNOWN, span
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.usage import Usage, total
from airflow_jobflow.maps.background import BackgroundTasks
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.subscription import Subscription
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.usage import job_usage

log = logging.getLogger(__name__)
"""The module's logger: Airflow knows from the context which task a line belongs to."""

GROUP_DELAY = 1.0
"""Seconds for which new jobs are gathered before they join the watcher together."""

REFILL_INTERVAL = 5.0
"""Seconds between two describe calls for a job while items wait to be started, or a multiple of it. Never more than the
map's ``poll_interval``."""

REFILL_SHARE = 0.25
"""The share of the rate limit that these describe calls may take, for all maps of a watcher together."""

MAX_FAILURES_LOGGED = 20
"""How many failed items get a line of their own in the log."""

MAX_CHANGES_LOGGED = 100
"""How many items that are started again get a line of their own in the log."""


class JobTracker:
    """Tracks the jobs of a map.

    :param state: the map's state; every end is recorded in it.
    :param background: runs the waits; fails if jobs cannot be described for reasons that are not their own.
    :param watcher: returns the watcher of the map's jobs.
    :param poll_interval: seconds between two describe calls for one job.
    :param container: name of the container whose exit code counts; None to follow AWS's own rules.
    :param changes: for which causes an item is started again, and what changes then. Default: for none.
    :param service: our name of the service, such as ``batch``.
    """

    def __init__(
        self,
        state: MapState,
        background: BackgroundTasks,
        *,
        service: str,
        watcher: Callable[[], Watcher[Snapshot]],
        poll_interval: float,
        container: str | None = None,
        changes: Changes | None = None,
    ) -> None:
        self.times: list[str | None] = [None, None, None]
        """When the first job was created, when the first started, and when the last ended, in ISO 8601."""
        self.usage: Usage | None = None
        """What the jobs used that ended while this tracker ran; None if none has."""
        self.ends_seen = 0
        """How many jobs these are."""
        self.not_described: list[str] = []
        """Ids of jobs that cannot be described; they may still run."""
        self._service = service
        self._state = state
        self._background = background
        self._watcher = watcher
        self._poll_interval = self._interval = poll_interval
        self._waits: set[Subscription[Snapshot]] = set()
        self._container = container
        self._changes = changes or Changes()
        self._new: list[str] = []
        """Ids of jobs that have not joined the watcher yet."""
        self._failures_logged = 0
        self._changes_logged = 0

    def add(self, job_id: str) -> None:
        """Track a job that was just started. It joins the watcher after ``GROUP_DELAY``, together with others.

        :param job_id: the job's id.
        """
        self._new.append(job_id)
        if len(self._new) == 1:
            asyncio.get_running_loop().call_later(min(GROUP_DELAY, self._poll_interval), self._track_new)

    def add_all(self, job_ids: Iterable[str]) -> None:
        """Track several jobs. They join the watcher at once.

        :param job_ids: the jobs' ids.
        """
        self._new += job_ids
        self._track_new()

    def _track_new(self) -> None:
        new, self._new = self._new, []
        if new and not self._background.closed:
            self._background.spawn(self._track(new))

    async def adjust_poll_interval(self) -> None:
        """Poll more often while items wait to be started. Runs until cancelled."""
        while self._poll_interval > REFILL_INTERVAL:
            self._set_interval()
            await asyncio.sleep(REFILL_INTERVAL)

    def _set_interval(self) -> None:
        if not self._waits:  # do not create a watcher that nobody joins: it would never end
            return
        interval, watcher = self._poll_interval, self._watcher()
        if self._state.has_waiting:
            # In whole steps, so that all jobs have the same interval and share their calls.
            steps = max(1, math.ceil(watcher.interval_for(REFILL_SHARE) / REFILL_INTERVAL))
            interval = min(interval, steps * REFILL_INTERVAL)
        if interval != self._interval:
            self._interval = interval
            for wait in self._waits:
                watcher.set_interval(wait, interval)

    async def _track(self, job_ids: Sequence[str]) -> None:
        watcher = self._watcher()
        with watcher.subscribe(job_ids, self._interval) as wait:
            self._waits.add(wait)
            try:
                await self._wait_for_ends(watcher, wait)
            finally:
                self._waits.discard(wait)

    async def _wait_for_ends(self, watcher: Watcher[Snapshot], wait: Subscription[Snapshot]) -> None:
        open_ids = set(wait.job_ids)
        async for job_id, update in wait:
            if job_id not in open_ids:
                continue
            if isinstance(update, WatchError):
                if not _concerns_one_job(update):
                    raise update
                self.not_described.append(job_id)
                self._record_end(job_id, failed_snapshot(job_id, UNKNOWN, f"could not be described: {update}"))
            elif update.state.ended:
                self._record_end(job_id, update.counting(self._container))
                watcher.unsubscribe(job_id, wait)
            else:
                continue
            open_ids.discard(job_id)
            if not open_ids:
                return

    def _record_end(self, job_id: str, last: Snapshot) -> None:
        state = self._state
        start = state.last_start(job_id)
        index = start.index
        status = SUCCEEDED if last.state is JobState.SUCCEEDED else FAILED
        if last.status == UNKNOWN:
            status = NOT_DESCRIBED
        self.times = span(self.times, [last.created_at, last.started_at, last.stopped_at])
        if used := job_usage(last, self._service):
            self.usage = total([self.usage, used]) if self.usage else used
        change, why_not = self._next_change(job_id, start, last)
        if change:
            state.start_again(job_id, change)
            self.log_change(index, start.attempt + 1, change, job_id)
        else:
            self.ends_seen += 1
            state.record_end(job_id, result_line(index, last, state.changes_of(index), why_not), status)
            if status != SUCCEEDED and self._failures_logged < MAX_FAILURES_LOGGED:
                self._failures_logged += 1
                if status == NOT_DESCRIBED:
                    log.warning("Item %d %s; its state is unknown: %s may still run", index, last.reason, job_id)
                else:
                    how = f"{last.progress()}. {why_not}" if why_not else last.progress()
                    log.warning("Item %d failed: %s %s", index, job_id, how)
        self._background.changed.set()

    def log_change(self, index: int, attempt: int, change: Change, failed: str = "") -> None:
        """Log what changes for an attempt, unless too many were logged.

        :param index: the item's index.
        :param attempt: its number.
        :param change: the change.
        :param failed: the job that has failed. Default: none was started.
        """
        if self._changes_logged < MAX_CHANGES_LOGGED:
            self._changes_logged += 1
            end = f" ({failed} failed)" if failed else ""
            log.info("Item %d, attempt %d of %d: %s%s", index, attempt, self._state.attempts, change.text, end)

    def _next_change(self, job_id: str, start: Start, last: Snapshot) -> tuple[Change | None, str]:
        """Return what the next attempt at an item changes, or why there is none although a rule applies."""
        cause = self._changes.cause(last)
        if not cause:
            return None, ""
        if not self._state.has_attempt_left(job_id):
            most = self._state.attempts
            return None, f"It was attempt {start.attempt} of {most}, the most that item_attempts allows."
        change = self._changes.after(start.history + cause, last)
        return (change, "") if isinstance(change, Change) else (None, change.text)


def _concerns_one_job(error: WatchError) -> bool:
    """Return whether a job cannot be described for a reason of its own, rather than one that concerns all jobs."""
    return isinstance(error, NotFound) or (isinstance(error, DescribeRejected) and error.fault is Fault.REJECTED)


def failed_snapshot(job_id: str, status: str, reason: str) -> Snapshot:
    """Return a snapshot for an item that failed without a description by AWS.

    :param job_id: the job's id; empty if no job was started.
    :param status: the status to show, see ``jobs.map_statuses``.
    :param reason: why it failed, for people.
    """
    return Snapshot(job_id, JobState.FAILED, status, reason=reason)


def result_line(index: int, last: Snapshot, changes: Sequence[Mapping[str, Any]] = (), why_not: str = "") -> str:
    """Return the result line of an item as JSON: ``[index, snapshot]``, and a third member if there is more to say.

    :param index: the item's index.
    :param last: the last snapshot of its job.
    :param changes: what was changed for its later attempts. Default: nothing.
    :param why_not: why it was not started again although a rule applies, as a sentence. Default: none does.
    """
    more = {name: value for name, value in (("changes", list(changes)), ("not_started_again", why_not)) if value}
    return json.dumps([index, last.to_dict(), more] if more else [index, last.to_dict()])
