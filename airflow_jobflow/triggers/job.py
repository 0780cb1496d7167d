"""One trigger for every service: it waits until jobs have ended, or their deadline has passed.

It asks the process's watcher, so a thousand triggers cost ten describe calls a round. Its arguments hold all there is
to know; a triggerer may die at any moment and another one goes on. Cancelling it stops nothing in AWS; only
``on_kill``, which Airflow calls when a person acts on the task, stops the jobs, and only for the operator that
started them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_jobflow.aws import ATTEMPTS, Access
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.triggers.watchers import shared_watcher
from airflow_jobflow.watch.errors import DescribeError, Fault, Vanished, WatchError

log = logging.getLogger(__name__)
"""Of the module, not of each trigger: which task a line belongs to, Airflow knows from the context it is logged in."""

SETTLING = 5.0
"""Seconds after a deferral before an event may resume the task: sooner, the executor may still be reporting the end
of the process that deferred, and the scheduler takes the task for one that died."""


class JobTrigger(BaseTrigger):
    """Waits for jobs of one service.

    :param service: our name of the service, such as ``batch``.
    :param job_ids: the jobs' ids.
    :param scope: what a describe call is confined to, where the service has such a thing.
    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param poll_interval: seconds between two looks at one job.
    :param deadline: when to stop waiting, in seconds since the epoch; None for never.
    :param queue_deadline: when to stop waiting if no job has left the queue by then; likewise.
    :param deferred_at: when the task was deferred; likewise.
    :param cancel_on_kill: whether a person's kill stops the jobs.
    :param told: what the task's log says of each job already; only what differs is said again.

    Fires one event: ``{"job_ids": [id], "jobs": {id: snapshot}, "errors": {id: {"kind", "message"}}, "limit": None |
    "deadline" | "queue_deadline"}``. ``jobs`` holds what was last seen, ``errors`` the jobs that can be watched no
    longer (``vanished``, ``denied``, ``unanswerable``), ``limit`` which deadline has passed, if one has.
    """

    def __init__(
        self,
        *,
        service: str,
        job_ids: Sequence[str],
        scope: str | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        poll_interval: float = 10.0,
        deadline: float | None = None,
        queue_deadline: float | None = None,
        deferred_at: float | None = None,
        cancel_on_kill: bool = False,
        told: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.service = service
        self.job_ids = list(job_ids)
        self.scope = scope
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.queue_deadline = queue_deadline
        self.deferred_at = deferred_at
        self.cancel_on_kill = cancel_on_kill
        self.told = dict(told or {})
        self._seen: dict[str, Snapshot] = {}
        self._errors: dict[str, dict[str, str]] = {}
        self._open = set(self.job_ids)
        self._left_queue = False
        self._fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give all there is to know to make this trigger again elsewhere."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    @property
    def access(self) -> Access:
        """Whom to ask."""
        return Access(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event."""
        event = await self.wait()
        await asyncio.sleep(self.settling(time.time()))
        self._fired = True
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's is untyped

    def settling(self, now: float) -> float:
        """Seconds to hold an event back; outside a triggerer, where no scheduler looks on, none."""
        if self.task_instance is None or self.deferred_at is None:
            return 0.0
        return max(0.0, self.deferred_at + SETTLING - now)

    async def wait(self) -> dict[str, Any]:
        """Wait until every job has ended or cannot be watched, or a deadline has passed, and return the event."""
        watcher = shared_watcher(self.access, self.service, self.scope)
        limit: str | None = None
        try:
            async with asyncio.timeout(None) as timer:
                limit = self._set(timer)
                with watcher.join(self.job_ids, self.poll_interval) as wait:
                    async for job_id, news in wait:
                        self._take(job_id, news)
                        if job_id not in self._open:
                            watcher.leave(job_id, wait)
                        if not self._open:
                            limit = None
                            break
                        limit = self._set(timer)
        except TimeoutError:
            log.info("The %s has passed", (limit or "deadline").replace("_", " "))
        return {
            "job_ids": self.job_ids,
            "jobs": {job_id: snapshot.to_dict() for job_id, snapshot in self._seen.items()},
            "errors": self._errors,
            "limit": limit,
        }

    def _set(self, timer: asyncio.Timeout) -> str | None:
        """Set the timer to the deadline that comes first, and return its name."""
        limits = {"deadline": self.deadline}
        if not self._left_queue:
            limits["queue_deadline"] = self.queue_deadline
        when, name = min(((when, name) for name, when in limits.items() if when is not None), default=(None, None))
        timer.reschedule(None if when is None else asyncio.get_running_loop().time() + when - time.time())
        return name

    def _take(self, job_id: str, news: Snapshot | WatchError) -> None:
        """Take in what the watcher says of a job; what is new for a person becomes a line in the task's log."""
        if isinstance(news, WatchError):
            self._errors[job_id] = {"kind": _kind(news), "message": str(news)}
            self._open.discard(job_id)
            return
        self._seen[job_id] = news
        self._left_queue |= news.left_queue
        if news.state.ended:
            self._open.discard(job_id)
        if self.told.get(job_id) != news.progress():
            self.told[job_id] = news.progress()
            log.info("%s %s: %s", job_service(self.service).NOUN, job_id, news.progress())

    async def on_kill(self) -> None:
        """Stop the jobs, if they are this task's own and a person did act on it.

        Airflow calls this also for a trigger that lingers after its event, and for one whose triggerer was frozen
        while another took over: then the task still is deferred, and nothing is stopped.
        """
        if self._fired or not self.cancel_on_kill or await self._still_deferred():
            return
        service = job_service(self.service)
        # When many tasks are killed at once, their calls are throttled.
        client = await sync_to_async(self.access.client, thread_sensitive=False)(service.CLIENT, attempts=ATTEMPTS)
        for job_id in self.job_ids:
            seen = self._seen.get(job_id)
            log.info(
                "The task was killed: stopping %s %s, last seen %s",
                service.NOUN,
                job_id,
                seen.progress() if seen else "not at all",
            )
            await sync_to_async(service.stop, thread_sensitive=False)(
                client, job_id, self.scope, "The Airflow task was killed"
            )

    async def _still_deferred(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = self.task_instance
        if ti is None:
            return False
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        of_run = states.get(ti.run_id, {})
        key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        return bool(of_run.get(key) == "deferred")


def _kind(error: WatchError) -> str:
    """Name what ended the watching, for the operator to raise the exception that fits."""
    if isinstance(error, Vanished):
        return "vanished"
    if isinstance(error, DescribeError) and error.fault is Fault.DENIED:
        return "denied"
    return "unanswerable"
