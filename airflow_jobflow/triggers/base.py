"""What all triggers here share: the AWS connection, how they are stored, when they may fire, and what a kill does.

How Airflow 3.3 kills a deferred task (``triggerer_job_runner.py``; 3.2: see ``airflow_compat.kills``): it deletes the
trigger's row, and the triggerer cancels the trigger with a message, every second until it has ended. All triggers that
are killed at the same time run side by side. On the first cancellation Airflow logs it, and then awaits ``on_kill``,
for at most 30 s. A second cancellation while it logs skips ``on_kill``; one after that abandons ``on_kill`` on Python
3.11, and is passed on to it by later versions. Then Airflow awaits ``cleanup`` without a limit, and reports the trigger
as ended. Its supervisor then closes the task's log. So the first cancellation already begins to stop the jobs,
``on_kill`` waits for that, and ``cleanup`` keeps the trigger, and with it the log, until that is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobflow.airflow_compat.kills import may_be_kill, on_kill_called
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
"""The module's logger, not one per trigger: Airflow knows from the context which task a line belongs to."""

MIN_DEFERRAL = 10.0
"""Seconds after a deferral before an event may resume the task. Earlier, the executor may still be reporting the end of
the process that deferred, and the scheduler would treat the task as one whose process died. On a busy machine 6 s were
not enough."""

LOG_DELAY = 5.0
"""Seconds for which a trigger stays after it has stopped jobs. The supervisor reads 4 KB of log lines per iteration of
its loop, while up to 208 KB may wait in the socket, and closes the task's log as soon as the trigger has ended."""

ERROR_KINDS = {Fault.DENIED: "denied", Fault.CREDENTIALS: "credentials"}
"""The ``kind`` of an error in an event, by the fault of the last call."""

_background: set[asyncio.Task[None]] = set()
"""Background tasks of all triggers: an event loop holds its tasks only weakly."""


