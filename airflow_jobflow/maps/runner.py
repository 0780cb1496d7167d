"""Runs a map: starts items, tracks their jobs, and stops what still runs at the end.

``maps.state`` decides what to start. This module makes the calls and records their results.

Invariants:

- Nothing is started before the map is recovered (see ``maps.recovery``), nor while another triggerer may own the map.
- A start that is denied, throttled or without capacity stops nothing: running jobs are tracked to their end.
- A cancelled await keeps the message of the ``CancelledError``. Without it Airflow does not call ``on_kill``.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from airflow_jobflow.aws import backoff
from airflow_jobflow.exceptions import CapacityUnavailable
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.changes import Change, Changes
from airflow_jobflow.jobs.map_statuses import NOT_STARTED, REFUSED, STARTING
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.jobs.starting import NotStarted
from airflow_jobflow.jobs.usage import Usage
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.maps.background import BackgroundTasks
from airflow_jobflow.maps.calls import ItemRejected, MapCalls, MapCancelled, OwnershipLost
from airflow_jobflow.maps.checkpoint import Checkpoint
from airflow_jobflow.maps.ownership import heartbeats
from airflow_jobflow.maps.recovery import MapRecovery
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.stopper import MAX_CONCURRENT_CALLS, Unstopped
from airflow_jobflow.maps.tracker import JobTracker, failed_snapshot, result_line
from airflow_jobflow.polling.refusals import REFUSED_GRACE
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.stopping import Spawn

log = logging.getLogger(__name__)
"""The module's logger: Airflow knows from the context which task a line belongs to."""

PROGRESS_INTERVAL = 10.0
"""The least seconds between two log lines about the progress."""

TRANSFER_DELAY = 15.0
"""Seconds to wait after a gap in the heartbeats. By then Airflow has cancelled a trigger that it has moved to another
triggerer."""

START_GRACE = 15.0
"""Seconds to wait, at the end, for starts in progress. Jobs that they start later are found by listing."""


