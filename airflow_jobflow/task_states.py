"""Query whether tasks are still deferred: the queries of many triggers share few requests.

A triggerer's supervisor answers one request in each iteration of its loop, which takes 30 to 85 ms. When a run with 500
deferred tasks is marked failed, 500 requests would delay the last stop by half a minute.

Invariants:

- A query is answered by a request that was sent after the query was made.
- Queries about one run that are made during a request share the next request.
- A request that fails fails the queries in it, and no others.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from typing import Any

from airflow_jobflow.airflow_compat.states import are_deferred

MAX_TASKS = 100
"""The most tasks in a request. Their names travel in a URL, of which httpx accepts 64 KB."""

_MAPPED = re.compile(r"_\d+$")
"""What an answer appends to the id of a mapped task. So ``a_1`` may be a task or an instance of ``a``."""

_Run = tuple[str, str]


class TaskStates:
    """Queries the states of tasks for the triggers of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[_Run, list[tuple[Any, asyncio.Future[bool]]]] = {}
        self._senders: dict[_Run, asyncio.Task[None]] = {}

    async def is_deferred(self, task_instance: Any) -> bool:
        """Return whether a task instance is still deferred.

        :param task_instance: ``BaseTrigger.task_instance``; None under ``airflow dags test``, where nothing is.
        :raises Exception: Airflow could not answer, see ``airflow_compat.states.is_deferred``.
        """
        if task_instance is None:
            return False
        run = task_instance.dag_id, task_instance.run_id
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append((task_instance, answer))
        if run not in self._senders:
            # Its own context, so that its log lines do not go to the log of the task that came first.
            sender = asyncio.get_running_loop().create_task(self._send(run), context=contextvars.Context())
            self._senders[run] = sender
        return await answer

    async def _send(self, run: _Run) -> None:
        try:
            while queries := self._pop_request(run):
                try:
                    answers = await are_deferred([task_instance for task_instance, _ in queries])
                except Exception as error:  # noqa: BLE001 -- whatever it is, the callers get it
                    for _, waiting in queries:
                        if not waiting.done():
                            waiting.set_exception(error)
                else:
                    for (_, waiting), is_deferred in zip(queries, answers, strict=True):
                        if not waiting.done():
                            waiting.set_result(is_deferred)
        finally:
            del self._senders[run]

    def _pop_request(self, run: _Run) -> list[tuple[Any, asyncio.Future[bool]]]:
        """Remove and return the queries of the next request; none if there are no more.

        A request does not cover both a task ``a`` and a task ``a_1``, which may share a name in the answer.
        """
        popped, left = [], []
        ids: set[str] = set()
        unmapped_ids: set[str] = set()
        for query in self._waiting.pop(run, ()):
            task_instance, answer = query
            task_id = task_instance.task_id
            unmapped_id = _MAPPED.sub("", task_id)
            is_ambiguous = task_id in unmapped_ids or (unmapped_id != task_id and unmapped_id in ids)
            if answer.done():
                continue
            if is_ambiguous or (len(ids) == MAX_TASKS and task_id not in ids):
                left.append(query)
                continue
            ids.add(task_id)
            if unmapped_id != task_id:
                unmapped_ids.add(unmapped_id)
            popped.append(query)
        if left:
            self._waiting[run] = left
        return popped


_of_loop: dict[asyncio.AbstractEventLoop, TaskStates] = {}


def task_states() -> TaskStates:
    """Return the ``TaskStates`` of the running event loop."""
    for closed in [each for each in _of_loop if each.is_closed()]:
        del _of_loop[closed]
    return _of_loop.setdefault(asyncio.get_running_loop(), TaskStates())
