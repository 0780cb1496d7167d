"""One trigger for every service: it waits until its jobs have ended, or their deadline has passed.

It subscribes to the process's watcher, so a thousand triggers cost ten describe calls per poll cycle. Its arguments
hold all state: if the triggerer dies, another one continues the wait.

Invariants:

- Cancelling it stops nothing in AWS. Only ``on_kill``, which Airflow calls when a user acts on the task, and a passed
  deadline stop jobs, and only if the task's operator has started them.
- A job is never stopped because it cannot be described.
- A job that had ended by its deadline counts as ended, not as timed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow import metrics
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.jobs.targets import Target
from airflow_jobflow.jobs.usage import ArrayRunTime
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.stopping import Stopper
from airflow_jobflow.triggers.base import WaitTrigger, error_kind
from airflow_jobflow.triggers.ending import success
from airflow_jobflow.triggers.job_logs import JobLogs
from airflow_jobflow.triggers.job_progress import JobProgress

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

DEADLINE_DESCRIBE_TIMEOUT = 5.0
"""Seconds to wait for a last describe call when a deadline has passed. The watcher makes one for new waits within a
second."""

STOP_TIMEOUT = 25.0
"""Seconds for which the event waits for the jobs to be stopped. Together with the other waits, less than
``waiting.DEFERRAL_TIMEOUT_MARGIN``. Other jobs are stopped in the background after that."""

STOP_TIMEOUT_IN_WORKER = 300.0
"""The same in a worker, where nothing continues in the background."""

KILLED_JOB_END_TIMEOUT = 120.0
"""Seconds for which jobs that a kill has stopped are described, so that the Jobs tab shows how they ended. AWS gives a
container up to two minutes to end by itself."""

DEADLINE_REASONS = {
    "deadline": "The deadline of the Airflow task has passed",
    "queue_deadline": "The queue deadline of the Airflow task has passed",
}
"""The reason sent to AWS and logged when a deadline stops a job, by the name of the deadline."""

log = logging.getLogger(__name__)
"""The module's logger, not one per trigger: Airflow knows from the context which task a line belongs to."""


