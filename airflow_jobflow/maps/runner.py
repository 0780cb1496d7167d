"""A map while it runs: starts what may be started, follows it, and winds it up.

What decides lies in ``jobs.fan_out``; this makes the calls that it decides on, and records what came of them.

Invariants:

- Nothing is started before it is known what earlier triggers of the map have started, nor before it is sure that a
  trigger that follows this one learns that there was one, nor while another may have the map.
- A start that is denied, throttled or without capacity stops nothing: what runs is followed to its end.
- Every await keeps the message of a cancellation. Without it Airflow does not call ``on_kill``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from airflow_jobflow.aws import backoff
from airflow_jobflow.exceptions import CapacityUnavailable
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.map_statuses import NOT_STARTED, REFUSED, STARTING, index_of_line
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.jobs.starting import NotStarted
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.maps.background import BackgroundTasks
from airflow_jobflow.maps.calls import THREADS, ItemRejected, MapCalls, MapCancelled, OwnershipLost, Unstopped
from airflow_jobflow.maps.checkpoint import Checkpoint
from airflow_jobflow.maps.ownership import heartbeats
from airflow_jobflow.maps.state import MapState, newest_first
from airflow_jobflow.maps.tracker import JobTracker, line, not_seen
from airflow_jobflow.polling.refusals import REFUSED_GRACE
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.stopping import Spawn

log = logging.getLogger(__name__)
"""Of the module: which task a line belongs to, Airflow knows from the context it is logged in."""

PROGRESS = 10.0
"""The least seconds between two lines about the progress."""

AGREEING = 3.0
"""Seconds between two listings, which must agree: what was just started shows up late."""

TRANSFER_DELAY = 15.0
"""Seconds after a standstill in which Airflow cancels a trigger that it has given to another triggerer meanwhile."""

START_GRACE = 15.0
"""Seconds for which starts that are under way at the end are waited for. What they start later is found by listing."""

ENDED = "Airflow: the map was ended before this item"


class MapRunner:
    """Runs a map.

    :param state: how far it is.
    :param calls: makes its calls.
    :param requests: the request of each item that is to be run, as JSON.
    :param watcher: returns what watches the map's jobs.
    :param poll_interval: seconds between two describe calls for one job.
    :param container: the name of the container that counts; None for the one that AWS's rules make decide.
    :param spawn: runs a coroutine in the background, to its end, also if the trigger is gone by then.
    :param checkpoint: keeps what has ended, where there is a place for that.
    :param ask: asks whether the task still waits for this, where it might be given to another triggerer.
    :param progressed: called now and then while the map comes further.
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
        checkpoint: Checkpoint | None = None,
        ask: Callable[[], Awaitable[bool]] | None = None,
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._calls = calls
        self._requests = requests
        self._checkpoint = checkpoint
        self._ask = ask
        self._spawn = spawn
        self._progressed = progressed
        self._saved = 0
        """How many of the lines that the state tells are kept."""
        self._background = BackgroundTasks()
        self._following = JobTracker(
            state, self._background, watcher=watcher, poll_interval=poll_interval, container=container
        )
        self._starting: set[asyncio.Task[None]] = set()
        self._proven = False
        """Whether the map has started anything: until then a refusal is the whole map's."""
        self._rests_until = 0.0
        self._rests = 0
        self._is_to_be_listed = False
        """Whether a response said that nothing was started, which is made sure of before anything else is started."""
        self._denied_since: float | None = None
        """When the first of the starts failed that have failed since because there is no such queue or cluster."""
        self._cannot_start: CallError | None = None
        """Why no more items can be started."""

    @property
    def times(self) -> list[str | None]:
        """When the first job was created, when the first began, and when the last ended."""
        return self._following.times

    # The beginning: what an earlier trigger has started.

    async def recover(self, *, fresh_until: float) -> None:
        """Find what an earlier trigger has started, so that nothing is started twice.

        A start may not be listed yet when the trigger that made it is followed by another. So the first trigger notes
        that there was one, before it starts anything; only one that finds no such note, in the first seconds of the
        map, believes an empty listing. Where it can note nothing, it lets these seconds pass.

        :param fresh_until: until when a trigger may be the map's first, in seconds since the epoch.
        :raises CallError: nothing can be listed, also not after the grace period.
        """
        calls = self._calls
        self._background.spawn(heartbeats(self._ask, wanted=self._has_more_to_start, note=self._beat))
        follows = self._checkpoint is not None and await self._restore(self._checkpoint)
        first = not follows and time.time() < fresh_until
        # Two triggers may have held the map for a while: what is double is looked for at the end as well.
        calls.in_doubt |= not first
        doubles = await self._find(first=first)
        if doubles:
            log.warning("Stopping %d duplicate jobs: %s", len(doubles), sorted(doubles))
            await calls.stop(ENDED, doubles)
        if first and self._checkpoint and not await self._checkpoint.save(self._state.statuses, ()):
            await asyncio.sleep(fresh_until - time.time())

    async def _restore(self, checkpoint: Checkpoint) -> bool:
        """Take in what earlier triggers have noted; return whether there may have been one."""
        noted = await checkpoint.load()
        if noted is None:
            return False
        before = self._state.statuses
        statuses, lines = noted
        self._state.restored(statuses, {index_of_line(each): each for each in lines})
        self._saved = len(self._state.reported_since(0))
        self._proven = self._state.statuses != before
        return True

    async def _find(self, *, first: bool = False) -> set[str]:
        """List what was started, and follow what nobody follows yet; return the ids of those that run for nothing."""
        calls = self._calls
        found = await calls.find()
        patient_until = _now() + calls.lateness
        while found or not first:
            await asyncio.sleep(AGREEING)
            before, found = found, await calls.find()
            if _now() >= patient_until and {each.job_id for each in before} == {each.job_id for each in found}:
                break
        counting = [each.job_id for each in newest_first(found) if self._state.found(each)]
        self._state.resume()
        if counting:
            log.info("Found %s jobs of the map that were started before; watching them", f"{len(counting):,}")
            self._proven = True
            self._following.add_all(counting)
        return {each.job_id for each in found if not each.ended} - set(self._state.running)

    # The middle: start what may be started, until all is over.

    async def run(self) -> None:
        """Run the map until nothing is left to be waited for.

        :raises Refused: the first start was rejected.
        :raises CallError: no more items can be started, and what was started has ended.
        :raises WatchError: the jobs cannot be described.
        :raises Halted: the task was killed.
        :raises TimeoutError: the deadline had passed before, and what was started has ended.
        """
        self._background.spawn(self._report_progress())
        self._background.spawn(self._following.keep_pace())
        if self._checkpoint:
            self._background.spawn(self._keep_ends(self._checkpoint))
        while not self._state.over:
            if self._background.failed:
                raise self._background.failed
            if self._state.stalled:
                raise self._cannot_start or TimeoutError
            self._background.changed.clear()
            rest = self._rests_until - _now()
            full = len(self._starting) >= (THREADS if self._proven else 1)
            if self._calls.frozen and self._calls.fresh and not self._starting:
                await self._reacquire()
            elif self._is_to_be_listed and rest <= 0 and not self._starting:
                await self._list_again()
            elif self._calls.frozen or self._is_to_be_listed or rest > 0 or full or not self._state.ready:
                await self._change(rest if rest > 0 else None)
            elif start := self._state.take():
                task = self._background.spawn(self._start(start))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
                await asyncio.sleep(0)

    async def _change(self, most: float | None) -> None:
        """Wait for a change; at most for so many seconds.

        Without ``asyncio.timeout``: a cancellation that meets its own would lose its message.
        """
        loop, changed = asyncio.get_running_loop(), self._background.changed
        timer = None if most is None else loop.call_later(most, changed.set)
        try:
            await changed.wait()
        finally:
            if timer:
                timer.cancel()

    def _beat(self, asked_at: float) -> None:
        self._calls.beat(asked_at)
        self._background.changed.set()

    def _has_more_to_start(self) -> bool:
        """Say whether an item waits for its start. One that is interrupted later has a token to be started with."""
        state = self._state
        return not state.over and state.count(NOT_STARTED) + state.count(STARTING) > 0

    async def _reacquire(self) -> None:
        """Go on after a standstill: another triggerer may have the map by now, and this one is cancelled then."""
        self._calls.frozen = False  # whatever stands still from here on is another standstill, with a thaw of its own
        self._calls.in_doubt = True
        await asyncio.sleep(TRANSFER_DELAY)
        await self._find()

    async def _list_again(self) -> None:
        """Find what was started although AWS said that it was not, before it is started under another token."""
        self._is_to_be_listed = False
        await self._find()

    async def _start(self, start: Start) -> None:
        """Make a start, and take in what came of it."""
        try:
            job_id = await self._calls.start(json.loads(self._requests[start.index]), start)
        except OwnershipLost:
            self._state.put_back(start)
        except CapacityUnavailable as full:
            self._state.put_back(start, full=True)
            self._is_to_be_listed |= isinstance(full.__cause__, NotStarted)
            self._rest(full)
        except ItemRejected as refused:
            if not self._proven:
                self._state.put_back(start)
                raise ItemRejected(f"items[{start.index}]: {refused}") from refused
            log.warning("Item %d could not be started, because AWS rejected it: %s", start.index, refused)
            self._state.refused(start.index, line(start.index, not_seen("", REFUSED, str(refused))))
        except CallError as error:
            self._state.put_back(start)
            self._cannot(error)
        except MapCancelled:
            self._state.put_back(start)
            raise
        else:
            self._proven = True
            self._rests = 0
            self._denied_since = None
            self._state.started(start.index, job_id)
            self._calls.begun.discard(job_id)
            self._following.add(job_id)

    def _cannot(self, error: CallError) -> None:
        """Record that a start is not permitted, or that there is no such queue or cluster.

        The first start ends the map by that, because nothing runs. Later, what runs is followed to its end.

        :raises CallError: the map has started nothing.
        """
        if not self._proven:
            raise error
        if error.fault is Fault.SCOPE_NOT_FOUND:  # of one response; denials were repeated for their grace period
            self._denied_since = self._denied_since or _now()
            if _now() - self._denied_since < REFUSED_GRACE:
                self._rest(error)
                return
        if self._cannot_start is None:
            log.error("Starting no more items; waiting for those that run: %s", error)
            self._cannot_start = error
            self._state.start_no_more()

    def _rest(self, full: CapacityUnavailable | CallError) -> None:
        """Start nothing for a while; once for all the starts that were under way when there was no capacity."""
        if _now() >= self._rests_until:
            self._rests += 1
            self._rests_until = _now() + backoff(self._rests)
            log.info("No job can be started now: %s Trying again in %.0f s", sentence(str(full)), backoff(self._rests))

    async def _report_progress(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(PROGRESS)
            if (now := self._state.progress()) != told:
                told = now
                log.info("%s", now)
                self._progressed()

    async def _keep_ends(self, checkpoint: Checkpoint) -> None:
        kept = ""
        while True:
            await asyncio.sleep(self._calls.checkpoint)
            lines, statuses = self._state.reported_since(self._saved), self._state.statuses
            if statuses != kept and await checkpoint.save(statuses, lines):
                kept = statuses
                self._saved += len(lines)

    # The end.

    async def shut_down(self, stop: str | None, *, most: float | None = None) -> Unstopped | None:
        """Start nothing more, and know what was started; stop what still runs, if that is wanted.

        :param stop: what AWS is told as the reason for stopping; None to leave running what runs.
        :param most: seconds to wait for the stops; what is not stopped by then is stopped in the background. Default:
            until all are stopped, or AWS has not responded for minutes.
        :return: what could not be stopped; None if nothing was to be.
        """
        calls = self._calls
        calls.halt()
        if self._starting and (await asyncio.wait(self._starting, timeout=START_GRACE))[1]:
            calls.in_doubt = True
        await self.close()
        if stop is None:
            return None
        running = self._state.running
        to_stop = [*running, *(self._following.lost if self._state.broken else ()), *calls.begun]
        if not (to_stop or calls.in_doubt):
            return Unstopped()
        if to_stop:
            log.warning("Stopping the %d jobs of the map that may still run", len(to_stop))
        for job_id in running:
            last = not_seen(job_id, "STOPPED", stop)
            self._state.stopped(job_id, line(self._state.index_of(job_id), last))
        return await self._stop(stop, to_stop, most)

    async def _stop(self, reason: str, job_ids: Sequence[str], most: float | None) -> Unstopped:
        left: set[str] = set()
        ended: list[Unstopped] = []
        stop = self._calls.stop_all if self._calls.in_doubt else self._calls.stop

        async def work() -> None:
            ended.append(await stop(reason, job_ids, left=left))
            if ended[0]:
                log.error("Not all jobs of the map were stopped. Stop them in the console: %s", ended[0])

        stopping = self._spawn(work())
        if (await asyncio.wait({stopping}, timeout=most))[0]:
            stopping.result()
            return ended[0]
        log.warning("%d jobs are not stopped yet; that continues in the background", len(left))
        return Unstopped(tuple(sorted(left)))

    async def close(self) -> None:
        """Leave nothing behind in this process."""
        await self._background.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
