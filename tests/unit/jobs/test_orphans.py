"""Orphans: what is decided about a job from its own state and that of its task, and the requests to Airflow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import TaskInstanceState, TerminalTIState
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs import orphans
from airflow_jobflow.jobs.orphans import (
    FINISHED,
    NO_STATE,
    ORPHANS,
    REASONS,
    RUNS_PER_REQUEST,
    UNKNOWN,
    Finding,
    ListedJob,
    finding_by_state,
    finding_without_state,
    read_states,
    state_requests,
)
from airflow_jobflow.jobs.owner import Owner, tag_value

NOW = 1_800_000_000.0
OWNER = Owner("etl", "load", "manual__1", deployment="production")
JOB = ListedJob("batch", "queue", "id", "RUNNING", NOW - 600, OWNER, OWNER.group)


def owned(**changes: Any) -> ListedJob:
    """Return a job with another owner, in that owner's group."""
    owner = replace(OWNER, **changes)
    return replace(JOB, owner=owner, group=owner.group)


@pytest.mark.parametrize(
    ("job", "deployment", "finding"),
    [
        (JOB, "production", None),
        (replace(JOB, owner=None), "production", Finding.NOT_MARKED),
        (replace(JOB, owner=None, group=None), "production", Finding.NOT_MARKED),
        (owned(reap=False), "production", Finding.NOT_MARKED),
        (JOB, "staging", Finding.OTHER_DEPLOYMENT),
        (JOB, "", Finding.OTHER_DEPLOYMENT),
        (JOB, "Production", Finding.OTHER_DEPLOYMENT),
        (owned(deployment=""), "production", Finding.OTHER_DEPLOYMENT),
        (owned(deployment=""), "", None),
        (replace(owned(deployment="a~b"), owner=replace(OWNER, deployment=tag_value("a~b"))), "a~b", None),
        (replace(JOB, group=replace(OWNER, deployment="").group), "production", Finding.COPY),
        (owned(dag_id=tag_value("a~b")), "production", Finding.HASHED_OWNER),
        (owned(task_id=tag_value("a~b")), "production", Finding.HASHED_OWNER),
        (owned(run_id=tag_value("a~b")), "production", Finding.HASHED_OWNER),
        (replace(JOB, group=None), "production", Finding.COPY),
        (replace(JOB, group="0" * 10), "production", Finding.COPY),
        (replace(JOB, owner=replace(OWNER, map_index=1)), "production", Finding.COPY),
        (replace(JOB, owner=replace(OWNER, run_id="manual__2")), "production", Finding.COPY),
        (replace(JOB, created_at=None), "production", Finding.TOO_YOUNG),
        (replace(JOB, created_at=NOW - 599.9), "production", Finding.TOO_YOUNG),
        (replace(JOB, created_at=NOW + 60), "production", Finding.TOO_YOUNG),
        (replace(JOB, created_at=0.0), "production", None),
    ],
)
def test_jobs_that_are_left_alone_without_a_request(job: ListedJob, deployment: str, finding: Finding | None) -> None:
    """Airflow is not queried for these jobs."""
    assert finding_without_state(job, deployment, NOW) is finding


UNFINISHED = sorted({str(state.value) for state in TaskInstanceState} - FINISHED)


@pytest.mark.parametrize("state", [*UNFINISHED, NO_STATE, "", "a_state_of_airflow_4", "SUCCESS"])
def test_a_job_of_an_unfinished_task_is_left_alone(state: str) -> None:
    """The same holds for a state that no current Airflow has."""
    for reap_deleted_runs in (False, True):
        assert finding_by_state(state, reap_deleted_runs=reap_deleted_runs) is Finding.TASK_UNFINISHED


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_job_whose_task_has_ended_is_an_orphan(state: str) -> None:
    """This holds for every state that ends a task."""
    assert finding_by_state(state, reap_deleted_runs=False) is Finding.TASK_FINISHED


def test_final_states_are_those_of_airflow() -> None:
    """A new state of Airflow counts as unfinished until someone decides about it."""
    assert {state.value for state in TerminalTIState} == FINISHED
    assert set(UNFINISHED) == {
        "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
        "awaiting_input",
    }  # fmt: skip


def test_a_job_of_a_deleted_run_is_an_orphan_only_on_request() -> None:
    """A run that this Airflow does not know may belong to another Airflow."""
    assert finding_by_state(UNKNOWN, reap_deleted_runs=False) is Finding.TASK_UNKNOWN
    assert finding_by_state(UNKNOWN, reap_deleted_runs=True) is Finding.RUN_DELETED


