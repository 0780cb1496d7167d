"""What every trigger here has in common: how it reaches AWS, how it is stored, when it may fire, what a kill does.

How Airflow 3.3 kills a deferred task (``triggerer_job_runner.py``; 3.2: see ``airflow_compat.kills``): it deletes the
trigger's row, and the triggerer cancels the trigger with a message, every second until it has ended; all that are
killed at once, side by side. The first cancellation makes it await ``on_kill``, for 30 s at most. On Python 3.11 the
next one already abandons ``on_kill``; later versions pass each on to it. Then it awaits ``cleanup``, however long
that takes, reports the trigger as ended, and its supervisor closes the task's log. So ``on_kill`` only starts what
stops the jobs, and ``cleanup`` keeps the trigger, and with it the log, until that is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobflow.airflow_compat.kills import may_be_kill, on_kill_called
from airflow_jobflow.airflow_compat.states import still_deferred
from airflow_jobflow.aws import Access
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.task_states import task_states
from airflow_jobflow.triggers.stored import Stored
from airflow_jobflow.watchers import shared_watcher

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.polling.watcher import Watcher

log = logging.getLogger(__name__)
"""Of the module, not of each trigger: which task a line belongs to, Airflow knows from the context it is logged in."""

MIN_DEFERRAL = 10.0
"""Seconds after a deferral before an event may resume the task: sooner, the executor may still be reporting the end
of the process that deferred, and the scheduler takes the task for one that died. On a busy machine 6 s were too few."""


KILLED = "The Airflow task was killed"
"""What AWS is told when a kill stops a job."""

LOG_DELAY = 5.0
"""Seconds for which a trigger is kept after it has stopped jobs. The supervisor reads 4 KB of log lines in each round
of its loop, of up to 208 KB that wait in the socket, and closes the task's log as soon as it hears that the trigger has
ended."""

KINDS = {Fault.DENIED: "denied", Fault.CREDENTIALS: "credentials"}
"""How an event names what ended the watching of a job that AWS may know, by what the last error means."""

_background: set[asyncio.Task[None]] = set()
"""What triggers have started in the background: an event loop holds its tasks only weakly."""


class WaitTrigger(Stored, BaseTrigger):
    """Base of the triggers that wait for an operator or a sensor.

    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param poll_interval: seconds between two describe calls for one job.
    :param deadline: when to stop waiting, in seconds since the epoch; None for never.
    :param deferred_at: when the task was deferred; likewise.
    :param cancel_on_kill: whether a user's kill stops the jobs. False for jobs that are not the task's own.
    :param cancel_on_timeout: whether a passed deadline stops the jobs. False for jobs that are not the task's own.
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
        self._kill: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        """What runs in the background for this trigger."""
        self._has_worked = False

    @property
    def access(self) -> Access:
        """The AWS connection to use."""
        return Access(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    def watcher(self, service: str, scope: str | None) -> Watcher[Snapshot]:
        """Return the process's watcher of a service; in a triggerer, which lasts, it listens for events too."""
        return shared_watcher(self.access, service, scope, events=self.task_instance is not None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event: one that ends the task, or one with which a worker goes on."""
        async with on_kill_called(self, self.on_kill):
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
        return max(0.0, self.deferred_at + MIN_DEFERRAL - now)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background, to its end, also when this trigger is cancelled.

        Its log lines go to the task's log, which stays open for it.
        """
        task = asyncio.get_running_loop().create_task(work)
        for tasks in (_background, self._work):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        self._has_worked = True
        return task

    async def on_kill(self) -> None:
        """Stop the jobs, if they are this task's own and a user has acted on it.

        What stops them goes on when this is cancelled, or has taken longer than Airflow allows.
        """
        if self._kill is None or self._kill.done():
            self._kill = self.spawn(self._stop_if_killed())
        await asyncio.shield(self._kill)

    async def cleanup(self) -> None:
        """Keep this trigger until what it has started in the background has ended, and its log lines were read.

        Airflow cancels a killed trigger every second; a triggerer that ends cancels it once.
        """
        kept_until = float("inf") if self._has_worked else float("-inf")
        loop = asyncio.get_running_loop()
        while self._work or loop.time() < kept_until:
            try:
                if self._work:
                    await asyncio.wait(self._work)
                else:
                    kept_until = min(kept_until, loop.time() + LOG_DELAY)
                    await asyncio.sleep(kept_until - loop.time())
            except asyncio.CancelledError as cancelled:
                if not may_be_kill(cancelled):
                    raise

    async def _stop_if_killed(self) -> None:
        """Stop the jobs if a user has acted on the task.

        Airflow calls ``on_kill`` also for a trigger that lingers after its event, and for one whose triggerer was
        frozen while another took over: then the task still is deferred, and nothing is stopped. Nor is it where Airflow
        does not say.
        """
        if not self.cancel_on_kill or self._fired:
            return
        try:
            is_deferred = await still_deferred(self.task_instance, ask=task_states().is_deferred)
        except TimeoutError as error:
            log.error("%s. Without that answer, %s was left running", error, self.subject)  # noqa: TRY400 -- the cause was logged
            return
        except asyncio.CancelledError:  # the triggerer ends
            log.error("The task may have been killed: %s was not stopped, and may still run", self.subject)  # noqa: TRY400
            raise
        if is_deferred:
            log.info("The trigger was cancelled, but its task is still deferred: nothing is stopped")
            return
        await self.stop_jobs()

    @property
    def subject(self) -> str:
        """What is waited for, for log lines."""
        return "what the task has started"

    @abstractmethod
    async def stop_jobs(self) -> None:
        """Stop the jobs that the task has started, because it was killed. Runs in the background, to its end."""


def kind_of(error: WatchError | CallError) -> str:
    """Name what ended the watching, for the operator to raise the exception that fits."""
    if isinstance(error, NotFound):
        return "vanished"
    if isinstance(error, DescribeRejected | CallError) and error.fault in KINDS:
        return KINDS[error.fault]
    return "unanswerable"
