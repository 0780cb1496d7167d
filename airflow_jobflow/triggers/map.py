"""A map's trigger: starts one job for each item, follows them all, and tells how it went.

Its arguments hold all there is to know. What it has started it finds by listing: jobs are named by the map's nonce
and the item's index, so that a trigger that goes on after a crash starts nothing twice. Cancelling it stops nothing in
AWS; ``on_kill``, which Airflow calls when a person acts on the task, stops all that the map has started.

What decides lies in ``jobs.fan_out``, what acts in ``triggers.map_run``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.array import Tolerance, indexes_of
from airflow_jobflow.jobs.fan_out import FanOut
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.plugin import notes
from airflow_jobflow.triggers.base import KILLED, WaitTrigger, kind_of
from airflow_jobflow.triggers.beat import still_deferred
from airflow_jobflow.triggers.calls import Halted, MapCalls, Refused
from airflow_jobflow.triggers.checkpoint import Checkpoint
from airflow_jobflow.triggers.map_run import MapRun
from airflow_jobflow.triggers.progress import Progress
from airflow_jobflow.watch.errors import WatchError

log = logging.getLogger(__name__)

FRESH = 60.0
"""Seconds after a map began within which a trigger may be its first. A later one need not ask whether it is: that it
lists with patience costs a map that has waited so long little."""

LAST_LOOK = 40.0
"""Seconds for which a trigger that begins after the deadline looks at what earlier ones have started; fewer than those
after which Airflow itself ends the deferral, see ``waiting.NET``."""

REFUSALS = (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)


class MapTrigger(WaitTrigger):
    """Runs a map.

    :param service: our name of the service, such as ``batch``.
    :param scope: what a describe call is confined to, where the service has such a thing.
    :param family: what tells the map's jobs from all others, see ``jobs.maps``.
    :param size: how many items the map has.
    :param indexes: which of them are to be run, as ranges: ``0-3,7``.
    :param requests: their requests, packed, each a line of JSON.
    :param max_concurrency: how many items may have a job at the same time.
    :param tolerated_failure_count, tolerated_failure_percentage: how many of all items may fail.
    :param attempts: how many attempts an item gets whose job's capacity is taken away.
    :param tells: whether the "Jobs" tab is told how the items stand.
    :param began_at: when the map was begun, in seconds since the epoch; 0 for one that may have had a trigger.

    The others are those of :class:`airflow_jobflow.triggers.base.WaitTrigger`.

    Fires one event: ``{"statuses": a character an item, see jobs.map_statuses, "lines": packed [index, snapshot] of
    what has failed, and of small maps of all that has ended, "running": packed ids of what may still run, "limit":
    None | "deadline", "error": None | {"kind", "message"}, "unstopped": how many jobs could not be told to end,
    "times": [first created, first started, last ended]}``; ``kind`` is one of ``refused``, ``denied``,
    ``unanswerable``, ``killed``.
    """

    def __init__(
        self,
        *,
        service: str,
        family: Mapping[str, str],
        size: int,
        indexes: str,
        requests: str,
        scope: str | None = None,
        max_concurrency: int = 1000,
        tolerated_failure_count: int = 0,
        tolerated_failure_percentage: float = 0.0,
        attempts: int = 1,
        began_at: float = 0.0,
        tells: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.service = service
        self.family = dict(family)
        self.size = size
        self.indexes = indexes
        self.requests = requests
        self.scope = scope
        self.max_concurrency = max_concurrency
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.attempts = attempts
        self.began_at = began_at
        self.tells = tells
        self._map = FanOut(
            size,
            indexes_of(indexes) if indexes else [],
            max_concurrency=max_concurrency,
            tolerance=Tolerance(tolerated_failure_count, tolerated_failure_percentage),
            attempts=attempts,
        )
        self._calls: MapCalls | None = None

    async def wait(self) -> dict[str, Any]:
        """Run the map until it is over, or the deadline has passed, and return the event.

        Where the deadline has passed before, nothing is started, but what has ended by now has ended.
        """
        limit: str | None = None
        error: dict[str, str] | None = None
        lines = await asyncio.to_thread(unpack, self.requests)
        requests = dict(zip(indexes_of(self.indexes), lines, strict=True))
        self._calls = calls = self._make_calls()
        run = MapRun(
            self._map,
            calls,
            requests,
            watcher=lambda: self.watcher(self.service, self.scope),
            poll_interval=self.poll_interval,
            checkpoint=Checkpoint(self.task_instance, str(self.family)) if self.task_instance else None,
            ask=functools.partial(still_deferred, self.task_instance) if self.task_instance else None,
            progressed=lambda: progress.changed(),  # noqa: PLW0108 -- it is made of the run
        )
        progress = Progress(self.task_instance if self.tells else None, lambda: self._tell(run.times))
        try:
            try:
                with progress:
                    async with asyncio.timeout(self._time_left()):
                        await run.recover(fresh_until=self.began_at + FRESH)
                        await run.conduct()
            except TimeoutError:
                limit = "deadline"
                log.info("The deadline has passed")
            except (WatchError, CallError, Refused, Halted) as failed:
                error = {"kind": _kind(failed), "message": str(failed)}
                log.error("The map cannot go on: %s", failed)  # noqa: TRY400 -- a person needs no traceback
            except Exception as failed:  # what it has started must not be left behind, whatever this is
                error = {"kind": "unanswerable", "message": repr(failed)}
                log.exception("The map cannot go on")
            await run.wind_up(stop=limit is None)
            log.info("%s", self._map.progress())
            return {
                "statuses": self._map.statuses,
                "lines": await asyncio.to_thread(pack, self._map.told()),
                "running": pack(self._map.running),
                "limit": limit,
                "error": error,
                "unstopped": run.unstopped,
                "times": run.times,
            }
        finally:
            await run.close()

    def _tell(self, times: Sequence[str | None]) -> Callable[[], dict[str, Any]]:
        """Return what makes the note of how the items stand now."""
        name, lines = self.family.get("stem", ""), self._map.told_since(0)
        return functools.partial(notes.of_map, self.service, name, self._map.statuses, lines, list(times))

    def _time_left(self) -> float | None:
        if self.deadline is None:
            return None
        if (left := self.deadline - time.time()) > 0:
            return left
        self._map.start_no_more()
        return LAST_LOOK

    def _make_calls(self) -> MapCalls:
        return MapCalls(self.access, self.service, self.scope, self.family)

    async def stop_all(self, reason: str, known: Sequence[str] = ()) -> int:
        """Stop all that the map has started, whoever started it; return how many could not be told to end.

        :param known: ids of jobs that may still run; others are found by listing.
        :raises CallError: they cannot be listed.
        """
        return await self._make_calls().stop_all(reason, known)

    async def stop_jobs(self) -> None:
        """Stop all that the map has started, and let the task's log tell how far it had come."""
        log.info("The task was killed: stopping what the map has started. %s", self._map.progress())
        await self.killed()

    async def killed(self) -> None:
        """Stop all jobs, also those that are being started."""
        if self._calls:
            self._calls.halt()
            await self._calls.settle()
            await self.stop_all(KILLED, [*self._map.running, *self._calls.begun])
        else:
            await self.stop_all(KILLED)


def _kind(error: WatchError | CallError | Refused | Halted) -> str:
    """Name what ended the map, for the operator to raise the exception that fits."""
    if isinstance(error, Halted):
        return "killed"
    if isinstance(error, Refused) or (isinstance(error, CallError) and error.fault in REFUSALS):
        return "refused"
    return kind_of(error)
