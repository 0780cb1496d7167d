"""The trigger of a map: starts one job for each item, tracks all jobs, and fires one event with the results.

Its arguments hold all state that it cannot list. Jobs are named after the map's token and the item's index, so a
trigger that continues after a crash finds them by listing and starts nothing twice. Cancelling it stops nothing in AWS.
``on_kill``, which Airflow calls when a user acts on the task, stops all jobs of the map. So does the trigger itself
when the deadline passes, or when more items have failed than are tolerated. No job is stopped because it cannot be
described, or because other items cannot be started.

``maps.state`` decides what to start; ``maps.runner`` does it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.array import Tolerance, indexes_of
from airflow_jobflow.jobs.changes import Changes
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.maps.calls import ItemRejected, MapCalls, MapCancelled
from airflow_jobflow.maps.checkpoint import Checkpoint
from airflow_jobflow.maps.recovery import MAP_ENDED_REASON
from airflow_jobflow.maps.runner import MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.stopper import Unstopped
from airflow_jobflow.maps.tracker import failed_snapshot, result_line
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.task_states import task_states
from airflow_jobflow.triggers.base import WaitTrigger, error_kind
from airflow_jobflow.triggers.job_logs import JobLogs
from airflow_jobflow.ui import notes
from airflow_jobflow.ui.progress import LastNote, Progress

log = logging.getLogger(__name__)

FIRST_TRIGGER_WINDOW = 60.0
"""Seconds after the start of a map within which a trigger may be its first. Later triggers always list the jobs until
two listings agree, which costs little by then."""

FINAL_DESCRIBE_TIMEOUT = 30.0
"""Seconds for which a trigger that starts after the deadline waits for jobs that earlier triggers have started."""

DEADLINE_STOP_TIMEOUT = 20.0
"""Seconds after the deadline for which the event waits for jobs to be stopped. Together with
``FINAL_DESCRIBE_TIMEOUT``, less than ``waiting.DEFERRAL_TIMEOUT_MARGIN``. Other jobs are stopped in the background."""

DEADLINE_REASON = "Airflow: the deadline of the task has passed"
"""The reason sent to AWS when a deadline stops a job."""

NOT_RETRYABLE = (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)
"""Faults that a retry of the task would meet again, if the map has started nothing."""


class MapTrigger(WaitTrigger):
    """Runs a map.

    :param service: our name of the service, such as ``batch``.
    :param job_group: identifies the map's jobs, see ``jobs.maps``.
    :param size: the number of items of the map.
    :param indexes: indexes of the items to run, as ranges: ``0-3,7``.
    :param requests: their requests, packed, one line of JSON each.
    :param scope: the cluster or Glue job that calls name, if the service needs one. Default None.
    :param container_name: name of the container whose exit code counts. Default None: follow AWS's own rules.
    :param max_concurrency: how many items may have a job at the same time. Default 1000.
    :param tolerated_failure_count: how many items may fail. Default 0.
    :param tolerated_failure_percentage: how many percent of all items may fail. Default 0.
    :param attempts: how many attempts an item gets at most. Default 1.
    :param changes: for which causes an item is started again, and what changes then, see ``jobs.changes.Changes``.
        Default None, as older versions have stored it: the rule for Spot interruptions is in ``job_group``.
    :param on_item_failure: ``stop`` to stop the map once more items have failed than are tolerated, ``continue`` to
        run all items anyway. Default ``stop``.
    :param began_at: when the map was started, in seconds since the epoch. Default 0: it may have had another trigger.
    :param reports_progress: whether to update the "Jobs" tab. Default False.

    The others are those of :class:`airflow_jobflow.triggers.base.WaitTrigger`.

    Fires one event, a dict of

    - ``statuses``: one character per item, see ``jobs.map_statuses``.
    - ``lines``: the packed result lines, see ``maps.tracker.result_line``, of items that failed or were started again;
      for small maps, of all ended items.
    - ``running``: the packed ids of jobs that may still run.
    - ``limit``: ``deadline`` if it has passed, else None.
    - ``error``: why the map could not continue, ``{"kind", "message"}``, else None. ``kind`` is ``refused`` (the first
      start was rejected), ``killed``, or one of those that leave jobs running: ``denied``, ``credentials`` and
      ``unanswerable`` (AWS refuses calls), ``failed`` (an unexpected error in the trigger).
    - ``unstopped``: None if no job had to be stopped, else ``{"count": how many could not be stopped, "ids": their
      packed ids, "message": for people}``.
    - ``copied``: the ids of failed items' jobs whose last log lines are in the task's log.
    - ``times``: when the first job was created, when the first started, and when the last ended.
    - ``usage``: what the jobs used, see ``jobs.usage.Usage``; None if that is not known.
    """

    def __init__(
        self,
        *,
        service: str,
        job_group: Mapping[str, Any],
        size: int,
        indexes: str,
        requests: str,
        scope: str | None = None,
        container_name: str | None = None,
        max_concurrency: int = 1000,
        tolerated_failure_count: int = 0,
        tolerated_failure_percentage: float = 0.0,
        attempts: int = 1,
        changes: Mapping[str, Any] | None = None,
        on_item_failure: str = "stop",
        began_at: float = 0.0,
        reports_progress: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.service = service
        self.job_group = dict(job_group)
        self.size = size
        self.indexes = indexes
        self.requests = requests
        self.scope = scope
        self.container_name = container_name
        self.max_concurrency = max_concurrency
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.attempts = attempts
        self.changes = _changes_of_older_version(job_group, attempts) if changes is None else dict(changes)
        self.on_item_failure = on_item_failure
        self.began_at = began_at
        self.reports_progress = reports_progress
        self._state = MapState(
            size,
            indexes_of(indexes) if indexes else [],
            max_concurrency=max_concurrency,
            tolerance=Tolerance(tolerated_failure_count, tolerated_failure_percentage),
            attempts=attempts,
            stop_on_failure=on_item_failure == "stop",
        )
        self._calls: MapCalls | None = None
        self._runner: MapRunner | None = None

    async def wait(self) -> dict[str, Any]:
        """Run the map until it is over or the deadline has passed, and return the event's payload.

        If the deadline had passed before, nothing is started, but jobs that have ended by now count as ended.
        """
        stop_reason: str | None = MAP_ENDED_REASON
        stop_timeout: float | None = None
        limit: str | None = None
        error: dict[str, str] | None = None
        lines = await asyncio.to_thread(unpack, self.requests)
        requests = dict(zip(indexes_of(self.indexes), lines, strict=True))
        is_deferred = functools.partial(task_states().is_deferred, self.task_instance)
        self._calls = calls = self._make_calls()
        self._runner = runner = MapRunner(
            self._state,
            calls,
            requests,
            watcher=lambda: self.watcher(self.service, self.scope),
            poll_interval=self.poll_interval,
            container=self.container_name,
            changes=Changes.from_dict(self.changes),
            spawn=self.spawn,
            checkpoint=Checkpoint(self.task_instance, str(self.job_group)) if self.task_instance else None,
            is_deferred=is_deferred if self.task_instance else None,
            on_progress=lambda: progress.changed(),  # noqa: PLW0108 -- it is created from the runner below
        )
        progress = Progress(
            self.task_instance if self.reports_progress else None, lambda: self._progress_report(runner.times)
        )
        try:
            try:
                with progress:
                    async with asyncio.timeout(self._time_left()):
                        await runner.recover(first_trigger_until=self.began_at + FIRST_TRIGGER_WINDOW)
                        await runner.run()
            except TimeoutError:
                limit = "deadline"
                log.info("The deadline has passed")
                stop_reason = DEADLINE_REASON if self.cancel_on_timeout else None
                stop_timeout = DEADLINE_STOP_TIMEOUT if self.task_instance else None
            except (ItemRejected, MapCancelled) as failed:
                error = {"kind": "killed" if isinstance(failed, MapCancelled) else "refused", "message": str(failed)}
                log.error("The map cannot continue: %s", failed)  # noqa: TRY400 -- a person needs no traceback
            except (WatchError, CallError) as failed:
                stop_reason, error = None, {"kind": _error_kind(failed), "message": str(failed)}
                log.error("The map cannot continue; its running jobs are not stopped: %s", failed)  # noqa: TRY400 -- likewise
            except Exception as failed:  # a worker decides: the next try may continue with the running jobs
                stop_reason, error = None, {"kind": "failed", "message": repr(failed)}
                log.exception("Unexpected error: the map cannot continue; its running jobs are not stopped")
            unstopped = await runner.shut_down(stop_reason, stop_timeout=stop_timeout)
            log.info("%s", self._state.progress())
            copied = await self._copy_logs() if error is None and limit is None else []
            return {
                "statuses": self._state.statuses,
                "lines": await asyncio.to_thread(pack, self._state.lines()),
                "running": pack(self._state.running),
                "limit": limit,
                "error": error,
                "unstopped": None
                if unstopped is None
                else {"count": len(unstopped.job_ids), "ids": pack(unstopped.job_ids), "message": str(unstopped)},
                "copied": copied,
                "times": runner.times,
                "usage": runner.usage and dataclasses.asdict(runner.usage),
            }
        finally:
            await runner.close()

    async def _copy_logs(self) -> list[str]:
        """Copy the last lines of failed items into the task's log, if ``stream_logs`` is set; return the jobs' ids."""
        if not self.stream_logs:
            return []
        failed = await asyncio.to_thread(_failed_items, self._state.lines())
        logs = JobLogs(
            self.access,
            self.service,
            stream_logs="failed",
            max_log_lines=self.max_log_lines,
            container=self.container_name,
            task_instance=self.task_instance,
        )
        await logs.finish_map(failed)
        return logs.copied()

    def _progress_report(self, times: Sequence[str | None]) -> Callable[[], dict[str, Any]]:
        """Return a function that builds the progress report for the current state."""
        name, lines, again = self.job_group.get("stem", ""), self._state.lines_since(0), self._state.started_again
        statuses = self._state.statuses
        return functools.partial(notes.of_map, self.service, name, statuses, lines, list(times), started_again=again)

    def _time_left(self) -> float | None:
        """Return the seconds for which the map may run. If the deadline has passed, stop starting items."""
        if self.deadline is None:
            return None
        if (left := self.deadline - time.time()) > 0:
            return left
        self._state.stop_starting()
        return FINAL_DESCRIBE_TIMEOUT

    def _make_calls(self) -> MapCalls:
        return MapCalls(self.access, self.service, self.scope, self.job_group)

    async def stop_all(
        self, reason: str, known: Sequence[str] = (), *, retry_timeout: float | None = None
    ) -> Unstopped:
        """Stop all jobs that the map has started, by any trigger.

        :param reason: the reason to send to AWS.
        :param known: ids of jobs that may still run; others are found by listing.
        :param retry_timeout: seconds for which calls are retried while AWS does not respond. Default
            ``stopper.STOP_RETRY_TIMEOUT``.
        :return: the jobs that could not be stopped.
        """
        return await self._make_calls().stopper.stop_all(reason, known, retry_timeout=retry_timeout)

    async def stop_jobs(self) -> None:
        """Stop all jobs of the map because the task was killed, log the progress, and update the Jobs tab."""
        log.info("The task was killed: stopping all jobs of the map. %s", self._state.progress())
        try:
            unstopped = await self.stop_killed()
        except asyncio.CancelledError:  # the triggerer shuts down
            unstopped = Unstopped(tuple(self._state.running))
            log.error("The triggerer ended before all jobs of the map were stopped. %s", unstopped)  # noqa: TRY400
            raise
        if self.reports_progress and self.task_instance is not None:
            for job_id in set(self._state.running) - set(unstopped.job_ids):
                last = failed_snapshot(job_id, "STOPPED", KILL_REASON)
                self._state.record_stopped(job_id, result_line(self._state.last_start(job_id).index, last))
            error = f"Stop these jobs in the console, if they are still running: {unstopped}" if unstopped else ""
            times = self._runner.times if self._runner else [None, None, None]
            end = {"stop_requested_at": notes.now(), "error": error}
            report = LastNote(self.task_instance, lambda: functools.partial(self._progress_report(times), **end))
            await report.write()

    async def stop_killed(self) -> Unstopped:
        """Stop all jobs of the map because the task was killed, including those that are being started.

        :return: the jobs that could not be stopped.
        """
        known: list[str] = []
        if self._calls:
            self._calls.stop_starting()
            await self._calls.wait_for_starts()
            known = [*self._state.running, *self._calls.unrecorded]
        if unstopped := await self.stop_all(KILL_REASON, known):
            log.error("The task was killed, but some jobs of the map may still run: %s", unstopped)
        else:
            log.info("The task was killed: all jobs of the map were stopped")
        return unstopped


def _changes_of_older_version(job_group: Mapping[str, Any], attempts: int) -> dict[str, Any]:
    """Return the rules of a map that had other attempts only after Spot interruptions."""
    on_demand = job_group.get("on_interruption") == "on_demand"
    rules = {"i": {"launch_type": "FARGATE"} if on_demand else {}} if attempts > 1 else {}
    return Changes(rules, "cpu").to_dict()


def _failed_items(lines: Sequence[str]) -> dict[str, Snapshot]:
    """Return the last snapshots of failed items, by index.

    :param lines: result lines of items.
    """
    ended = (json.loads(line) for line in lines)
    return {str(index): Snapshot.from_dict(last) for index, last, *_ in ended if last["state"] == JobState.FAILED}


def _error_kind(error: WatchError | CallError) -> str:
    """Return the ``kind`` of an error in the event, which decides the exception that the operator raises."""
    if isinstance(error, CallError) and error.fault in NOT_RETRYABLE:
        return "refused"
    return error_kind(error)
