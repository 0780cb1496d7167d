"""A triggerer of the small Airflow: a process with Airflow's own ``TriggerRunner``, which runs the triggers."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner
from airflow.triggers.base import TaskSuccessEvent

from tests.chaos.lines import Fired, Line, Row, Sign, Wanted, prepare

log = logging.getLogger("chaos.triggerer")

TICK: Final = 0.3
"""Seconds between two iterations, in which triggers are started and cancelled; one in Airflow."""

GRACE: Final = 2.0
"""Seconds in which a triggerer that gets SIGTERM cancels its triggers."""


class Supervisor(Line):
    """The triggerer's connection to Airflow."""

    async def asend(self, message: Any) -> Any:
        """Send a request, and return the response."""
        return await asyncio.to_thread(self.send, message)


class Process:
    """The triggers of one process.

    :param control: the connection to Airflow, for the wanted triggers and their events.
    """

    def __init__(self, control: Connection) -> None:
        self._control = control
        self._runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self._wanted: dict[int, Row] = {}
        self._picked_up: list[int] = []
        self._fired: set[int] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        threading.Thread(target=self._listen, args=(loop,), daemon=True).start()
        while not self._stopping.is_set():
            await self._round()
            try:
                await asyncio.wait_for(self._stopping.wait(), TICK)
            except TimeoutError:
                continue
        tasks = [each["task"] for each in self._runner.triggers.values()]
        for task in tasks:
            task.cancel()  # without a message
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                wanted: Wanted = self._control.recv()
            except EOFError:
                os._exit(0)
            loop.call_soon_threadsafe(self._want, {row.number: row for row in wanted.rows})

    def _want(self, rows: dict[int, Row]) -> None:
        self._wanted = rows

    async def _round(self) -> None:
        finished = self._clean_up()
        for number, row in self._wanted.items():
            if number not in self._runner.triggers and number not in self._fired:
                self._start(row)
        gone = [number for number in self._runner.triggers if number not in self._wanted]
        self._runner.to_cancel.extend(gone)
        await self._runner.cancel_triggers()
        self._control.send(Sign(tuple(self._picked_up), tuple(finished)))
        self._picked_up.clear()

    def _start(self, row: Row) -> None:
        module, _, name = row.classpath.rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(row.kwargs)))
        trigger.task_instance = SimpleNamespace(
            id=row.ti_id,
            dag_id=row.key.dag_id,
            run_id=row.key.run_id,
            task_id=row.key.task_id,
            map_index=row.key.map_index,
            try_number=row.try_number,
            context_carrier=None,
        )
        timeout = None if row.timeout_at is None else datetime.fromtimestamp(row.timeout_at, tz=UTC)
        log.info("Trigger %d of %s starting", row.number, row.key)
        self._runner.triggers[row.number] = {"task": None, "is_watcher": False, "name": str(row.key), "events": 0}
        running = asyncio.create_task(self._runner.run_trigger(row.number, trigger, timeout_after=timeout))
        self._runner.triggers[row.number]["task"] = running
        self._picked_up.append(row.number)

    def _clean_up(self) -> list[int]:
        """Report events and ends."""
        while self._runner.events:
            entry = self._runner.events.popleft()
            self._fired.add(entry.trigger_id)
            event = entry.event
            if isinstance(event, TaskSuccessEvent):
                self._control.send(Fired(entry.trigger_id, ends_task="success", xcoms=dict(event.xcoms or {})))
            else:
                self._control.send(Fired(entry.trigger_id, payload=json.loads(json.dumps(event.payload))))
        finished = [number for number, each in self._runner.triggers.items() if each["task"].done()]
        for number in finished:
            ended = self._runner.triggers.pop(number)
            task = ended["task"]
            failure = None if task.cancelled() else task.exception()
            if failure is not None:
                log.error("Trigger %d has failed", number, exc_info=failure)
            if not ended["events"] and not task.cancelled():
                self._fired.add(number)
                self._control.send(Fired(number, failure=repr(failure)))
        return finished


def trigger_process(control: Connection, requests: Connection, environment: Mapping[str, str], log_file: Path) -> None:
    """Run a triggerer; the target of a process."""
    prepare(environment, log_file)
    runner: Any = task_runner
    runner.SUPERVISOR_COMMS = Supervisor(requests)

    async def main() -> None:
        await Process(control).run()

    asyncio.run(main())  # which cancels the background tasks of triggers
    os._exit(0)
