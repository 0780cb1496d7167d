"""The arguments of an instance of a mapped task, if it starts in the triggerer."""

from __future__ import annotations

import threading
import time
from typing import Any

from airflow_jobflow.airflow_compat.serialized_tasks import UnsupportedMapping, mapped_over


class NeedsWorker(Exception):
    """The task can only be started on a worker; says why."""


def mapped_arguments(task: Any, ti: Any, started_at: float) -> dict[str, Any]:
    """Return the parameter that an instance of a mapped task is mapped over, with its value; empty if it is not mapped.

    :param task: the serialized task.
    :param ti: the task instance.
    :param started_at: when the scheduler started it, in seconds since the epoch.
    :raises NeedsWorker: only a worker can resolve the mapping.
    """
    try:
        over = mapped_over(task)
    except UnsupportedMapping as error:
        raise NeedsWorker(str(error)) from error
    if over is None:
        return {}
    if over.items is not None:
        return {over.parameter: over.items[ti.map_index]}
    if not over.is_mapped:
        return {over.parameter: _returned(ti, over.task_id, over.key, started_at)[ti.map_index]}
    # Airflow leaves out an instance that returned nothing, so that those after it get lower indexes. Only if all
    # instances have returned something is the index the same.
    counts = [
        ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=[each]) for each in (over.task_id, task.task_id)
    ]
    item = ti.xcom_pull(task_ids=over.task_id, key=over.key, map_indexes=ti.map_index)
    if counts[0] != counts[1] or item is None:
        raise NeedsWorker(f"not all instances of task {over.task_id} have returned something")
    return {over.parameter: item}


_pulled: dict[tuple[str, str, str, str], tuple[float, list[Any]]] = {}
"""The lists that were pulled last, each with the time of its pull, by DAG, run, task and key."""

_pulling = threading.Lock()
"""Held during a pull: other instances then find the list instead of pulling it again."""

RETENTION = 4
"""The most lists to keep. Few suffice, because the instances of one task start one after the other."""


def _returned(ti: Any, task_id: str, key: str, started_at: float) -> list[Any]:
    """Return the list that a task returned, pulled once for many instances that are mapped over it.

    A thousand pulls of a thousand items would keep the triggerer busy for minutes. They could even deadlock it: the
    supervisor waits until its answers are read, and the process that reads them waits until its log lines are read.

    A list serves the instances that were started before it was pulled: it is no older than what they would pull.

    :param ti: a task instance that is mapped over the list.
    :param task_id: the task that returned the list.
    :param key: the key of its XCom.
    :param started_at: when ``ti`` was started, in seconds since the epoch.
    :raises NeedsWorker: the task returned no list.
    """
    of = ti.dag_id, ti.run_id, task_id, key
    with _pulling:
        if of in _pulled and _pulled[of][0] >= started_at:
            return _pulled[of][1]
        pulled_at = time.time()
        returned = ti.xcom_pull(task_ids=task_id, key=key, map_indexes=-1)
        if not isinstance(returned, list):
            raise NeedsWorker(f"task {task_id} returned no list")
        _pulled.pop(of, None)
        _pulled[of] = pulled_at, returned
        while len(_pulled) > RETENTION:
            del _pulled[next(iter(_pulled))]
        return returned
