"""Kills of deferred tasks: Airflow 3.3 calls a trigger's ``on_kill``; on Airflow 3.2 this module calls it.

Airflow 3.3 writes a log line in a thread before it calls ``on_kill``. If that takes more than a second, Airflow cancels
the trigger again and does not call ``on_kill`` (read and run: 3.3.2): for example when many tasks are killed at once,
whose lines fill the pipe to the log. So the kill begins with the first cancellation.

How Airflow 3.2 kills a deferred task (read and run: 3.2.1): like 3.3, it cancels the trigger every second until the
trigger has ended. But its cancellations carry no message, so they look like those of a triggerer that shuts down, and
it has no ``on_kill``.

Invariants:

- As in 3.3, ``on_kill`` is called neither when a deferral times out nor when the triggerer shuts down.
- ``on_kill`` decides whether to stop anything: it asks Airflow first whether the task is still deferred.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from airflow.triggers.base import BaseTrigger

from airflow_jobflow.airflow_compat.deferrals import timeout_of
from airflow_jobflow.airflow_compat.states import ON_KILL_LIMIT

log = logging.getLogger(__name__)

CALLED_BY_AIRFLOW: Final = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow itself calls ``on_kill`` (3.3 and newer)."""


@asynccontextmanager
async def on_kill_called(
    trigger: BaseTrigger, on_kill: Callable[[], Awaitable[None]], begin: Callable[[], object]
) -> AsyncIterator[None]:
    """Begin a kill when the trigger is killed inside the block, and call ``on_kill`` if Airflow does not call it.

    Airflow 3.2.1 does not; 3.3.2 usually does.

    :param trigger: the trigger. Under ``airflow dags test`` it has no task instance, so its task cannot be killed.
    :param on_kill: the trigger's ``on_kill``. Cancelled after ``ON_KILL_LIMIT``; an exception that it raises is logged.
    :param begin: begins what ``on_kill`` waits for, and returns at once.
    """
    try:
        yield
    except asyncio.CancelledError as cancelled:
        has_task: Any = trigger.task_instance
        if not has_task or not may_be_kill(cancelled) or _has_timed_out(trigger):
            raise
        begin()
        if not CALLED_BY_AIRFLOW:
            log.info("The trigger was cancelled")
            try:
                await asyncio.wait_for(on_kill(), ON_KILL_LIMIT)
            except TimeoutError:
                log.warning("Stopping the jobs takes longer than %g s; it continues in the background", ON_KILL_LIMIT)
            except Exception:
                log.exception("Could not stop the jobs of the killed task")
        raise


def may_be_kill(cancelled: asyncio.CancelledError) -> bool:
    """Return whether a trigger may have been cancelled because its task was killed, not because the triggerer stops.

    Relies on ``TriggerRunner`` (3.2.1: a bound method of it handles SIGTERM and sets ``stop``; 3.3.2: it cancels the
    triggers of killed tasks with a message).

    :param cancelled: the exception that the trigger got.
    """
    return bool(cancelled.args) if CALLED_BY_AIRFLOW else not _triggerer_ends()


def _triggerer_ends() -> bool:
    """Return whether the triggerer that runs this is stopping, or has lost its supervisor."""
    from airflow.sdk.execution_time import task_runner

    runner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    reader = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_async_reader", None)
    return bool(getattr(runner, "stop", False)) or (reader is not None and reader.at_eof())


def _has_timed_out(trigger: Any) -> bool:
    """Return whether the deferral has timed out: Airflow then resumes the task, which decides about its jobs."""
    limit = timeout_of(trigger)
    return limit is not None and limit < datetime.now(UTC)
