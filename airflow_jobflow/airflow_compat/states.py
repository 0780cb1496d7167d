"""The current states of tasks, queried from a task process or from a trigger.

Invariants:

- A missing answer never counts as a state: if Airflow cannot be reached, a function raises.
- Nothing here writes to Airflow's database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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


def task_state(ti: Any) -> str | None:
    """Return the current state of a task instance, queried from the process that runs it. One request.

    Airflow finds task instances by DAG, run, task and map index: after a clear, the answer is the state of the next
    try. Relies on ``RuntimeTaskInstance.get_task_states`` (3.0 and newer; the keys of its answer: 3.2.1, 3.3.2).

    :param ti: ``context["ti"]``.
    :return: the state; None if the task instance has none yet; ``DELETED`` if it does not exist.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow could not answer, after the retries of its client.
    """
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    return _own_state(states, ti)


def task_states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
    """Return the current states of tasks of a DAG, queried from the process of any task. One request.

    Relies on ``RuntimeTaskInstance.get_task_states`` and on the keys of its answer (3.2.1, 3.3.2): index 3 of a mapped
    task ``load`` has the key ``load_3``, as a task of that name has.

    :param dag_id: the DAG; it need not be the caller's.
    :param task_ids: the tasks. Their number is limited by the length of a URL.
    :param run_ids: the runs. Their number is limited in the same way.
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


async def current_states(task_instances: Sequence[Any]) -> list[str | None]:
    """Return the states of task instances of one run, queried from a trigger. One request.

    For several task instances, the request covers all instances of their tasks, because it cannot name some of them.

    The request is sent on the event loop, not in a thread: the threads of ``sync_to_async`` are shared by all triggers.
    Relies on ``SUPERVISOR_COMMS.asend`` and on ``GetTaskStates`` being a message to the triggerer's supervisor (3.2.1,
    3.3.2).

    :param task_instances: at least one, all of the same DAG run.
    :return: the state of each in order, see ``task_state``.
    :raises Exception: Airflow could not answer: ``AirflowRuntimeError`` if the API refused, an ``OSError`` or
        ``EOFError`` if the supervisor is gone.
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


def _own_state(states: Any, ti: Any) -> str | None:
    """Return the state of one task instance from an answer to ``GetTaskStates``."""
    of_run = states.get(ti.run_id, {})
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = of_run.get(key, DELETED)
    return state
