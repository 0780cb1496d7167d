"""A map while it runs: starts what may be started, follows it, and winds it up.

What decides lies in ``jobs.fan_out``; this makes the calls that it decides on, and tells it what came of them. Small
groups of new jobs join the process's watcher, so that waiting for thousands costs a describe call for a hundred.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from airflow_jobflow.exceptions import NoRoom
from airflow_jobflow.jobs import fan_out
from airflow_jobflow.jobs.diagnosis import SPOT_RECLAIMED, diagnose
from airflow_jobflow.jobs.fan_out import FanOut, Start
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.triggers.base import kind_of
from airflow_jobflow.triggers.calls import THREADS, Frozen, Halted, MapCalls, Refused
from airflow_jobflow.triggers.checkpoint import Checkpoint
from airflow_jobflow.watch.errors import DescribeError, WatchError
from airflow_jobflow.watch.pacing import pause
from airflow_jobflow.watch.watcher import Watcher

log = logging.getLogger(__name__)
"""Of the module: which task a line belongs to, Airflow knows from the context it is logged in."""

PROGRESS = 10.0
"""The least seconds between two lines about the progress."""

GATHERING = 1.0
"""Seconds for which new jobs are gathered before they are watched together."""

AGREEING = 3.0
"""Seconds between two listings, which must agree: what was just started shows up late."""

BEAT = 1.0
"""Seconds between two beats, by which it shows that this process has stood still."""

TAKEOVER = 15.0
"""Seconds after a standstill in which Airflow cancels a trigger that it has given to another triggerer meanwhile."""

FAILURES_TOLD = 20
"""How many failed items get a line of their own in the log."""

ENDED = "Airflow: the map was ended before this item"


class MapRun:
    """Runs a map.

    :param state: how far it is.
    :param calls: makes its calls.
    :param requests: the request of each item that is to be run, as JSON.
    :param watcher: returns what watches the map's jobs.
    :param poll_interval: seconds between two looks at one job.
    :param checkpoint: keeps what has ended, where there is a place for that.
    """

    def __init__(
        self,
        state: FanOut,
        calls: MapCalls,
        requests: Mapping[int, str],
        *,
        watcher: Callable[[], Watcher[Snapshot]],
        poll_interval: float,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.times: list[str | None] = [None, None, None]
        """When the first job was created, when the first began, and when the last ended."""
        self._state = state
        self._calls = calls
        self._requests = requests
        self._watcher = watcher
        self._poll_interval = poll_interval
        self._checkpoint = checkpoint
        self._saved = 0
        """How many of the lines that the state tells are kept."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._fresh: list[str] = []
        """Jobs that nobody watches yet."""
        self._changed = asyncio.Event()
        self._failed: BaseException | None = None
        self._proven = False
        """Whether the map has started anything: until then a refusal is the whole map's."""
        self._rests_until = 0.0
        self._rests = 0
        self._failures_told = 0
        self.unstopped = 0
        """How many jobs could not be told to end."""
        self._lost: list[str] = []
        """Jobs that cannot be watched; they may run."""
        self._closed = False

    # The beginning: what an earlier trigger has started.

    async def recover(self, *, fresh: bool) -> None:
        """Find what an earlier trigger has started, so that nothing is started twice.

        :param fresh: whether there was no time for an earlier trigger, so that an empty list is to be believed.
        :raises DescribeError: nothing can be listed.
        """
        calls = self._calls
        self._spawn(self._beat())
        if self._checkpoint and not fresh:
            statuses, lines = await self._checkpoint.load()
            self._state.restored(statuses, {fan_out.index_of_line(line): line for line in lines})
            self._saved = len(self._state.told_since(0))
            self._proven = bool(statuses)
        # Two triggers may have held the map for a while: what is double is looked for at the end as well.
        calls.in_doubt |= not fresh
        doubles = await self._find(fresh=fresh)
        if doubles:
            log.warning("%d jobs are of items that have another, and are stopped: %s", len(doubles), sorted(doubles))
            await calls.stop(ENDED, doubles)

    async def _find(self, *, fresh: bool = False) -> set[str]:
        """List what was started, and follow what nobody follows yet; return the ids of those that run for nothing."""
        calls = self._calls
        found = await calls.find()
        while found or not fresh:
            await asyncio.sleep(AGREEING)
            before, found = found, await calls.find()
            if {each.job_id for each in before} == {each.job_id for each in found}:
                break
        counting = [each.job_id for each in fan_out.newest_first(found) if self._state.found(each)]
        self._state.resume()
        if counting:
            log.info("%s of the map's jobs were started before; they are followed", f"{len(counting):,}")
            self._proven = True
            self._fresh += counting
            self._follow_fresh()
        return {each.job_id for each in found if not each.ended} - set(self._state.running)

    # The middle: start what may be started, until all is over.

    async def conduct(self) -> None:
        """Run the map until nothing is left to be waited for.

        :raises Refused: the first start was refused.
        :raises WatchError: it cannot go on: these credentials may not, or there is no such place.
        :raises Halted: the task was killed.
        """
        self._spawn(self._tell_progress())
        if self._checkpoint:
            self._spawn(self._keep_ends(self._checkpoint))
        while not self._state.over:
            if self._calls.frozen:
                await self._thaw()
            if self._failed:
                raise self._failed
            self._changed.clear()
            rest = self._rests_until - _now()
            if rest > 0 or len(self._starting) >= (THREADS if self._proven else 1) or not self._state.ready:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest if rest > 0 else None):
                        await self._changed.wait()
            elif start := self._state.take():
                task = self._spawn(self._start(start))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
                await asyncio.sleep(0)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._calls.beat()

    async def _thaw(self) -> None:
        """Go on after a standstill: another triggerer may have the map by now, and this one is cancelled then."""
        log.warning("This process has stood still; nothing is started before it is clear that the map still is its own")
        await asyncio.sleep(TAKEOVER)
        if self._starting:
            await asyncio.wait(self._starting)
        await self._find()
        self._calls.in_doubt = True
        self._calls.frozen = False

    async def _start(self, start: Start) -> None:
        """Make a start, and take in what came of it."""
        try:
            job_id = await self._calls.start(json.loads(self._requests[start.index]), start)
        except Frozen:
            self._state.put_back(start)
        except NoRoom as full:
            self._state.put_back(start, full=True)
            self._rest(full)
        except Refused as refused:
            if not self._proven:
                self._state.put_back(start)
                raise Refused(f"items[{start.index}] was refused: {refused}") from refused
            log.warning("Item %d was refused: %s", start.index, refused)
            self._state.refused(start.index, _line(start.index, _not_seen("", "REFUSED", f"refused: {refused}")))
        except (DescribeError, Halted):
            self._state.put_back(start)
            raise
        else:
            self._proven = True
            self._rests = 0
            self._state.started(start.index, job_id)
            self._calls.begun.discard(job_id)
            self._fresh.append(job_id)
            if len(self._fresh) == 1:
                loop = asyncio.get_running_loop()
                loop.call_later(min(GATHERING, self._poll_interval), self._follow_fresh)

    def _rest(self, full: NoRoom) -> None:
        """Start nothing for a while; once for all the starts that were under way when there was no room."""
        if _now() >= self._rests_until:
            self._rests += 1
            self._rests_until = _now() + pause(self._rests)
            log.info("%s It is tried again in %.0f s", full, pause(self._rests))

    def _follow_fresh(self) -> None:
        """Watch the new jobs together."""
        fresh, self._fresh = self._fresh, []
        if fresh and not self._closed:
            self._spawn(self._follow(fresh))

    async def _follow(self, job_ids: Sequence[str]) -> None:
        watcher = self._watcher()
        left = set(job_ids)
        with watcher.join(job_ids, self._poll_interval) as wait:
            async for job_id, news in wait:
                if job_id not in left:
                    continue
                if isinstance(news, WatchError):
                    if kind_of(news) == "denied":
                        raise news
                    self._lost.append(job_id)
                    self._end(job_id, _not_seen(job_id, "UNKNOWN", str(news)))
                elif news.state.ended:
                    self._end(job_id, news)
                    watcher.leave(job_id, wait)
                else:
                    continue
                left.discard(job_id)
                if not left:
                    return

    def _end(self, job_id: str, last: Snapshot) -> None:
        """Take in the end of a job."""
        index, attempt = self._state.index_of(job_id), self._state.attempt_of(job_id)
        succeeded = last.state is JobState.SUCCEEDED
        self.times = fan_out.span(self.times, [last.created_at, last.started_at, last.stopped_at])
        interrupted = not succeeded and self._state.attempts > 1 and diagnose(last) is SPOT_RECLAIMED
        if self._state.ended(job_id, _line(index, last), succeeded=succeeded, interrupted=interrupted):
            log.info(
                "Item %d: Spot capacity was taken back from attempt %d of %d", index, attempt, self._state.attempts
            )
        elif not succeeded and self._failures_told < FAILURES_TOLD:
            self._failures_told += 1
            log.warning("Item %d failed: %s %s", index, job_id, last.progress())
        self._changed.set()

    async def _tell_progress(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(PROGRESS)
            if (now := self._state.progress()) != told:
                told = now
                log.info("%s", now)

    async def _keep_ends(self, checkpoint: Checkpoint) -> None:
        kept = ""
        while True:
            await asyncio.sleep(self._calls.checkpoint)
            lines, statuses = self._state.told_since(self._saved), self._state.statuses
            if statuses != kept and await checkpoint.save(statuses, lines):
                kept = statuses
                self._saved += len(lines)

    # The end.

    async def wind_up(self, *, stop: bool) -> None:
        """Start nothing more, and know what was started; stop what still runs where nobody else will."""
        calls = self._calls
        calls.halt()
        if self._starting:
            await asyncio.wait(self._starting)
        running = self._state.running
        to_stop = [*running, *self._lost]
        if stop and (to_stop or calls.in_doubt):
            if to_stop:
                log.warning("Stopping the %d jobs that may still run, for the map is ended", len(to_stop))
            await self.close()
            for job_id in running:
                last = _not_seen(job_id, "STOPPED", ENDED)
                self._state.stopped(job_id, _line(self._state.index_of(job_id), last))
            try:
                self.unstopped = await (calls.stop_all if calls.in_doubt else calls.stop)(ENDED, to_stop)
            except DescribeError as error:
                log.warning("Whether more of the map's jobs run could not be found out: %s", error)

    async def close(self) -> None:
        """Leave nothing behind in this process."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed = self._failed or error
        self._changed.set()


def _not_seen(job_id: str, status: str, reason: str) -> Snapshot:
    """Return what stands for the last snapshot of an item that failed without one."""
    return Snapshot(job_id, JobState.FAILED, status, reason=reason)


def _line(index: int, last: Snapshot) -> str:
    return json.dumps([index, last.to_dict()])


def _now() -> float:
    return asyncio.get_running_loop().time()