class MapRunner:
    """Runs one map.

    :param state: the map's state.
    :param calls: makes the map's calls.
    :param requests: the request of each item to run, as JSON, by index.
    :param watcher: returns the watcher of the map's jobs.
    :param poll_interval: seconds between two describe calls for one job.
    :param spawn: runs a coroutine in the background to its end, even after the trigger has ended.
    :param container: name of the container whose exit code counts; None to follow AWS's own rules.
    :param changes: for which causes an item is started again, and what changes then. Default: for none.
    :param checkpoint: the map's checkpoints. Default None: there is no place to save them.
    :param is_deferred: returns whether the task is still deferred. Default None: no other triggerer can take over
        the map.
    :param on_progress: called when the progress has changed, at most every ``PROGRESS_INTERVAL``. Default: nothing.
    """

    def __init__(
        self,
        state: MapState,
        calls: MapCalls,
        requests: Mapping[int, str],
        *,
        watcher: Callable[[], Watcher[Snapshot]],
        poll_interval: float,
        spawn: Spawn,
        container: str | None = None,
        changes: Changes | None = None,
        checkpoint: Checkpoint | None = None,
        is_deferred: Callable[[], Awaitable[bool]] | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._calls = calls
        self._requests = requests
        self._changes = changes or Changes()
        self._is_deferred = is_deferred
        self._spawn = spawn
        self._on_progress = on_progress
        self._background = BackgroundTasks()
        self._tracker = JobTracker(
            state,
            self._background,
            service=calls.service,
            watcher=watcher,
            poll_interval=poll_interval,
            container=container,
            changes=self._changes,
        )
        self._recovery = MapRecovery(state, calls, self._tracker, checkpoint)
        self._starts: set[asyncio.Task[None]] = set()
        """The starts in progress."""
        self._paused_until = 0.0
        """Nothing is started before this time, by the event loop's clock."""
        self._pauses = 0
        """The number of pauses since the last successful start."""
        self._must_list = False
        """Whether the jobs must be listed before anything else is started: a response may have been wrong, or another
        triggerer may have had the map."""
        self._scope_missing_since: float | None = None
        """When the first of the recent starts failed because there is no such queue or cluster; None if none did."""
        self._start_error: CallError | None = None
        """Why no more items can be started."""

    @property
    def times(self) -> list[str | None]:
        """When the first job was created, when the first started, and when the last ended, in ISO 8601."""
        return self._tracker.times

    @property
    def usage(self) -> Usage | None:
        """What the map's jobs used; an estimate if an earlier trigger has seen some of them end."""
        used, seen, restored = self._tracker.usage, self._tracker.ends_seen, self._state.restored
        return used.scaled((seen + restored) / seen) if used and seen and restored else used

    async def recover(self, *, first_trigger_until: float) -> None:
        """Start the heartbeats, and find what earlier triggers have started. Call it before ``run``.

        :param first_trigger_until: seconds since the epoch; a trigger that recovers the map later is not its first.
        :raises CallError: the jobs cannot be listed, even after the grace period.
        """
        self._background.spawn(
            heartbeats(self._is_deferred, is_needed=self._has_more_to_start, on_heartbeat=self._record_heartbeat)
        )
        await self._recovery.recover(first_trigger_until=first_trigger_until)

    async def run(self) -> None:
        """Run the map until there is nothing left to wait for.

        :raises ItemRejected: the first start was rejected.
        :raises CallError: no more items can be started, and the started ones have ended.
        :raises WatchError: the jobs cannot be described.
        :raises MapCancelled: the task was killed.
        :raises TimeoutError: the deadline had passed before ``run`` was called, and the started items have ended.
        """
        self._background.spawn(self._report_progress())
        self._background.spawn(self._tracker.adjust_poll_interval())
        self._background.spawn(self._recovery.save_checkpoints())
        ownership = self._calls.ownership
        while not self._state.is_over:
            if self._background.failed:
                raise self._background.failed
            if self._state.is_stalled:
                raise self._start_error or TimeoutError
            self._background.changed.clear()
            pause = self._paused_until - _now()
            # Before the first success, one start at a time: a rejection then fails the whole map.
            max_starts = MAX_CONCURRENT_CALLS if self._state.has_started_any else 1
            must_wait = ownership.is_lost or self._must_list or pause > 0 or len(self._starts) >= max_starts
            if ownership.is_lost and ownership.is_confirmed and not self._starts:
                self._reacquire()
            elif self._must_list and pause <= 0 and not self._starts:
                self._must_list = False
                await self._recovery.find_jobs()
            elif must_wait or not self._state.can_start:
                await self._wait_for_change(pause if pause > 0 else None)
            elif start := self._state.next_start():
                task = self._background.spawn(self._start(start))
                self._starts.add(task)
                task.add_done_callback(self._starts.discard)
                await asyncio.sleep(0)

    async def _wait_for_change(self, seconds: float | None) -> None:
        """Wait for a change, for at most ``seconds``; None for no limit.

        This does not use ``asyncio.timeout``: if it expires just when a kill cancels this, the kill's message is lost.
        """
        loop, changed = asyncio.get_running_loop(), self._background.changed
        timer = None if seconds is None else loop.call_later(seconds, changed.set)
        try:
            await changed.wait()
        finally:
            if timer:
                timer.cancel()

    def _record_heartbeat(self, queried_at: float) -> None:
        self._calls.ownership.record(queried_at)
        self._background.changed.set()

    def _has_more_to_start(self) -> bool:
        """Return whether an item waits to be started, or may have to be started again without a token."""
        state = self._state
        may_start_again = state.attempts > 1 and not self._calls.starts_are_repeatable
        return not state.is_over and (may_start_again or state.count(NOT_STARTED) + state.count(STARTING) > 0)

    def _reacquire(self) -> None:
        """Continue after a gap in the heartbeats. If another triggerer has the map, Airflow cancels this trigger."""
        self._calls.ownership.reacquire()
        self._calls.may_have_unknown_jobs = True
        self._must_list = True
        self._paused_until = max(self._paused_until, _now() + TRANSFER_DELAY)

    # Starting.

    async def _start(self, start: Start) -> None:
        """Start an item, and record the result."""
        state = self._state
        try:
            job_id = await self._calls.start(json.loads(self._requests[start.index]), start)
        except OwnershipLost:
            state.requeue(start)
        except CapacityUnavailable as error:
            change = self._change_without_capacity(start, error)
            state.requeue(start, no_capacity=True, change=change)
            self._must_list |= isinstance(error.__cause__, NotStarted)
            if change:
                self._tracker.log_change(start.index, start.attempt, change)
            else:
                self._pause(error)
        except ItemRejected as error:
            if not state.has_started_any:
                state.requeue(start)
                raise ItemRejected(f"items[{start.index}]: {error}") from error
            log.warning("Item %d could not be started, because AWS rejected it: %s", start.index, error)
            refused, changes = failed_snapshot("", REFUSED, str(error)), state.changes_of(start.index)
            state.record_rejected(start.index, result_line(start.index, refused, changes))
        except CallError as error:
            state.requeue(start)
            self._record_start_error(error)
        except MapCancelled:
            state.requeue(start)
            raise
        else:
            self._pauses = 0
            self._scope_missing_since = None
            state.record_started(start.index, job_id)
            self._calls.unrecorded.discard(job_id)
            self._tracker.add(job_id)

    def _change_without_capacity(self, start: Start, error: CapacityUnavailable) -> Change | None:
        """Return what a start changes for which AWS has no capacity; None if it has changed that already."""
        if getattr(error.__cause__, "fault", None) is not Fault.NO_CAPACITY:
            return None
        change = self._changes.without_capacity("AWS had no capacity for it")
        return change if change and not change.values.items() <= start.values.items() else None

    def _record_start_error(self, error: CallError) -> None:
        """Record that starting is not permitted, or that there is no such queue or cluster.

        :raises CallError: the map has started nothing, so it ends at once. Otherwise running jobs are tracked to their
            end first.
        """
        if not self._state.has_started_any:
            raise error
        if error.fault is Fault.SCOPE_NOT_FOUND:  # one response only; denials were retried for their grace period
            self._scope_missing_since = self._scope_missing_since or _now()
            if _now() - self._scope_missing_since < REFUSED_GRACE:
                self._pause(error)
                return
        if self._start_error is None:
            log.error("Starting no more items; waiting for those that run: %s", error)
            self._start_error = error
            self._state.stop_starting()

    def _pause(self, error: CapacityUnavailable | CallError) -> None:
        """Start nothing for a while. Starts that were in progress together cause one pause."""
        if _now() >= self._paused_until:
            self._pauses += 1
            delay = backoff(self._pauses)
            self._paused_until = _now() + delay
            log.info("No job can be started now: %s Trying again in %.0f s", sentence(str(error)), delay)

    async def _report_progress(self) -> None:
        last_logged = ""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            if (progress := self._state.progress()) != last_logged:
                last_logged = progress
                log.info("%s", progress)
                self._on_progress()

    # The end.

    async def shut_down(self, stop_reason: str | None, *, stop_timeout: float | None = None) -> Unstopped | None:
        """Stop starting items. Stop running jobs too, if ``stop_reason`` is given.

        :param stop_reason: the reason to send to AWS; None to leave running jobs alone.
        :param stop_timeout: seconds to wait for the stops; the others continue in the background. Default: until all
            jobs are stopped, or AWS has not responded for minutes.
        :return: the jobs that could not be stopped; None if ``stop_reason`` is None.
        """
        calls, state = self._calls, self._state
        calls.stop_starting()
        if self._starts and (await asyncio.wait(self._starts, timeout=START_GRACE))[1]:
            calls.may_have_unknown_jobs = True
        await self.close()
        if stop_reason is None:
            return None
        running = state.running
        # After a normal end, a job that could not be described is left alone: nobody wants it stopped.
        ended_normally = state.is_over and not state.too_many_failed
        to_stop = [*running, *([] if ended_normally else self._tracker.not_described), *calls.unrecorded]
        stop: Callable[..., Awaitable[Unstopped]] = calls.stopper.stop
        if calls.may_have_unknown_jobs:
            spared = state.is_undescribed if ended_normally else lambda _: False
            stop = functools.partial(calls.stopper.stop_all, spared=spared)
        if not (to_stop or calls.may_have_unknown_jobs):
            return Unstopped()
        if to_stop:
            log.warning("Stopping the %d jobs of the map that may still run", len(to_stop))
        for job_id in running:
            index, last = state.last_start(job_id).index, failed_snapshot(job_id, "STOPPED", stop_reason)
            state.record_stopped(job_id, result_line(index, last, state.changes_of(index)))
        return await self._stop(stop, stop_reason, to_stop, stop_timeout)

    async def _stop(
        self, stop: Callable[..., Awaitable[Unstopped]], reason: str, job_ids: Sequence[str], wait_seconds: float | None
    ) -> Unstopped:
        remaining: set[str] = set()
        result: list[Unstopped] = []

        async def work() -> None:
            result.append(await stop(reason, job_ids, remaining=remaining))
            if result[0]:
                log.error("Not all jobs of the map were stopped. Stop them in the console: %s", result[0])

        stopping = self._spawn(work())
        if (await asyncio.wait({stopping}, timeout=wait_seconds))[0]:
            stopping.result()
            return result[0]
        log.warning("%d jobs are not stopped yet; stopping them continues in the background", len(remaining))
        return Unstopped(tuple(sorted(remaining)))

    async def close(self) -> None:
        """Cancel everything that runs in the background of this map."""
        await self._background.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
