"""Whether tasks are still deferred: the questions of many triggers, in few requests.

A triggerer's supervisor answers one request in each round of its loop, some 30 to 85 ms. When a run with 500 deferred
tasks is marked failed, 500 requests would delay the last stop by half a minute.

Invariants:

- A question is answered by a request that was sent after it was asked.
- Questions about one run that are asked while a request is under way share the next one.
- A request that fails fails the questions in it, and no others.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from typing import Any

from airflow_jobflow.airflow_compat.states import are_deferred

MAX_TASKS = 100
"""Tasks in one request. Their names travel in a URL, of which httpx accepts 64 KB."""

_MAPPED = re.compile(r"_\d+$")
"""What an answer appends to the id of a mapped task. So ``a_1`` may be a task, or an instance of ``a``."""

_Run = tuple[str, str]


class TaskStates:
    """Asks, for the triggers of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[_Run, list[tuple[Any, asyncio.Future[bool]]]] = {}
        self._senders: dict[_Run, asyncio.Task[None]] = {}

    async def is_deferred(self, task_instance: Any) -> bool:
        """Return whether a task instance is still deferred.

        :param task_instance: ``BaseTrigger.task_instance``; None under ``airflow dags test``, where nothing is.
        :raises Exception: Airflow could not answer, see ``airflow_compat.is_deferred``.
        """
        if task_instance is None:
            return False
        run = task_instance.dag_id, task_instance.run_id
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append((task_instance, answer))
        if run not in self._senders:
            # A context of its own: otherwise its log lines would land in the log of the task that came first.
            sender = asyncio.get_running_loop().create_task(self._send(run), context=contextvars.Context())
            self._senders[run] = sender
        return await answer

    async def _send(self, run: _Run) -> None:
        try:
            while questions := self._take(run):
                try:
                    answers = await are_deferred([task_instance for task_instance, _ in questions])
                except Exception as error:  # noqa: BLE001 -- whatever it is, those who asked get it
                    for _, waiting in questions:
                        if not waiting.done():
                            waiting.set_exception(error)
                else:
                    for (_, waiting), is_deferred in zip(questions, answers, strict=True):
                        if not waiting.done():
                            waiting.set_result(is_deferred)
        finally:
            del self._senders[run]

    def _take(self, run: _Run) -> list[tuple[Any, asyncio.Future[bool]]]:
        """Remove the questions of the next request, and return them."""
        taken, left = [], []
        ids: set[str] = set()
        stems: set[str] = set()
        for question in self._waiting.pop(run, ()):
            task_instance, answer = question
            task_id = task_instance.task_id
            stem = _MAPPED.sub("", task_id)
            is_ambiguous = task_id in stems or (stem != task_id and stem in ids)
            if answer.done():
                continue
            if is_ambiguous or (len(ids) == MAX_TASKS and task_id not in ids):
                left.append(question)
                continue
            ids.add(task_id)
            if stem != task_id:
                stems.add(stem)
            taken.append(question)
        if left:
            self._waiting[run] = left
        return taken


_of_loop: dict[asyncio.AbstractEventLoop, TaskStates] = {}


def task_states() -> TaskStates:
    """Return this event loop's."""
    for closed in [each for each in _of_loop if each.is_closed()]:
        del _of_loop[closed]
    return _of_loop.setdefault(asyncio.get_running_loop(), TaskStates())
