"""A task that starts in the triggerer: this renders its parameters, starts its jobs, and hands over to the trigger that
waits for them.

Airflow passes such a trigger the task as it was serialized. What cannot be started here (a wrong parameter, a template
that fails, a mapping that only a worker can resolve, a rejected submit, a later try) is started on a worker: it reports
the error, and Airflow retries the task and runs its callbacks as usual.

On a retry, a worker deletes the XComs of the previous try before it starts. Airflow does not do that here, so this
does. Airflow would also keep the end time of the previous try for this one, so a worker ends a task that is retried.

Invariants:

- This trigger may replace another one that has submitted the job, and died. So a task that starts jobs looks for its
  job first, unless its submit carries a token.
- A cancelled trigger submits nothing any more. If a submit is under way when a user kills the task, its job is stopped.
- After the event loop stood still, as in a frozen process, nothing is submitted before a cancellation would have
  arrived: another triggerer may have taken over, and may be starting the same task right now.
- Whatever may wait for AWS runs in threads of the service's client, not in those that render templates.
- Airflow imports this module on its event loop, so modules that only threads need are imported there.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import TriggerEvent

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.airflow_compat.deferrals import set_timeout, timeout_of
from airflow_jobflow.airflow_compat.kills import on_kill_called
from airflow_jobflow.airflow_compat.serialized_tasks import dag_renders_natively
from airflow_jobflow.airflow_compat.xcoms import delete_xcom
from airflow_jobflow.triggers.base import KillableTrigger, WaitTrigger
from airflow_jobflow.triggers.mapped_arguments import NeedsWorker, mapped_arguments

if TYPE_CHECKING:
    from concurrent.futures import Future

    import jinja2
    from airflow.sdk import Context

    from airflow_jobflow.aws import ServiceClient

log = logging.getLogger(__name__)

START_ON_WORKER: dict[str, Any] = {"start_on_worker": True}
"""The event with which a worker starts the task. ``may_have_started`` is added once a submit may have been sent."""

LISTING_DELAY = 2.0
"""Seconds after the creation of a trigger before a listing shows what its predecessor has submitted: AWS lists new jobs
with a delay."""

LISTING_SHARED = 1.0
"""Seconds for which a trigger waits after that, so that triggers that are created one after the other share a
listing."""


TICK = 2.0
"""Seconds between two checks that the event loop runs, while a task starts."""

STALLED = 10.0
"""Seconds without such a check after which another triggerer may have taken over. Airflow's default is 30."""

SETTLING = 10.0
"""Seconds within which a triggerer that runs again cancels the triggers that another one has taken over."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a task starts, prepared by its operator or sensor.

    :param run: starts the jobs, and returns the trigger that waits for them. Takes a function that returns whether this
        trigger was cancelled, so that nothing may be submitted any more, and the time after which a listing of jobs may
        begin.
    :param client: the client whose threads it runs in, because it may wait for AWS. Default None: it makes no call.
    :param needs_lookup: whether it first looks for a job that another trigger has started, in a listing. Default False.
    """

    run: Callable[[Callable[[], bool], float], WaitTrigger]
    client: ServiceClient | None = None
    needs_lookup: bool = False


