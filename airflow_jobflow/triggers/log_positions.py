"""How far the logs of a task's jobs were copied, saved for the trigger that continues after a restart of the triggerer.

An XCom of the task is the only place that a trigger can write to. Airflow deletes it when the task is retried, which is
intended: the next try has a log of its own.

Invariants:

- A position is saved only after the lines before it were written. So a restart repeats lines, and leaves out none.
- At most ``MAX_SAVES_PER_SECOND`` are saved in a process, because each is a request that the supervisor answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

from airflow_jobflow.airflow_compat.xcoms import get_xcom, set_xcom
from airflow_jobflow.jobs.model import LogStream
from airflow_jobflow.polling.log_stream import START, Position
from airflow_jobflow.ui.progress import Board

log = logging.getLogger(__name__)

KEY = "jobflow_log_position"
"""Key of the XCom."""

SAVE_INTERVAL = 15.0
"""Seconds between two saves of a task, and before the first."""

MAX_SAVES_PER_SECOND = 2.0
"""The most saves per second of all tasks of a process."""

MAX_STREAMS = 100
"""The most streams whose positions are saved. With more, a restart of the triggerer copies from the beginning."""


class LogPositions:
    """The positions of one task.

    :param task_instance: the task instance; None to save nothing.
    :param may_resume: whether an earlier trigger may have saved positions.
    """

    def __init__(self, task_instance: Any, *, may_resume: bool) -> None:
        self.lines = 0
        """How many lines were copied."""
        self._task_instance = task_instance
        self._may_resume = may_resume and task_instance is not None
        self._loading: asyncio.Task[None] | None = None
        self._by_stream: dict[LogStream, Position] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._may_save_at: float | None = None
        self._is_closed = False

    async def load(self, stream: LogStream) -> Position:
        """Return where to continue with a stream. The first call loads what was saved.

        :param stream: the stream.
        """
        if self._may_resume:
            self._loading = self._loading or asyncio.create_task(self._load())
            await asyncio.shield(self._loading)
        return self._by_stream.get(stream, START)

    async def _load(self) -> None:
        try:
            saved = await asyncio.to_thread(get_xcom, self._task_instance, KEY) or {}
            self.lines += saved.get("lines", 0)
            self._by_stream |= {LogStream(*stream): Position(*at) for stream, at in saved.get("streams", ())}
        except Exception as error:  # noqa: BLE001 -- whatever an XCom backend raises
            log.warning("Could not load how far the log was copied; copying it from the beginning: %s", error)

    def record(self, stream: LogStream, position: Position) -> None:
        """Record that all lines of a stream up to a position were written.

        :param stream: the stream.
        :param position: the position.
        """
        self._by_stream[stream] = position
        if self._task_instance is None or self._timer is not None or self._is_closed:
            return
        now = asyncio.get_running_loop().time()
        due = now + SAVE_INTERVAL if self._may_save_at is None else max(now, self._may_save_at)
        self._timer = asyncio.get_running_loop().call_at(due, _board().append, self)

    async def publish(self) -> bool:
        """Save the positions; return whether that took a turn among the tasks of the process."""
        self._timer = None
        self._may_save_at = asyncio.get_running_loop().time() + SAVE_INTERVAL
        if self._is_closed or len(self._by_stream) > MAX_STREAMS:
            return False
        streams = [[dataclasses.astuple(stream), dataclasses.astuple(at)] for stream, at in self._by_stream.items()]
        try:
            await asyncio.to_thread(set_xcom, self._task_instance, KEY, {"lines": self.lines, "streams": streams})
        except Exception as error:  # noqa: BLE001 -- likewise; it is saved again after the next page
            log.warning("Could not save how far the log of task %s was copied: %s", self._task_instance.task_id, error)
        return True

    def close(self) -> None:
        """Save nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()


_boards: dict[asyncio.AbstractEventLoop, Board] = {}


def _board() -> Board:
    """Return this event loop's queue of tasks whose positions are saved."""
    loop = asyncio.get_running_loop()
    for closed in [each for each in _boards if each.is_closed()]:
        del _boards[closed]
    return _boards.setdefault(loop, Board(MAX_SAVES_PER_SECOND))
