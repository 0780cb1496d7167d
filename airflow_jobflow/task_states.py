"""Query whether tasks are still deferred: the queries of many triggers share few requests.

A triggerer's supervisor answers one request in each iteration of its loop, which takes 30 to 85 ms. When a run with 500
deferred tasks is marked failed, 500 requests would delay the last stop by half a minute.

Invariants:

- A query is answered by a request that was sent after the query was made.
- Queries about one run that are made during a request share the next request.
- A request that fails fails the queries in it, and no others.
- A request is never cancelled, whatever becomes of its queries: in Airflow 3.2.1, a cancelled request leaves its answer
  to the next reader of the same connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

from airflow_jobflow.airflow_compat.states import ON_KILL_LIMIT, current_states
from airflow_jobflow.jobs.orphans import distinct_in_answers

log = logging.getLogger(__name__)

MAX_TASKS = 100
"""The most tasks in a request. Their names travel in a URL, of which httpx accepts 64 KB."""

RETRY_PAUSE = 0.5
"""Seconds between a request that failed and the next one."""

_Run = tuple[str, str]


class TaskStates:
    """Queries the states of tasks for the triggers of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[_Run, list[tuple[Any, asyncio.Future[bool]]]] = {}
        self._senders: dict[_Run, asyncio.Task[None]] = {}

    async def is_deferred(self, task_instance: Any) -> bool:
        """Return whether a task instance is still deferred.

        :param task_instance: ``BaseTrigger.task_instance``; None under ``airflow dags test``, where nothing is.
        :raises Exception: Airflow could not answer, see ``airflow_compat.states.current_states``.
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

    async def still_deferred(self, task_instance: Any) -> bool:
        """Return whether a killed trigger's task is still deferred; repeat the query until Airflow answers.

        :param task_instance: as for ``is_deferred``.
        :raises TimeoutError: Airflow did not answer for as long as it waits for ``on_kill``; ``__cause__`` is the last
            error, if any.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ON_KILL_LIMIT
        failure: Exception | None = None
        while loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline) as timer:
                    return await self.is_deferred(task_instance)
            except Exception as error:  # noqa: BLE001 -- whatever it is, Airflow has not answered
                if timer.expired():
                    break
                if failure is None:
                    log.warning("Could not query whether the task is still deferred; retrying: %r", error)
                failure = error
            await asyncio.sleep(RETRY_PAUSE)
        message = f"Airflow did not answer within {ON_KILL_LIMIT:g} s whether the task is still deferred"
        raise TimeoutError(message) from failure

    async def _send(self, run: _Run) -> None:
        try:
            while queries := self._pop_request(run):
                try:
                    states = await current_states([task_instance for task_instance, _ in queries])
                except Exception as error:  # noqa: BLE001 -- whatever it is, the callers get it
                    for _, waiting in queries:
                        if not waiting.done():
                            waiting.set_exception(error)
                else:
                    for (_, waiting), state in zip(queries, states, strict=True):
                        if not waiting.done():
                            waiting.set_result(state == "deferred")
        finally:
            del self._senders[run]

    def _pop_request(self, run: _Run) -> list[tuple[Any, asyncio.Future[bool]]]:
        """Remove and return the queries of the next request; none if there are no more."""
        queries = [(task_instance, answer) for task_instance, answer in self._waiting.pop(run, ()) if not answer.done()]
        if not queries:
            return []
        task_ids = list(dict.fromkeys(task_instance.task_id for task_instance, _ in queries))
        distinct = distinct_in_answers(task_ids)[0]
        asked = set([task_id for task_id in task_ids if task_id in distinct][:MAX_TASKS])
        if others := [query for query in queries if query[0].task_id not in asked]:
            self._waiting[run] = others
        return [query for query in queries if query[0].task_id in asked]


_of_loop: dict[asyncio.AbstractEventLoop, TaskStates] = {}


def task_states() -> TaskStates:
    """Return the ``TaskStates`` of the running event loop."""
    for closed in [each for each in _of_loop if each.is_closed()]:
        del _of_loop[closed]
    return _of_loop.setdefault(asyncio.get_running_loop(), TaskStates())