class JobTrigger(WaitTrigger):
    """Waits for jobs of one service.

    :param service: our name of the service, such as ``batch``.
    :param job_ids: the jobs' ids.
    :param scope: the cluster or Glue job that calls name, if the service needs one. Default None.
    :param container_name: name of the container whose exit code counts. Default None: follow AWS's own rules.
    :param queue_deadline: when to stop waiting if no job has left the queue by then, in seconds since the epoch.
        Default None: never.
    :param reported_statuses: the status that the task's log already has, by job id; only changes are logged.
        Default: none.
    :param target: the members of the ``jobs.targets.Target`` to wait for. Default None: the end of the jobs.
    :param result_kind: what the task returns if it ends in the triggerer, one of the constants of
        ``triggers.ending``. Default None: a worker ends it.
    :param result: where the job writes its result: ``s3://bucket/prefix``, or ``log``. It is read if the task ends in
        the triggerer. Default None: it has none.
    :param reports_progress: whether to update the "Jobs" tab. Default False.
    :param progress_digest: digest of the progress report that the tab already has. Default None: it has none.
    :param links: the URLs in the last progress report, if the task's buttons read them there. Default None: they do
        not.
    :param number_logs_success: how many of the last lines of each job that succeeded are copied into the task's log.
        Default 0.

    The others are those of :class:`airflow_jobflow.triggers.base.WaitTrigger`.

    When a deadline passes, the jobs are described once more. If one has left the queue, its queue deadline does not
    apply any more, and the wait continues. If all have ended, no deadline has passed. Otherwise, with
    ``cancel_on_timeout``, unfinished jobs are stopped before the event is fired.

    Fires one event, a dict of

    - ``job_ids``: the ids.
    - ``jobs``: ``{id: snapshot}``, the last snapshots; of stopped jobs, the last ones before the stop.
    - ``errors``: ``{id: {"kind", "message"}}``, the jobs that cannot be watched any more: ``vanished``, ``denied``,
      ``credentials`` (there were none, or AWS did not accept them), ``unanswerable``.
    - ``limit``: which deadline has passed, ``deadline`` or ``queue_deadline``; None if none has.
    - ``links``: the URLs in the last progress report, as above.
    - ``copied``: the ids of jobs whose last log lines are in the task's log.
    - ``stopped``: the ids of jobs that were stopped because of the deadline.
    - ``unstopped``: ``{id: message}``, the jobs that could not be stopped at the deadline. A triggerer reports them
      after 25 s, and retries for ten more minutes; a worker retries for five minutes.

    The last two are empty without ``cancel_on_timeout``. If ``limit`` is set, a job that is in neither has ended.
    """

    def __init__(
        self,
        *,
        service: str,
        job_ids: Sequence[str],
        scope: str | None = None,
        container_name: str | None = None,
        queue_deadline: float | None = None,
        reported_statuses: Mapping[str, str] | None = None,
        target: Mapping[str, Any] | None = None,
        result_kind: str | None = None,
        result: str | None = None,
        reports_progress: bool = False,
        progress_digest: str | None = None,
        links: Mapping[str, str] | None = None,
        number_logs_success: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.service = service
        self.job_ids = list(job_ids)
        self.scope = scope
        self.container_name = container_name
        self.queue_deadline = queue_deadline
        self.reported_statuses = dict(reported_statuses or {})
        self.target = target
        self.result_kind = result_kind
        self.result = result
        self.reports_progress = reports_progress
        self.progress_digest = progress_digest
        self.links = None if links is None else dict(links)
        self.number_logs_success = number_logs_success
        self._target = Target(**target or {})
        self._seen: dict[str, Snapshot] = {}
        """The last snapshot of each job."""
        self._errors: dict[str, dict[str, str]] = {}
        self._open = set(self.job_ids)
        """The jobs that are still waited for."""
        self._left_queue = False
        self._run_times: defaultdict[str, ArrayRunTime] = defaultdict(ArrayRunTime)
        """For how long the children of each array ran."""

    @functools.cached_property
    def _stopper(self) -> Stopper:
        return Stopper(self.access, self.service, self.scope, self.spawn)

    @functools.cached_property
    def _logs(self) -> JobLogs | None:
        """What is copied of the jobs' logs; None for nothing."""
        if not (self.stream_logs or self.number_logs_success):
            return None
        return JobLogs(
            self.access,
            self.service,
            stream_logs=self.stream_logs,
            max_log_lines=self.max_log_lines,
            number_logs_success=self.number_logs_success,
            container=self.container_name,
            names_jobs=len(self.job_ids) > 1,
            task_instance=self.task_instance,
            saves_positions=self.reports_progress,
            deferred_at=self.deferred_at,
        )

    @functools.cached_property
    def _progress(self) -> JobProgress:
        return JobProgress(
            self.task_instance if self.reports_progress else None,
            self.service,
            self.job_ids,
            self._seen,
            digest=self.progress_digest,
            links=self.links,
        )

    async def wait(self) -> dict[str, Any]:
        """Wait until no job is left to wait for, or a deadline has passed, and return the event's payload."""
        began = time.time()
        try:
            limit = await self._watch()
            while limit and await self._no_longer_applies(limit):
                limit = await self._watch() if self._open else None
            if not limit:
                metrics.publish_delay(self.service, self._seen.values(), began)
            elif self.cancel_on_timeout:
                self._start_stopping(DEADLINE_REASONS[limit])
                await self._stopper.wait(STOP_TIMEOUT if self.task_instance else STOP_TIMEOUT_IN_WORKER)
            else:
                log.info("%s", DEADLINE_REASONS[limit])
            if self._logs:
                await self._logs.finish(self._seen.values(), deadline_passed=limit is not None)
        finally:
            if self._logs:
                self._logs.close()
        return {
            "job_ids": self.job_ids,
            "jobs": {job_id: snapshot.to_dict() for job_id, snapshot in self._seen.items()},
            "errors": self._errors,
            "limit": limit,
            "links": self._progress.links,
            "copied": self._logs.copied() if self._logs else [],
            "stopped": self._stopper.stopped,
            "unstopped": dict(self._stopper.unstopped),
        }

    async def _watch(self) -> str | None:
        """Wait until no job is open any more, or a deadline has passed; return the name of that deadline."""
        watcher = self.watcher(self.service, self.scope)
        limit: str | None = None
        try:
            async with asyncio.timeout(None) as timer:
                limit = self._set_timer(timer)
                with (
                    watcher.subscribe(self._open_in_order(), self.poll_interval) as wait,
                    self._progress.reporting(self.access, watcher, self.poll_interval) as update_progress,
                ):
                    async for job_id, update in wait:
                        await self._record(job_id, update)
                        update_progress(job_id, update)
                        if job_id not in self._open:
                            watcher.unsubscribe(job_id, wait)
                        if not self._open:
                            return None
                        limit = self._set_timer(timer)
        except TimeoutError:
            return limit
        raise AssertionError("a wait does not end by itself")

    async def _no_longer_applies(self, limit: str) -> bool:
        """Describe the open jobs once more; return whether the passed deadline does not apply any more."""
        remaining = self._open_in_order()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_DESCRIBE_TIMEOUT):
                with self.watcher(self.service, self.scope).subscribe(remaining, self.poll_interval) as wait:
                    async for job_id, update in wait:
                        if isinstance(update, Snapshot):  # errors do not matter any more
                            await self._record(job_id, update)
                        if job_id in remaining:
                            remaining.remove(job_id)
                        if not remaining:
                            break
        return not self._open or (limit == "queue_deadline" and self._left_queue)

    def _open_in_order(self) -> list[str]:
        return [job_id for job_id in self.job_ids if job_id in self._open]

    async def finish(self, event: dict[str, Any]) -> TriggerEvent | None:
        """Return the event that ends the task in the triggerer, if all reached the target and ``result_kind`` is set.

        :param event: what ``wait`` returned.
        :return: None if a worker is needed.
        """
        if self.result_kind is None or self.task_instance is None or event["limit"] or event["errors"]:
            return None
        seen = [self._seen[job_id] for job_id in self.job_ids]
        if not all(map(self._target.reached, seen)):
            return None
        return await success(
            self.task_instance,
            self.access,
            self.service,
            seen,
            self.result_kind,
            noted=event["links"],
            result=self.result,
        )

    def _set_timer(self, timer: asyncio.Timeout) -> str | None:
        """Set the timer to the deadline that comes first, and return that deadline's name."""
        limits = {"deadline": self.deadline}
        if not self._left_queue:
            limits["queue_deadline"] = self.queue_deadline
        when, name = min(((when, name) for name, when in limits.items() if when is not None), default=(None, None))
        timer.reschedule(None if when is None else asyncio.get_running_loop().time() + when - time.time())
        return name

    async def _record(self, job_id: str, update: Snapshot | WatchError) -> None:
        """Record a job's snapshot or error. Log its progress if that has changed.

        Logs in a thread: if thousands of waits end at once, the pipe to the log is full, and writing to it blocks.
        """
        if isinstance(update, WatchError):
            self._errors[job_id] = {"kind": error_kind(update), "message": str(update)}
            self._open.discard(job_id)
            return
        snapshot = update.counting(self.container_name)
        if snapshot.array:
            run_seconds = self._run_times[job_id].updated(snapshot.array, time.monotonic())
            snapshot = dataclasses.replace(snapshot, run_seconds=run_seconds)
        self._seen[job_id] = snapshot
        self._left_queue |= snapshot.left_queue
        if self._logs:
            self._logs.observe(snapshot)
        if self._target.decided(snapshot):
            self._open.discard(job_id)
        if self.reported_statuses.get(job_id) != snapshot.progress():
            self.reported_statuses[job_id] = snapshot.progress()
            await asyncio.to_thread(
                log.info, "%s %s: %s", job_service(self.service).DISPLAY_NAME, job_id, snapshot.progress()
            )

    @property
    def subject(self) -> str:
        """The jobs, as log lines call them."""
        return f"{job_service(self.service).DISPLAY_NAME} {', '.join(self.job_ids)}"

    async def stop_jobs(self) -> None:
        """Stop the jobs, because the task was killed, and show in the Jobs tab how they ended."""
        self._start_stopping(KILL_REASON)
        await self._stopper.wait()
        if not self.reports_progress or self.task_instance is None:
            return
        report = self._progress.last_note(self._stopper)
        self.spawn(report.write())  # at once: containers may take minutes to end
        await self._wait_for_stopped()
        await report.write()

    async def _wait_for_stopped(self) -> None:
        """Describe the stopped jobs until they have ended, for at most ``KILLED_JOB_END_TIMEOUT`` seconds."""
        remaining = [job_id for job_id in self._open_in_order() if job_id in self._stopper.stopped]
        if not remaining:
            return
        watcher = self.watcher(self.service, self.scope)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILLED_JOB_END_TIMEOUT):
                with watcher.subscribe(remaining, self.poll_interval) as wait:
                    async for job_id, update in wait:
                        await self._record(job_id, update)
                        if job_id not in self._open:
                            watcher.unsubscribe(job_id, wait)
                        if self._open.isdisjoint(remaining):
                            return

    def _start_stopping(self, reason: str) -> None:
        """Start to stop the jobs that may still run: those not known to have ended, and not unknown to AWS."""
        for job_id in self.job_ids:
            seen = self._seen.get(job_id)
            is_gone = self._errors.get(job_id, {}).get("kind") == "vanished"
            if not is_gone and not (seen and seen.state.ended):
                self._stopper.stop(job_id, reason, seen.progress() if seen else None)