class StartTrigger(KillableTrigger):
    """Starts a task, and waits for its jobs.

    :param task_class: import path of the operator's or sensor's class. It is data, because triggers import neither.
    :param arguments: its parameters, by name, before rendering.
    :param seconds: seconds from the task's start to the time when Airflow itself ends the wait. The trigger's arguments
        are fixed when the DAG is parsed, so the start time is computed from that end.
    """

    def __init__(self, *, task_class: str, arguments: dict[str, Any], seconds: float) -> None:
        super().__init__()
        self.task_class = task_class
        self.arguments = arguments
        self.seconds = seconds
        self._created_at = time.time()
        self._rendering: tuple[Context, jinja2.Environment | None] | None = None
        """The context and the environment to render the parameters with."""
        self._cancelled = threading.Event()
        self._prepared: Start | None = None
        self._starting: Future[WaitTrigger] | None = None
        """The start, once it may have sent a submit."""
        self._trigger: WaitTrigger | None = None
        """The trigger that waits for the jobs."""
        self._ran_at = time.monotonic()
        """When the event loop was last seen running."""
        self._has_stalled = False

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Keep what the parameters are rendered with, for ``run``: Airflow calls this on the event loop.

        :param context: the context of the task.
        :param jinja_env: the environment to use. Default None, for the DAG's own.
        """
        self._rendering = context, jinja_env

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start the task and wait for its jobs; if it cannot be started here, fire the event that starts a worker."""
        ticks = asyncio.create_task(self._tick())
        try:
            async with on_kill_called(self, self.on_kill, self.begin_kill):
                trigger = await self._start()
        except Exception as error:  # noqa: BLE001 -- whatever it is, a worker meets it again and raises it
            await asyncio.to_thread(log.info, "Starting the task on a worker: %s", error)
            self._fired = True
            yield TriggerEvent(START_ON_WORKER | ({"may_have_started": True} if self._starting else {}))  # type: ignore[no-untyped-call]  # Airflow's is untyped
            return
        finally:
            ticks.cancel()
        self._trigger = trigger
        # Thousands of waits would keep thousands of contexts and operators.
        self._rendering = self._prepared = self._starting = None
        async for event in trigger.run():
            yield event

    async def _start(self) -> WaitTrigger:
        """Start the task, and return the trigger that waits for its jobs."""
        try:
            while True:
                try:
                    return self._started(await self._try_to_start())
                except Exception:  # an event would end the trigger that another triggerer runs, and stop its job
                    if not self._may_be_replaced():
                        raise
                self._prepared = self._starting = None
                await asyncio.sleep(SETTLING)
                self._created_at, self._ran_at, self._has_stalled = time.time(), time.monotonic(), False
        except asyncio.CancelledError:
            self._cancelled.set()
            if self._starting:
                self._starting.cancel()  # has an effect only if no thread has begun it
            raise

    async def _try_to_start(self) -> WaitTrigger:
        self._prepared = start = await asyncio.to_thread(self._prepare)
        if start.client is None:
            return start.run(self._cancelled.is_set, 0.0)
        listed_after = self._created_at + LISTING_DELAY
        if start.needs_lookup:
            await asyncio.sleep(listed_after + LISTING_SHARED - time.time())
        self._starting = self._run_in_thread(start, listed_after)
        return await _result(self._starting)

    async def _tick(self) -> None:
        """Notice while the task starts that the event loop stood still."""
        while True:
            self._has_stalled = self._may_be_replaced()
            self._ran_at = time.monotonic()
            await asyncio.sleep(TICK)

    def _may_be_replaced(self) -> bool:
        """Return whether the event loop stood still, so that another triggerer may have taken over."""
        return self._has_stalled or time.monotonic() - self._ran_at > STALLED

    def _may_not_submit(self) -> bool:
        return self._cancelled.is_set() or self._may_be_replaced()

    def _started(self, trigger: WaitTrigger) -> WaitTrigger:
        trigger.task_instance = self.task_instance
        set_timeout(trigger, timeout_of(self))
        return trigger

    def _run_in_thread(self, start: Start, listed_after: float) -> Future[WaitTrigger]:
        """Run a start that may wait for AWS."""
        if start.client is None:
            raise NeedsWorker("it makes no call")
        run = contextvars.copy_context().run  # so that its log lines go to the task's log
        return start.client.start(run, start.run, self._may_not_submit, listed_after, patiently=True)

    def _prepare(self) -> Start:
        """Make the task from its rendered parameters, and return how it starts. Blocks.

        :raises NeedsWorker: only a worker can start it.
        """
        module, _, name = self.task_class.rpartition(".")
        task_class = getattr(importlib.import_module(module), name)
        ti: Any = self.task_instance
        was_tried = ti.try_number > 1
        if was_tried:
            _delete_xcoms(ti)
        serialized: Any = self.task
        # A cluster policy changes a mapped task after it was decided that it starts here.
        is_mapped = serialized is not None and serialized.is_mapped
        if is_mapped and (used := trigger_eligibility.used_on_way_to_worker(task_class, serialized)):
            raise NeedsWorker(used)
        context, rendered = self._rendered()
        task = task_class(task_id=serialized.task_id, start_from_trigger=False, **rendered)
        may_end = not was_tried and trigger_eligibility.may_end(serialized, is_mapped=is_mapped)
        started: Start = task.start_in_triggerer(context, self._started_at, may_end=may_end)
        return started

    def _rendered(self) -> tuple[Context, dict[str, Any]]:
        """Return the context of the task, and its rendered parameters, by name.

        :raises NeedsWorker: they cannot be rendered here.
        """
        from jinja2 import StrictUndefined

        if self._rendering is None:
            raise NeedsWorker("the serialized task is not available")
        (context, env), task = self._rendering, cast("Any", self.task)
        mapped = mapped_arguments(task, context["ti"], self._started_at)
        natively = dag_renders_natively(task)
        if not all(trigger_eligibility.renderable(each, natively=natively) for each in mapped.values()):
            raise NeedsWorker("it is mapped over a template that only a worker can render")
        env = env or self.get_template_env()
        env.undefined = StrictUndefined  # as on a worker: an undefined name is an error, not an empty string
        return context, {
            name: self.render_template(value, context, env)
            if name in task.template_fields and trigger_eligibility.has_template(value)
            else value
            for name, value in {**self.arguments, **mapped}.items()
        }

    @property
    def _started_at(self) -> float:
        """When the scheduler started the task, in seconds since the epoch.

        :raises NeedsWorker: the triggerer has not set when the deferral ends.
        """
        if (timeout := timeout_of(self)) is None:
            raise NeedsWorker("it is not known when the task started")
        return timeout.timestamp() - self.seconds

    # Kills.

    async def on_kill(self) -> None:
        """Stop the jobs, if they are this task's own and a user has acted on it; see the base."""
        killed_while_starting = self._kill is not None
        await (self._trigger.on_kill() if self._trigger and not killed_while_starting else super().on_kill())

    async def stop_jobs(self) -> None:
        """Stop the jobs of a submit that was under way when the task was killed, or of a trigger before this one."""
        try:
            if self._prepared is None:
                self._prepared = await asyncio.to_thread(self._prepare)
            if self._prepared.client is None:
                return
            if self._starting is None or self._starting.cancelled():  # it only looks up now
                self._starting = self._run_in_thread(self._prepared, time.time())
            trigger = self._started(await _result(self._starting))
        except Exception as error:  # noqa: BLE001 -- whatever it is, no id is known
            await asyncio.to_thread(log.info, "The task was killed before it had started a job: %s", error)
            return
        if trigger.cancel_on_kill:
            self._trigger = trigger
            await trigger.stop_jobs()

    async def cleanup(self) -> None:
        """Keep this trigger until its background tasks have ended; see the base."""
        await super().cleanup()
        if self._trigger:
            await self._trigger.cleanup()


def _delete_xcoms(task_instance: Any) -> None:
    """Delete the XComs that an earlier try has pushed."""
    from airflow_jobflow import links
    from airflow_jobflow.triggers import log_positions
    from airflow_jobflow.ui import notes

    for key in ("return_value", notes.KEY, links.KEY, log_positions.KEY):
        delete_xcom(task_instance, key)


async def _result(work: Future[WaitTrigger]) -> WaitTrigger:
    """Wait for a thread, which runs to its end even if this is cancelled."""
    future = asyncio.wrap_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio would log it otherwise
    await asyncio.wait({future})
    return work.result()
