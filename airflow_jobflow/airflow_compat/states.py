"""The current states of tasks, asked for from a task process or from a trigger.

Invariants:

- A missing answer is never taken for a state: where Airflow cannot be reached, a function raises.
- Nothing here writes to Airflow's database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

log = logging.getLogger(__name__)

DELETED: Final = "deleted"
"""What ``task_state`` returns for a task instance that no longer exists; no state of Airflow has this name."""

CANCELLED_STATES: Final = frozenset(
    {"success", "failed", "skipped", "upstream_failed", "removed", "restarting", DELETED}
)
"""States of a task which show its own, still running process that a user cancelled it: nothing will wait for its job.

Not among them: ``None``, ``scheduled``, ``queued`` and ``running``, because a later try may already own the job, and
``up_for_retry``, where Airflow took the worker for dead: the next try then continues with the job.
"""

ENDED_STATES: Final = frozenset({"success", "failed", "skipped"})
"""States of a task in which no try runs or is about to run."""

ON_KILL_LIMIT: Final = 30.0
"""Seconds after which Airflow stops waiting for a trigger's ``on_kill`` (3.3: triggerer_job_runner.py,
``_ON_CANCEL_TIMEOUT``)."""

RETRY_PAUSE: Final = 0.5
"""Seconds between a request that failed and the next one."""


def task_state(ti: Any) -> str | None:
    """Return the current state of a task instance, asked for from the process that runs it. One request.

    Airflow finds task instances by DAG, run, task and map index: after a clear, the answer is the state of the next
    try. Relies on ``RuntimeTaskInstance.get_task_states`` (3.0 and newer; the keys of its answer: 3.2.1, 3.3.2).

    :param ti: ``context["ti"]``.
    :return: the state; None if the task instance has none yet; ``DELETED`` if it does not exist.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow could not answer, after the retries of its client.
    """
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    return _own_state(states, ti)


def task_states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
    """Return the current states of tasks of a DAG, asked for from the process of any task. One request.

    Relies on ``RuntimeTaskInstance.get_task_states`` and on the keys of its answer (3.2.1, 3.3.2): index 3 of a mapped
    task ``load`` has the key ``load_3``, as a task of that name has.

    :param dag_id: the DAG; it need not be the caller's.
    :param task_ids: the tasks. Their number is limited by the length of a URL.
    :param run_ids: the runs; likewise.
    :return: the states by run id and key. Runs without such a task instance are missing.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow could not answer, after the retries of its client.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=list(task_ids), run_ids=list(run_ids))


def is_cancelled(state: str | None) -> bool:
    """Return whether a state that ``task_state`` returned means that a user cancelled the task that asked.

    Airflow's states were read in 3.2.1 and 3.3.2; a test fails if the installed Airflow has another one.

    :param state: the state.
    """
    return state in CANCELLED_STATES


async def is_deferred(task_instance: Any) -> bool:
    """Return whether a trigger's task is still deferred, asked for from the trigger. One request.

    Relies on ``current_states`` (3.2.1, 3.3.2).

    :param task_instance: ``BaseTrigger.task_instance``; None under ``airflow dags test``, where nothing is deferred.
    :raises Exception: Airflow could not answer: ``AirflowRuntimeError`` if the API refused, an ``OSError`` or
        ``EOFError`` if the supervisor is gone.
    """
    if task_instance is None:
        return False
    [answer] = await are_deferred([task_instance])
    return answer


async def are_deferred(task_instances: Sequence[Any]) -> list[bool]:
    """Return which task instances of one run are still deferred, asked for from a trigger. One request.

    Relies on ``current_states`` (3.2.1, 3.3.2).

    :param task_instances: see ``current_states``.
    :return: whether it is deferred, for each task instance in order.
    :raises Exception: as ``is_deferred``.
    """
    return [state == "deferred" for state in await current_states(task_instances)]


async def current_states(task_instances: Sequence[Any]) -> list[str | None]:
    """Return the states of task instances of one run, asked for from a trigger. One request.

    For several task instances, the request covers all instances of their tasks, because it cannot name some of them.

    The request is sent on the event loop, not in a thread: the threads of ``sync_to_async`` are shared by all triggers.
    Relies on ``SUPERVISOR_COMMS.asend`` and on ``GetTaskStates`` being a message to the triggerer's supervisor (3.2.1,
    3.3.2).

    :param task_instances: at least one, all of the same DAG run.
    :return: the state of each in order, see ``task_state``.
    :raises Exception: as ``is_deferred``.
    """
    from airflow.sdk.execution_time.comms import GetTaskStates
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    first = task_instances[0]
    request = GetTaskStates(
        dag_id=first.dag_id,
        task_ids=sorted({each.task_id for each in task_instances}),
        run_ids=[first.run_id],
        map_index=first.map_index if len(task_instances) == 1 else None,
    )
    answer: Any = await SUPERVISOR_COMMS.asend(request)
    return [_own_state(answer.task_states, each) for each in task_instances]


async def still_deferred(
    task_instance: Any,
    *,
    ask: Callable[[Any], Awaitable[bool]] = is_deferred,
    patience: float = ON_KILL_LIMIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> bool:
    """Return whether a trigger's task is still deferred; repeat the request until Airflow answers.

    A request is never cancelled, only abandoned: in 3.2.1, a cancelled request leaves its answer to the next reader of
    the same connection. So the caller may be cancelled, and call this again.

    :param task_instance: see ``is_deferred``.
    :param ask: makes one request. Default: ``is_deferred``.
    :param patience: seconds after which no request is made. Default: as long as Airflow waits for ``on_kill``.
    :param clock: returns seconds, monotonic. For tests.
    :param sleep: waits for seconds. For tests.
    :raises TimeoutError: Airflow did not answer within ``patience``; ``__cause__`` is the last error, if any.
    """
    deadline = clock() + patience
    failure: Exception | None = None
    while True:
        request: asyncio.Future[bool] = asyncio.ensure_future(ask(task_instance))
        _open_requests.add(request)
        request.add_done_callback(_forget_request)
        done, _ = await asyncio.wait({request}, timeout=max(deadline - clock(), 0.0))
        if not done:
            break
        if not request.cancelled() and request.exception() is None:
            return request.result()
        error = None if request.cancelled() else request.exception()
        if isinstance(error, Exception):
            if failure is None:
                log.warning("Could not query whether the task is still deferred; retrying: %r", error)
            failure = error
        if clock() + RETRY_PAUSE >= deadline:
            break
        await sleep(RETRY_PAUSE)
    raise TimeoutError(f"Airflow did not answer within {patience:g} s whether the task is still deferred") from failure


_open_requests: set[asyncio.Future[bool]] = set()
"""Requests without an answer yet: an event loop holds its tasks only weakly."""


def _forget_request(request: asyncio.Future[bool]) -> None:
    _open_requests.discard(request)
    if not request.cancelled():
        request.exception()  # retrieve it, so that asyncio does not report it after the caller has gone


def _own_state(states: Any, ti: Any) -> str | None:
    """Return the state of one task instance from an answer to ``GetTaskStates``."""
    of_run = states.get(ti.run_id, {})
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = of_run.get(key, DELETED)
    return state
