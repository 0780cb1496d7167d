"""Variables that are added to a job's own: they never replace these, and never make a request too long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import batch_map, ecs, ecs_map
from airflow_jobflow.jobs.environment import (
    MAX_OVERRIDES_LENGTH,
    RESULT_URI,
    start_without_if_rejected,
    variables,
    with_context,
)
from airflow_jobflow.jobs.maps import Start
from tests.unit.jobs.scripted_calls import ScriptedClient

CONTEXT = {"AIRFLOW_CTX_DAG_ID": "etl", "AIRFLOW_CTX_DAG_RUN_ID": "r" * 250}


def test_the_users_own_values_win() -> None:
    """A variable of the same name is not replaced, whatever its value."""
    own = {"name": "main", "environment": [{"name": "AIRFLOW_CTX_DAG_ID", "value": "mine"}]}
    told, left_out = with_context(own, CONTEXT, 1000)
    assert variables(told) == {"AIRFLOW_CTX_DAG_ID": "mine", "AIRFLOW_CTX_DAG_RUN_ID": "r" * 250}
    assert left_out == []


@given(room=st.integers(0, 400), command=st.integers(0, 100))
def test_what_does_not_fit_is_left_out(room: int, command: int) -> None:
    """ECS rejects overrides of more than 8,192 characters: a job that ran before must still run."""
    own = {"name": "main", "command": ["x" * command]}
    told, left_out = with_context(own, CONTEXT, room)
    longer = len(json.dumps(told)) - len(json.dumps(own))
    assert longer <= room
    assert set(left_out) | variables(told).keys() == CONTEXT.keys()
    assert told != own or left_out == list(CONTEXT)


def test_a_container_without_overrides_stays_without_them_if_there_are_no_variables() -> None:
    """What the user did not set is not sent."""
    assert with_context({}, {}, 1000) == ({}, [])


def test_the_container_that_counts_gets_the_variables() -> None:
    """Other containers keep their overrides, and so does the task."""
    overrides = {"cpu": "512", "containerOverrides": [{"name": "log", "command": ["a"]}]}
    told, left_out = ecs.with_job_variables(overrides, "main", "s3://b/k", CONTEXT)
    assert left_out == []
    assert told["cpu"] == "512"
    assert told["containerOverrides"][0] == {"name": "log", "command": ["a"]}
    assert variables(told["containerOverrides"][1]) == {RESULT_URI: "s3://b/k", **CONTEXT}
    full = {"containerOverrides": [{"name": "main", "command": ["x" * (MAX_OVERRIDES_LENGTH - 300)]}]}
    told, left_out = ecs.with_job_variables(full, "main", "s3://b/k", CONTEXT)
    assert left_out == ["AIRFLOW_CTX_DAG_RUN_ID"]
    assert len(json.dumps(told)) <= MAX_OVERRIDES_LENGTH


class Starts(ScriptedClient):
    """Records what is started."""

    may_tag = False

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def submit_job(self, **request: Any) -> dict[str, Any]:
        """Submit a Batch job."""
        self.requests.append(request)
        return {"jobId": "a"}

    def run_task(self, **request: Any) -> dict[str, Any]:
        """Run a task."""
        self.requests.append(request)
        return {"tasks": [{"taskArn": "a"}]}


def test_each_item_of_a_map_writes_to_an_address_of_its_own() -> None:
    """The trigger adds what is the same for all items, so that ten thousand requests do not carry it."""
    told = {"result": "s3://b/g/t", "context": CONTEXT}
    batch, starts = batch_map.item({"jobName": "j"}, 7, {"A": "1"}), Starts()
    batch_map.start(starts, batch_map.job_group("q", "stem", {}) | told, batch, Start(7))
    task = ecs_map.item({"overrides": {}}, "main", 7, {"A": "1"})
    ecs_map.start(starts, ecs_map.job_group("c", "g", "t", {}) | told, task, Start(7))
    [own, of_task] = [
        variables(starts.requests[0]["containerOverrides"]),
        variables(starts.requests[1]["overrides"]["containerOverrides"][0]),
    ]
    expected = {"A": "1", "JOBFLOW_MAP_INDEX": "7", RESULT_URI: "s3://b/g/t/7", **CONTEXT}
    assert own == expected
    assert of_task == expected | {"JOBFLOW_MAP": "t"}


def test_a_map_of_an_older_version_starts_its_items_as_before() -> None:
    """Its stored job group has neither a result nor a context; the requests of its tokens must not change."""
    starts = Starts()
    ecs_map.start(starts, ecs_map.job_group("c", "g", "t", {}), ecs_map.item({}, "main", 0, {}), Start(0))
    [container] = starts.requests[0]["overrides"]["containerOverrides"]
    assert variables(container) == {"JOBFLOW_MAP_INDEX": "0", "JOBFLOW_MAP": "t"}


@pytest.mark.parametrize(
    ("message", "started"),
    [
        ("Container overrides or node overrides should not be set for Batch on EKS jobs.", [True, False]),
        ("JobDefinition not found", [True]),
    ],
)
def test_a_job_that_takes_no_container_overrides_is_started_without_context(message: str, started: list[bool]) -> None:
    """Only the job definition says so, and reading it would be a call for every job."""
    tried: list[bool] = []

    def start(_: Any, request: Any) -> str:
        tried.append("containerOverrides" in request)
        if tried[-1]:
            raise CallError(Fault.REJECTED, f"SubmitJob: ClientException: {message}", "ClientException")
        return "a"

    def run() -> str:
        return start_without_if_rejected(Starts(), start, {"containerOverrides": {}}, {})

    if len(started) == 1:
        with pytest.raises(CallError):
            run()
    else:
        assert run() == "a"
    assert tried == started
