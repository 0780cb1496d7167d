"""Which jobs are orphans: a table of what is known of a job and its task, and what Airflow is asked."""

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
    """The job of another owner, in the group of that owner."""
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
def test_a_job_is_left_alone_whatever_its_task_does(job: ListedJob, deployment: str, finding: Finding | None) -> None:
    """Airflow is not asked for it."""
    assert finding_without_state(job, deployment, NOW) is finding


UNFINISHED = sorted({str(state.value) for state in TaskInstanceState} - FINISHED)


@pytest.mark.parametrize("state", [*UNFINISHED, NO_STATE, "", "a_state_of_airflow_4", "SUCCESS"])
def test_a_job_whose_task_may_go_on_is_left_alone(state: str) -> None:
    """Also in a state that no Airflow of today has."""
    for reap_deleted_runs in (False, True):
        assert finding_by_state(state, reap_deleted_runs=reap_deleted_runs) is Finding.TASK_UNFINISHED


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_job_whose_task_has_ended_is_an_orphan(state: str) -> None:
    """In any state that is an end."""
    assert finding_by_state(state, reap_deleted_runs=False) is Finding.TASK_FINISHED


def test_the_states_that_are_an_end_are_airflows() -> None:
    """A state that Airflow adds is unfinished until somebody has thought about it."""
    assert {state.value for state in TerminalTIState} == FINISHED
    assert set(UNFINISHED) == {
        "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
        "awaiting_input",
    }  # fmt: skip


def test_a_job_of_a_deleted_run_is_an_orphan_only_on_request() -> None:
    """Airflow may also not know it because it is another one's."""
    assert finding_by_state(UNKNOWN, reap_deleted_runs=False) is Finding.TASK_UNKNOWN
    assert finding_by_state(UNKNOWN, reap_deleted_runs=True) is Finding.RUN_DELETED


def test_every_finding_has_a_reason() -> None:
    """It is what a person reads."""
    assert set(REASONS) == set(Finding)
    assert {Finding.TASK_FINISHED, Finding.RUN_DELETED} == ORPHANS


class Airflow:
    """Answers as the endpoint ``task-instances/states`` does, and counts what it is asked.

    :param instances: states by DAG, task, run and map index.
    """

    def __init__(self, instances: Mapping[orphans.TaskInstance, str | None]) -> None:
        self.instances = instances
        self.asked: list[tuple[str, Sequence[str], Sequence[str]]] = []

    def __call__(
        self, dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | None]]:
        """Answer one request."""
        self.asked.append((dag_id, task_ids, run_ids))
        answer: dict[str, dict[str, str | None]] = defaultdict(dict)
        for (dag, task, run, index), state in self.instances.items():
            if dag == dag_id and task in task_ids and run in run_ids:
                answer[run][task if index < 0 else f"{task}_{index}"] = state
        return answer


def test_airflow_is_asked_once_for_each_dag() -> None:
    """However many tasks, runs and map indexes there are, within reason."""
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
    """Likewise, for a DAG with hundreds of tasks."""
    made = state_requests([Owner("dag", f"task{index:03}", "run") for index in range(120)])
    assert [len(request.task_ids) for request in made] == [50, 50, 20]


def test_a_state_of_none_is_a_state() -> None:
    """A task that is cleared and not scheduled yet has it: it is not an unknown one."""
    other = replace(OWNER, run_id="deleted")
    states = read_states([OWNER, other], Airflow({OWNER.task_instance: None}))
    assert states == {OWNER.task_instance: NO_STATE, other.task_instance: UNKNOWN}


def test_a_mapped_task_is_not_confused_with_one_of_a_similar_name() -> None:
    """Airflow names index 3 of ``load`` as it names ``load_3``."""
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
    """Whatever the tasks are named. A task is mapped or not, never both."""
    known = {each: state for each, state in known.items() if (each[3] < 0) == (len(each[1]) % 2 == 0)}
    owners = {each for each in owners if (each[3] < 0) == (len(each[1]) % 2 == 0)}
    read = read_states([Owner(*each) for each in owners], Airflow(known))
    expected = {each: known.get(each, UNKNOWN) for each in owners}
    assert read == {each: NO_STATE if state is None else state for each, state in expected.items()}
