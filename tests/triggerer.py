"""Airflow's own triggerer, as far as a trigger depends on it: its runner's loop, and a scripted supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.jobs.triggerer_job_runner import TriggerRunner
from structlog.contextvars import get_contextvars

if TYPE_CHECKING:
    from airflow.sdk.execution_time import comms


def task(number: int = 0, *, task_id: str = "t", map_index: int = -1) -> Any:
    """Return the parts of a task instance that a triggerer and a trigger use."""
    return SimpleNamespace(
        id=f"ti-{number}",
        dag_id="d",
        task_id=task_id,
        run_id="r",
        map_index=map_index,
        try_number=1,
        context_carrier=None,
    )


class Supervisor:
    """The other end of the triggerer's connection.

    :param script: the responses to the first requests: an error, or the state of all tasks.
    :param state: the state of all tasks after that; None for no response.
    """

    def __init__(self, *script: Exception | str, state: str | None = "failed") -> None:
        self.asked: list[comms.GetTaskStates] = []
        self.busy_until: asyncio.Event | None = None
        """No response is sent before this event is set."""
        self._script = list(script)
        self._state = state

    async def asend(self, message: comms.GetTaskStates) -> Any:
        """Respond to a request."""
        self.asked.append(message)
        await (self.busy_until.wait() if self.busy_until else asyncio.sleep(0))
        answer = self._script.pop(0) if self._script else self._state
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(task_states={"r": OneState(answer)})


class OneState(dict[str, Any]):
    """The states of all tasks, which are the same."""

    def __init__(self, state: Any) -> None:
        super().__init__(all=state)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002
        """Return the state of a task."""
        return self["all"]


class Triggerer:
    """Runs and kills triggers like Airflow."""

    def __init__(self) -> None:
        self.runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self._numbers = 0

    def start(self, trigger: Any, task_instance: Any = None) -> asyncio.Task[None]:
        """Start a trigger."""
        self._numbers += 1
        trigger.task_instance = task_instance or task(self._numbers)
        with contextlib.suppress(ValueError):  # one that starts in the triggerer has none
            trigger.task_instance.trigger_id = self._numbers
        running = asyncio.create_task(self.runner.run_trigger(self._numbers, trigger))
        self.runner.triggers[self._numbers] = {
            "task": running,
            "is_watcher": False,
            "name": f"trigger {self._numbers}",
            "events": 0,
        }
        return running

    async def kill(self, *, every: float = 0.05) -> None:
        """Cancel all triggers repeatedly until they have ended. Airflow does so every second."""
        while left := {
            number: each["task"] for number, each in self.runner.triggers.items() if not each["task"].done()
        }:
            self.runner.to_cancel.extend(left)
            await self.runner.cancel_triggers()
            await asyncio.wait(left.values(), timeout=every, return_when=asyncio.ALL_COMPLETED)

    def end(self) -> None:
        """Send SIGTERM to it; asyncio then cancels the rest. The test restores the signal handler."""
        signal.signal(signal.SIGTERM, self.runner._handle_signal)
        signal.raise_signal(signal.SIGTERM)

    @property
    def events(self) -> list[Any]:
        """Return the payloads of fired events."""
        # A named tuple; before Airflow 3.3, a pair of the trigger's number and its event.
        return [getattr(entry, "event", entry[1]).payload for entry in self.runner.events]


class TaskLogs(logging.Handler):
    """The log lines by the id of the task instance to whose log Airflow would write them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[tuple[str | None, int | None], str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line."""
        context = get_contextvars()
        self.lines.append(((context.get("ti_id"), context.get("trigger_id")), record.getMessage()))

    def of(self, task_instance: Any) -> list[str]:
        """Return the lines of a task."""
        known = getattr(task_instance, "trigger_id", None)

        def is_its(ti_id: str | None, number: int | None) -> bool:
            if ti_id is None and number is not None:  # Airflow 3.2 uses the trigger only
                return known in (None, number)
            return bool(ti_id == task_instance.id)

        return [line for ids, line in self.lines if is_its(*ids)]
