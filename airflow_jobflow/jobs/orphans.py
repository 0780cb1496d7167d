"""Which jobs are orphans: jobs that still run in AWS although the task that waited for them has ended. Pure.

Invariants:

- A job is an orphan only if its task has ended in Airflow, in a state of `FINISHED`. With any other state, also one
  that only a newer Airflow has, the job is left alone.
- Jobs are listed before states are read. A task that has ended does not continue with a job that was listed before:
  after a clear it starts a new one.
- Only what a job's own deployment has written into it counts, and only what a copy of the job would not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, product
from typing import Final

from airflow_jobflow.jobs.owner import Owner, job_group

FINISHED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The states in which a task has ended and is not run again unless somebody clears it."""

NO_STATE: Final = "none"
"""The state of a task instance that is not scheduled yet, which Airflow calls None."""

UNKNOWN: Final = "unknown"
"""Instead of a state: Airflow has no such task instance, for example because its run was deleted."""

MIN_AGE: Final = 600.0
"""Seconds for which a new job is left alone: a task that has just ended may still stop it itself."""

RUNS_PER_REQUEST: Final = 50
"""The most runs, and the most tasks, in one request to Airflow, so that its URL does not become too long."""

TaskInstance = tuple[str, str, str, int]
"""DAG, task, run and map index."""

States = Callable[[str, Sequence[str], Sequence[str]], Mapping[str, Mapping[str, str | None]]]
"""Returns the states of tasks, given DAG id, task ids and run ids: for each known run a mapping from ``<task_id>``, or
``<task_id>_<map_index>`` for a mapped task, to the state."""


class Finding(StrEnum):
    """The result of the check of a job, which decides what is done."""

    NOT_MARKED = "not_marked"
    OTHER_DEPLOYMENT = "other_deployment"
    HASHED_OWNER = "hashed_owner"
    COPY = "copy"
    TOO_YOUNG = "too_young"
    TASK_UNFINISHED = "task_unfinished"
    TASK_UNKNOWN = "task_unknown"
    TASK_FINISHED = "task_finished"
    RUN_DELETED = "run_deleted"


REASONS: Final[Mapping[Finding, str]] = {
    Finding.NOT_MARKED: "it is not marked as a job that may be stopped",
    Finding.OTHER_DEPLOYMENT: "it belongs to another deployment of Airflow",
    Finding.HASHED_OWNER: "its task cannot be identified: AWS does not allow its DAG, task or run id in a tag",
    Finding.COPY: "it is a copy of a job: it has the tags or arguments of one, but not its name or startedBy",
    Finding.TOO_YOUNG: "it was created less than 10 minutes ago",
    Finding.TASK_UNFINISHED: "its task has not ended",
    Finding.TASK_UNKNOWN: "Airflow does not know its task instance",
    Finding.TASK_FINISHED: "its task has ended",
    Finding.RUN_DELETED: "Airflow does not know its task instance any more",
}

ORPHANS: Final = frozenset({Finding.TASK_FINISHED, Finding.RUN_DELETED})
"""The findings for which a job is stopped."""