class KillableTrigger(Stored, BaseTrigger):
    """Base class of the triggers of tasks: what a kill does, and the work that continues in the background."""

    cancel_on_kill: bool = True
    """Whether a kill by a user stops the jobs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self._fired = False
        self._kill: asyncio.Task[None] | None = None
        """Handles a kill."""
        self._has_begun_kill = False
        """Whether that kill has begun, and ``on_kill`` was not called yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The running background tasks of this trigger."""
        self._has_spawned = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background to its end, even if this trigger is cancelled.

        Its log lines go to the task's log, which stays open for it.

        :param work: the coroutine.
        :return: its task.
        """
        task = asyncio.get_running_loop().create_task(work)
        for tasks in (_background, self._tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        self._has_spawned = True
        return task

    def begin_kill(self) -> asyncio.Task[None]:
        """Begin to stop the jobs, if they are this task's own and a user has acted on it.

        :return: the task that does so. It continues when this trigger is cancelled again.
        """
        if self._kill is None or self._kill.done():
            self._kill = self.spawn(self._stop_if_killed())
        self._has_begun_kill = True
        return self._kill

    async def on_kill(self) -> None:
        """Stop the jobs, see ``begin_kill``, unless that has begun; wait until it is done."""
        kill = self._kill if self._kill and self._has_begun_kill else self.begin_kill()
        self._has_begun_kill = False
        await asyncio.shield(kill)

    async def cleanup(self) -> None:
        """Keep this trigger until its background tasks have ended and their log lines were read.

        Airflow cancels a killed trigger every second; a triggerer that shuts down cancels it once.
        """
        kept_until = float("inf") if self._has_spawned else float("-inf")
        loop = asyncio.get_running_loop()
        while self._tasks or loop.time() < kept_until:
            try:
                if self._tasks:
                    await asyncio.wait(self._tasks)
                else:
                    kept_until = min(kept_until, loop.time() + LOG_DELAY)
                    await asyncio.sleep(kept_until - loop.time())
            except asyncio.CancelledError as cancelled:
                if not may_be_kill(cancelled):
                    raise

    async def _stop_if_killed(self) -> None:
        """Stop the jobs if a user has acted on the task.

        Airflow also calls ``on_kill`` for a trigger that still exists after its event, and for one whose triggerer
        stalled while another took it over. The task is still deferred then, and nothing is stopped. Nor is anything
        stopped if Airflow does not answer.
        """
        if not self.cancel_on_kill or self._fired:
            return
        try:
            is_deferred = await task_states().still_deferred(self.task_instance)
        except TimeoutError as error:
            log.error("%s. Therefore %s was left running", error, self.subject)  # noqa: TRY400 -- the cause was logged
            return
        except asyncio.CancelledError:  # the triggerer shuts down
            log.error("The task may have been killed: %s was not stopped, and may still run", self.subject)  # noqa: TRY400
            raise
        if is_deferred:
            log.info("The trigger was cancelled, but its task is still deferred, so no job is stopped")
            return
        await self.stop_jobs()

    @property
    def subject(self) -> str:
        """The jobs, as log lines call them."""
        return "the task's job"

    @abstractmethod
    async def stop_jobs(self) -> None:
        """Stop the jobs that the task has started, because it was killed. Runs in the background to its end."""


class WaitTrigger(KillableTrigger):
    """Base class of the triggers that wait for an operator or a sensor.

    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param poll_interval: seconds between two describe calls for one job. Default 10.
    :param deadline: when to stop waiting, in seconds since the epoch. Default None: never.
    :param deferred_at: when the task was deferred, in seconds since the epoch. Default None: it was not deferred.
    :param cancel_on_kill: whether a kill by a user stops the jobs. Default False, for jobs that are not the task's own.
    :param cancel_on_timeout: whether a passed deadline stops the jobs. Default False, for jobs that are not the task's
        own.
    :param stream_logs: True to copy the jobs' logs into the task's log while they run, ``failed`` to copy the last
        lines of those that failed, children and items too, at the end. Default False.
    :param max_log_lines: the most lines to copy. Default 10,000.
    :param attempt: the attempt that started the jobs, if it was made in the triggerer; it becomes part of the event.
        Default None: the deferral carries it.
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
        stream_logs: bool | str = False,
        max_log_lines: int = 10_000,
        attempt: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.deferred_at = deferred_at
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.stream_logs = stream_logs
        self.max_log_lines = max_log_lines
        self.attempt = attempt

    @property
    def access(self) -> Access:
        """The AWS connection to use."""
        return Access(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    def watcher(self, service: str, scope: str | None) -> Watcher[Snapshot]:
        """Return the process's watcher of a service. In a triggerer it also listens for events.

        :param service: our name of the service, such as ``batch``.
        :param scope: the cluster or Glue job that describe calls name, if the service needs one; else None.
        """
        return shared_watcher(self.access, service, scope, events=self.task_instance is not None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire one event: either it ends the task, or a worker continues with it."""
        async with on_kill_called(self, self.on_kill, self.begin_kill):
            event = await self.wait()
            if self.attempt is not None:
                event["attempt"] = self.attempt
            final_event = await self.finish(event)
            if final_event is None:
                await asyncio.sleep(self.seconds_until_resumable(time.time()))
        self._fired = True
        yield final_event or TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's is untyped

    @abstractmethod
    async def wait(self) -> dict[str, Any]:
        """Wait until the jobs have ended or the deadline has passed, and return the event's payload."""

    async def finish(self, event: dict[str, Any]) -> TriggerEvent | None:  # noqa: ARG002
        """Return the event that ends the task in the triggerer; None if a worker is needed.

        :param event: what ``wait`` returned.
        """
        return None

    def seconds_until_resumable(self, now: float) -> float:
        """Return how many seconds to hold back the event; 0 outside a triggerer, where no scheduler is involved.

        :param now: in seconds since the epoch.
        """
        if self.task_instance is None or self.deferred_at is None:
            return 0.0
        return max(0.0, self.deferred_at + MIN_DEFERRAL - now)


def error_kind(error: WatchError | CallError) -> str:
    """Return the ``kind`` of an error in an event, which decides the exception that the operator raises.

    :param error: what ended the wait.
    """
    if isinstance(error, NotFound):
        return "vanished"
    if isinstance(error, DescribeRejected | CallError) and error.fault in ERROR_KINDS:
        return ERROR_KINDS[error.fault]
    return "unanswerable"