def test_every_finding_has_a_reason() -> None:
    """People read it in the log."""
    assert set(REASONS) == set(Finding)
    assert {Finding.TASK_FINISHED, Finding.RUN_DELETED} == ORPHANS


class Airflow:
    """Responds like the endpoint ``task-instances/states``, and counts the requests.

    :param instances: states by DAG, task, run and map index.
    """

    def __init__(self, instances: Mapping[orphans.TaskInstance, str | None]) -> None:
        self.instances = instances
        self.asked: list[tuple[str, Sequence[str], Sequence[str]]] = []

    def __call__(
        self, dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | None]]:
        """Respond to one request."""
        self.asked.append((dag_id, task_ids, run_ids))
        answer: dict[str, dict[str, str | None]] = defaultdict(dict)
        for (dag, task, run, index), state in self.instances.items():
            if dag == dag_id and task in task_ids and run in run_ids:
                answer[run][task if index < 0 else f"{task}_{index}"] = state
        return answer


def test_airflow_is_queried_once_per_dag() -> None:
    """One request covers all tasks, runs and map indexes of a DAG, up to a limit."""
    owners = [
        Owner(f"dag{d}", f"task{t}", f"run{r}", m) for d in (1, 2) for t in (1, 2) for r in range(50) for m in (0, 1)
    ]
    airflow = Airflow({owner.task_instance: "failed" for owner in owners})
    assert set(read_states(owners, airflow).values()) == {"failed"}
    assert [asked[0] for asked in airflow.asked] == ["dag1", "dag2"]
    assert airflow.asked[0][1] == ("task1", "task2")
    assert len(airflow.asked[0][2]) == 50


@pytest.mark.parametrize(("runs", "requests"), [(0, 0), (1, 1), (50, 1), (51, 2), (120, 3)])
def test_a_request_names_at_most_fifty_runs(runs: int, requests: int) -> None:
    """The URL would become too long."""
    owners = [Owner("dag", f"task{index % 3}", f"run{index}") for index in range(runs)]
    made = state_requests(owners)
    assert len(made) == requests
    assert all(len(request.run_ids) <= RUNS_PER_REQUEST for request in made)


def test_a_request_names_at_most_fifty_tasks() -> None:
    """The URL of a DAG with hundreds of tasks would become too long."""
    made = state_requests([Owner("dag", f"task{index:03}", "run") for index in range(120)])
    assert [len(request.task_ids) for request in made] == [50, 50, 20]


def test_no_state_differs_from_an_unknown_task() -> None:
    """A task that is cleared and not yet scheduled has no state, but exists."""
    other = replace(OWNER, run_id="deleted")
    states = read_states([OWNER, other], Airflow({OWNER.task_instance: None}))
    assert states == {OWNER.task_instance: NO_STATE, other.task_instance: UNKNOWN}


def test_a_mapped_task_is_not_confused_with_one_of_a_similar_name() -> None:
    """Airflow uses the same key for index 3 of ``load`` and for the task ``load_3``."""
    mapped, plain = replace(OWNER, map_index=3), replace(OWNER, task_id="load_3")
    for states in ({"mapped": "failed", "plain": "running"}, {"mapped": "running", "plain": "failed"}):
        airflow = Airflow({mapped.task_instance: states["mapped"], plain.task_instance: states["plain"]})
        read = read_states([mapped, plain], airflow)
        assert read == {mapped.task_instance: states["mapped"], plain.task_instance: states["plain"]}
        assert len(airflow.asked) == 2


instances = st.tuples(
    st.sampled_from(["d", "e"]),
    st.sampled_from(["a", "a_1", "a_1_1", "a_11", "a_", "b", "1", "_1"]),
    st.sampled_from(["r", "s"]),
    st.sampled_from([-1, 0, 1, 11]),
)


@given(
    known=st.dictionaries(instances, st.sampled_from([*sorted(FINISHED), "running", None])),
    owners=st.sets(instances),
)
def test_every_owner_gets_the_state_of_its_own_task_instance(
    known: dict[orphans.TaskInstance, str | None], owners: set[orphans.TaskInstance]
) -> None:
    """This holds for all names of tasks. A task is either mapped or not."""
    known = {each: state for each, state in known.items() if (each[3] < 0) == (len(each[1]) % 2 == 0)}
    owners = {each for each in owners if (each[3] < 0) == (len(each[1]) % 2 == 0)}
    read = read_states([Owner(*each) for each in owners], Airflow(known))
    expected = {each: known.get(each, UNKNOWN) for each in owners}
    assert read == {each: NO_STATE if state is None else state for each, state in expected.items()}
