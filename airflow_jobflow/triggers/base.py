"""What every trigger here has in common: whom to ask, how it is made again elsewhere, when it may fire."""

from __future__ import annotations

import asyncio
import inspect
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_jobflow.aws import Access
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.triggers.watchers import shared_watcher
from airflow_jobflow.watch.errors import NotFound, Refused, WatchError

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.watch.watcher import Watcher

SETTLING = 10.0
"""Seconds after a deferral before an event may resume the task: sooner, the executor may still be reporting the end
of the process that deferred, and the scheduler takes the task for one that died. On a busy machine 6 s were too few."""


KILLED = "The Airflow task was killed"
"""What AWS is told when a kill stops a job."""

PATIENCE = 25.0
"""Seconds for which a killed trigger does not let itself be cancelled while it stops its jobs."""

_stopping: set[asyncio.Task[None]] = set()
"""What goes on when a killed trigger is gone: an event loop holds its tasks only weakly."""


class WaitTrigger(BaseTrigger):
    """Base of the triggers that wait for an operator or a sensor.

    A subclass has only keyword arguments, and keeps each in an attribute of its name.

    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param poll_interval: seconds between two looks at one job.
    :param deadline: when to stop waiting, in seconds since the epoch; None for never.
    :param deferred_at: when the task was deferred; likewise.
    :param cancel_on_kill: whether a person's kill stops the jobs.
    :param cancel_on_timeout: whether a passed deadline stops the jobs, before the trigger fires. Default False.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        poll_interval: float = 10.0,
        deadline: float | None = None,
        deferred_at: float | None = None,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.deferred_at = deferred_at
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give all there is to know to make this trigger again elsewhere."""
        names = [
            name
            for cls in (type(self), WaitTrigger)
            for name, each in inspect.signature(cls).parameters.items()
            if each.kind is each.KEYWORD_ONLY
        ]
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    @property
    def access(self) -> Access:
        """Whom to ask."""
        return Access(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    def watcher(self, service: str, scope: str | None) -> Watcher[Snapshot]:
        """Return the process's watcher of a service; in a triggerer, which lasts, it listens for events too."""
        return shared_watcher(self.access, service, scope, events=self.task_instance is not None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event: one that ends the task, or one with which a worker goes on."""
        event = await self.wait()
        end = await self.end(event)
        if end is None:
            await asyncio.sleep(self.settling(time.time()))
        self._fired = True
        yield end or TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's is untyped

    @abstractmethod
    async def wait(self) -> dict[str, Any]:
        """Wait until it is over, or the deadline has passed, and return the event."""

    async def end(self, event: dict[str, Any]) -> TriggerEvent | None:  # noqa: ARG002
        """Return the event that ends the task here, if no worker is needed for that."""
        return None

    def settling(self, now: float) -> float:
        """Seconds to hold an event back; outside a triggerer, where no scheduler looks on, none."""
        if self.task_instance is None or self.deferred_at is None:
            return 0.0
        return max(0.0, self.deferred_at + SETTLING - now)

    async def on_kill(self) -> None:
        """Stop the jobs, if they are this task's own and a person did act on it.

        Airflow cancels a trigger again every second until it has ended, also while it is here; and after 30 s it waits
        no longer. What stops the jobs is not disturbed by either.
        """
        loop = asyncio.get_running_loop()
        stopping = loop.create_task(self._stop_if_killed())
        _stopping.add(stopping)
        stopping.add_done_callback(_stopping.discard)
        patience = loop.time() + PATIENCE
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                if loop.time() > patience:
                    raise

    async def _stop_if_killed(self) -> None:
        if await self.was_killed():
            await self.stop_jobs()

    @abstractmethod
    async def stop_jobs(self) -> None:
        """Stop the jobs that the task has started."""

    async def was_killed(self) -> bool:
        """Say whether a person has acted on the task, and the jobs are to be stopped.

        Airflow calls ``on_kill`` also for a trigger that lingers after its event, and for one whose triggerer was
        frozen while another took over: then the task still is deferred, and nothing is stopped.
        """
        return self.cancel_on_kill and not self._fired and not await self._still_deferred()

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


def kind_of(error: WatchError | CallError) -> str:
    """Name what ended the watching, for the operator to raise the exception that fits."""
    if isinstance(error, NotFound):
        return "vanished"
    if isinstance(error, Refused | CallError) and error.fault in (Fault.DENIED, Fault.CREDENTIALS):
        return "denied"
    return "unanswerable"
