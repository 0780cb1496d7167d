"""A map's trigger: starts one job for each item, follows them all, and reports how it went.

Its arguments hold all there is to know. What it has started it finds by listing: jobs are named by the map's token
and the item's index, so that a trigger that goes on after a crash starts nothing twice. Cancelling it stops nothing in
AWS. ``on_kill``, which Airflow calls when a person acts on the task, stops all that the map has started. So does the
trigger itself when the deadline passes, or when more items have failed than are tolerated. Nothing is stopped because
it cannot be described, or because other items cannot be started.

What decides lies in ``jobs.fan_out``, what acts in ``triggers.map_run``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobflow.airflow_compat.states import is_deferred
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.array import Tolerance, indexes_of
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.maps.calls import ItemRejected, MapCalls, MapCancelled, Unstopped
from airflow_jobflow.maps.checkpoint import Checkpoint
from airflow_jobflow.maps.runner import ENDED, MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.tracker import line, not_seen
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.triggers.base import KILLED, WaitTrigger, kind_of
from airflow_jobflow.ui import notes
from airflow_jobflow.ui.progress import LastNote, Progress

log = logging.getLogger(__name__)

FRESH = 60.0
"""Seconds after a map began within which a trigger may be its first. A later one need not ask whether it is: that it
lists with patience costs a map that has waited so long little."""

FINAL_DESCRIBE_TIMEOUT = 30.0
"""Seconds for which a trigger that begins after the deadline looks for the ends of what earlier ones have started."""

LAST_STOP = 20.0
"""Seconds after the deadline for which the event waits until jobs are stopped. Together with
``FINAL_DESCRIBE_TIMEOUT``, less than ``waiting.DEFERRAL_TIMEOUT_MARGIN``. The rest is stopped in the background."""

DEADLINE = "Airflow: the deadline of the task has passed"
"""What AWS is told when a deadline stops a job."""

REFUSALS = (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)
"""Faults of a map that has started nothing, and of which a retry would start nothing either."""


class MapTrigger(WaitTrigger):
    """Runs a map.

    :param service: our name of the service, such as ``batch``.
    :param scope: what a describe call is confined to, where the service has such a thing.
    :param family: what tells the map's jobs from all others, see ``jobs.maps``.
    :param container_name: the name of the container that counts; None for the one that AWS's rules make decide.
    :param size: how many items the map has.
    :param indexes: which of them are to be run, as ranges: ``0-3,7``.
    :param requests: their requests, packed, each a line of JSON.
    :param max_concurrency: how many items may have a job at the same time.
    :param tolerated_failure_count, tolerated_failure_percentage: how many of all items may fail.
    :param attempts: how many attempts an item gets whose job's capacity is taken away.
    :param on_item_failure: ``stop`` to stop the map once more items have failed than are tolerated, ``continue`` to
        run all items all the same. Default ``stop``.
    :param tells: whether the "Jobs" tab is told how the items stand.
    :param began_at: when the map was begun, in seconds since the epoch; 0 for one that may have had a trigger.

    The others are those of :class:`airflow_jobflow.triggers.base.WaitTrigger`.

    Fires one event: ``{"statuses": a character an item, see jobs.map_statuses, "lines": packed [index, snapshot] of
    what has failed, and of small maps of all that has ended, "running": packed ids of what may still run, "limit":
    None | "deadline", "error": None | {"kind", "message"}, "unstopped": None if nothing was to be stopped, else
    {"count": how many jobs are not stopped, "ids": packed ids of them, "message": for people}, "times": [first created,
    first started, last ended]}``. ``kind`` is ``refused`` (the first start was rejected), ``denied`` and
    ``unanswerable`` (AWS refuses calls; what runs was left running), ``failed`` (an error of the trigger itself;
    likewise) or ``killed``.
    """

    def __init__(
        self,
        *,
        service: str,
        family: Mapping[str, Any],
        size: int,
        indexes: str,
        requests: str,
        scope: str | None = None,
        container_name: str | None = None,
        max_concurrency: int = 1000,
        tolerated_failure_count: int = 0,
        tolerated_failure_percentage: float = 0.0,
        attempts: int = 1,
        on_item_failure: str = "stop",
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
        self.container_name = container_name
        self.max_concurrency = max_concurrency
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.attempts = attempts
        self.on_item_failure = on_item_failure
        self.began_at = began_at
        self.tells = tells
        self._map = MapState(
            size,
            indexes_of(indexes) if indexes else [],
            max_concurrency=max_concurrency,
            tolerance=Tolerance(tolerated_failure_count, tolerated_failure_percentage),
            attempts=attempts,
            stop_on_failure=on_item_failure == "stop",
        )
        self._calls: MapCalls | None = None
        self._run: MapRunner | None = None

    async def wait(self) -> dict[str, Any]:
        """Run the map until it is over, or the deadline has passed, and return the event.

        Where the deadline has passed before, nothing is started, but what has ended by now has ended.
        """
        stop: str | None = ENDED
        most: float | None = None
        limit: str | None = None
        error: dict[str, str] | None = None
        lines = await asyncio.to_thread(unpack, self.requests)
        requests = dict(zip(indexes_of(self.indexes), lines, strict=True))
        self._calls = calls = self._make_calls()
        self._run = run = MapRunner(
            self._map,
            calls,
            requests,
            watcher=lambda: self.watcher(self.service, self.scope),
            poll_interval=self.poll_interval,
            container=self.container_name,
            spawn=self.spawn,
            checkpoint=Checkpoint(self.task_instance, str(self.family)) if self.task_instance else None,
            ask=functools.partial(is_deferred, self.task_instance) if self.task_instance else None,
            progressed=lambda: progress.changed(),  # noqa: PLW0108 -- it is made of the run
        )
        progress = Progress(self.task_instance if self.tells else None, lambda: self._tell(run.times))
        try:
            try:
                with progress:
                    async with asyncio.timeout(self._time_left()):
                        await run.recover(fresh_until=self.began_at + FRESH)
                        await run.run()
            except TimeoutError:
                limit = "deadline"
                log.info("The deadline has passed")
                stop = DEADLINE if self.cancel_on_timeout else None
                most = LAST_STOP if self.task_instance else None
            except (ItemRejected, MapCancelled) as failed:
                error = {"kind": "killed" if isinstance(failed, MapCancelled) else "refused", "message": str(failed)}
                log.error("The map cannot continue: %s", failed)  # noqa: TRY400 -- a person needs no traceback
            except (WatchError, CallError) as failed:
                stop, error = None, {"kind": _kind(failed), "message": str(failed)}
                log.error("The map cannot continue; its running jobs are not stopped: %s", failed)  # noqa: TRY400 -- likewise
            except Exception as failed:  # the worker decides: the next try may go on with what runs
                stop, error = None, {"kind": "failed", "message": repr(failed)}
                log.exception("Unexpected error: the map cannot continue; its running jobs are not stopped")
            left = await run.shut_down(stop, most=most)
            log.info("%s", self._map.progress())
            return {
                "statuses": self._map.statuses,
                "lines": await asyncio.to_thread(pack, self._map.told()),
                "running": pack(self._map.running),
                "limit": limit,
                "error": error,
                "unstopped": None
                if left is None
                else {"count": len(left.job_ids), "ids": pack(left.job_ids), "message": str(left)},
                "times": run.times,
            }
        finally:
            await run.close()

    def _tell(self, times: Sequence[str | None]) -> Callable[[], dict[str, Any]]:
        """Return what makes the note of how the items stand now."""
        name, lines = self.family.get("stem", ""), self._map.reported_since(0)
        return functools.partial(notes.of_map, self.service, name, self._map.statuses, lines, list(times))

    def _time_left(self) -> float | None:
        if self.deadline is None:
            return None
        if (left := self.deadline - time.time()) > 0:
            return left
        self._map.start_no_more()
        return FINAL_DESCRIBE_TIMEOUT

    def _make_calls(self) -> MapCalls:
        return MapCalls(self.access, self.service, self.scope, self.family)

    async def stop_all(self, reason: str, known: Sequence[str] = (), *, patience: float | None = None) -> Unstopped:
        """Stop all that the map has started, whoever started it; return what could not be stopped.

        :param reason: what AWS is told.
        :param known: ids of jobs that may still run; others are found by listing.
        :param patience: seconds for which this is tried while AWS does not respond. Default ``calls.STOP_PATIENCE``.
        """
        return await self._make_calls().stop_all(reason, known, patience=patience)

    async def stop_jobs(self) -> None:
        """Stop all that the map has started, log how far it had come, and record for the tab how it ended."""
        log.info("The task was killed: stopping what the map has started. %s", self._map.progress())
        try:
            left = await self.killed()
        except asyncio.CancelledError:  # the triggerer ends
            left = Unstopped(tuple(self._map.running))
            log.error("The triggerer ended before all jobs of the map were stopped. %s", left)  # noqa: TRY400
            raise
        if self.tells and self.task_instance is not None:
            for job_id in set(self._map.running) - set(left.job_ids):
                last = line(self._map.index_of(job_id), not_seen(job_id, "STOPPED", KILLED))
                self._map.stopped(job_id, last)
            error = f"Stop these jobs in the console, if they run: {left}" if left else ""
            times = self._run.times if self._run else [None, None, None]
            end = {"stop_requested_at": notes.now(), "error": error}
            await LastNote(self.task_instance, lambda: functools.partial(self._tell(times), **end)).write()

    async def killed(self) -> Unstopped:
        """Stop all jobs, also those that are being started; return what could not be stopped."""
        known: list[str] = []
        if self._calls:
            self._calls.halt()
            await self._calls.settle()
            known = [*self._map.running, *self._calls.begun]
        if left := await self.stop_all(KILLED, known):
            log.error("The task was killed, but some jobs of the map may still run: %s", left)
        else:
            log.info("The task was killed: all jobs of the map were stopped")
        return left


def _kind(error: WatchError | CallError) -> str:
    """Name what ended the map, for the operator to raise the exception that fits."""
    if isinstance(error, CallError) and error.fault in REFUSALS:
        return "refused"
    return kind_of(error)