NOTEWORTHY: Final = ORPHANS | {Finding.HASHED_OWNER, Finding.COPY, Finding.TASK_UNKNOWN}
"""The findings that are reported for each job. For others only the number is reported: they may be thousands."""


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job that has not ended, as it was listed.

    :param service: ``batch``, ``ecs`` or ``glue_run``.
    :param location: the queue, the cluster or the Glue job that was listed.
    :param job_id: the service's id.
    :param status: as the service calls it.
    :param created_at: in seconds since the epoch; None if the service does not say.
    :param owner: from its tags or its argument; None if they name none.
    :param group: from its name, its ``startedBy`` or its argument; None if they name none.
    """

    service: str
    location: str
    job_id: str
    status: str
    created_at: float | None
    owner: Owner | None
    group: str | None


def finding_without_state(job: ListedJob, deployment: str, now: float) -> Finding | None:
    """Return why a job is left alone regardless of the state of its task; None if the state decides.

    :param job: the job.
    :param deployment: ``[jobflow] deployment_id``; empty for none.
    :param now: the time in seconds since the epoch.
    """
    owner = job.owner
    if owner is None or not owner.reap:
        return Finding.NOT_MARKED
    if not owner.is_of(deployment):
        return Finding.OTHER_DEPLOYMENT
    if owner.hashed:
        return Finding.HASHED_OWNER
    if job.group != job_group(*owner.task_instance, deployment):  # the owner may have only a hash of its deployment
        return Finding.COPY
    if job.created_at is None or now - job.created_at < MIN_AGE:
        return Finding.TOO_YOUNG
    return None


def finding_by_state(state: str, *, reap_deleted_runs: bool) -> Finding:
    """Return the finding for a job about which the state of its task decides.

    :param state: as Airflow calls it, `NO_STATE` or `UNKNOWN`.
    :param reap_deleted_runs: whether a job is an orphan if Airflow does not know its task instance.
    """
    if state == UNKNOWN:
        return Finding.RUN_DELETED if reap_deleted_runs else Finding.TASK_UNKNOWN
    return Finding.TASK_FINISHED if state in FINISHED else Finding.TASK_UNFINISHED


@dataclass(frozen=True, slots=True)
class StateRequest:
    """One request to Airflow.

    :param dag_id: the DAG.
    :param task_ids: tasks whose names are distinct in Airflow's response.
    :param run_ids: at most `RUNS_PER_REQUEST`.
    """

    dag_id: str
    task_ids: tuple[str, ...]
    run_ids: tuple[str, ...]


def state_requests(owners: Iterable[Owner]) -> list[StateRequest]:
    """Return the requests for the states of these owners: one for each DAG, unless it has many runs or tasks.

    :param owners: the owners of the jobs.
    """
    requests = []
    pairs = sorted({(owner.dag_id, owner.run_id, owner.task_id) for owner in owners})
    for dag_id, of_dag in groupby(pairs, key=lambda pair: pair[0]):
        tasks_of: dict[str, set[str]] = {}
        for _, run_id, task_id in of_dag:
            tasks_of.setdefault(run_id, set()).add(task_id)
        for distinct in distinct_in_answers(sorted(set().union(*tasks_of.values()))):
            concerned = [run_id for run_id, tasks in tasks_of.items() if tasks & distinct]
            for run_ids in _chunks(concerned):
                task_ids = sorted(distinct & set().union(*(tasks_of[run_id] for run_id in run_ids)))
                requests += [StateRequest(dag_id, chunk, run_ids) for chunk in _chunks(task_ids)]
    return requests


def read_states(owners: Collection[Owner], states: States) -> dict[TaskInstance, str]:
    """Return the state of each owner's task instance: as Airflow calls it, `NO_STATE` or `UNKNOWN`.

    :param owners: the owners of the jobs.
    :param states: requests states from Airflow.
    """
    found = {owner.task_instance: UNKNOWN for owner in owners}
    indexes: dict[tuple[str, str, str], list[int]] = {}
    for dag_id, task_id, run_id, map_index in found:
        indexes.setdefault((dag_id, task_id, run_id), []).append(map_index)
    for request in state_requests(owners):
        response = states(request.dag_id, request.task_ids, request.run_ids)
        for task_id, run_id in product(request.task_ids, request.run_ids):
            of_run = response.get(run_id, {})
            for map_index in indexes.get((request.dag_id, task_id, run_id), ()):
                key = task_id if map_index < 0 else f"{task_id}_{map_index}"
                if key in of_run:
                    state = NO_STATE if of_run[key] is None else str(of_run[key])
                    found[request.dag_id, task_id, run_id, map_index] = state
    return found


def distinct_in_answers(task_ids: Iterable[str]) -> list[set[str]]:
    """Distribute tasks to sets, none of which has both ``x`` and ``x_<number>``.

    In Airflow's answers, index 3 of a mapped task ``load`` has the same name as a task ``load_3``.

    :param task_ids: the tasks. The first set has the first of them.
    """
    sets: list[tuple[set[str], set[str]]] = []
    for task_id in task_ids:
        numbered = re.fullmatch(r"(.+)_[0-9]+", task_id, re.DOTALL)
        unnumbered = numbered[1] if numbered else ""
        for tasks, without_number in sets:
            if unnumbered not in tasks and task_id not in without_number:
                break
        else:
            tasks, without_number = set(), set()
            sets.append((tasks, without_number))
        tasks.add(task_id)
        without_number.add(unnumbered)
    return [tasks for tasks, _ in sets]


def _chunks(values: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(values), RUNS_PER_REQUEST):
        yield tuple(values[start : start + RUNS_PER_REQUEST])
