"""Flow 3, a Fargate task for each item: every item has a result, regardless of its task's end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobflow.local import Faults, LocalAws
from airflow_jobflow.local.samples import BUCKET, INPUTS, ITEMS, register_task

FORMS = ["fargate_map", "fargate_map_expand"]

BROKEN = {
    "item": "broken-item",
    "result": "Fail",
    "reason": "Essential container in task exited",
    "exit_code": 1,
}


def success(item: str) -> dict[str, str]:
    """Return the result of a successful item."""
    return {"item": item, "result": "Success"}


@pytest.fixture
def faults(samples: LocalAws) -> Iterator[Callable[..., None]]:
    """Return a function that sets faults until the end of the test."""
    yield lambda **which: samples.set_faults(Faults(**which))
    samples.set_faults(Faults())


@pytest.fixture
def started(samples: LocalAws) -> Callable[[], int]:
    """Return a function that counts the tasks started during the test."""
    before = len(samples.started("ecs"))
    return lambda: len(samples.started("ecs")) - before


@pytest.mark.parametrize("form", FORMS)
def test_every_item_has_its_result(
    test_dag: Callable[..., Any],
    samples: LocalAws,
    faults: Callable[..., None],
    started: Callable[[], int],
    form: str,
) -> None:
    """One item fails, and one is interrupted on Spot, which is not a failure; neither stops the others."""
    faults(interrupt_spot=1, interrupt_spot_with="item-02")
    run = test_dag(form, parameter=["item-01", "broken-item", "item-02", "item-45"])
    assert run.state == "success"
    assert run.returned("results") == [success("item-01"), BROKEN, success("item-02"), success("item-45")]
    assert started() == 5
    output = samples.client("s3").get_object(Bucket=BUCKET, Key="fargate_map/output/item-02.json")["Body"]
    assert json.load(output)["input"] == ITEMS["item-02"]
    assert {each["capacityProviderName"] for each in samples.started("ecs")} == {"FARGATE_SPOT"}


@pytest.mark.parametrize("form", FORMS)
def test_a_start_with_failures_in_the_response_is_repeated(
    test_dag: Callable[..., Any], faults: Callable[..., None], started: Callable[[], int], form: str
) -> None:
    """RunTask responds with status 200, and starts nothing."""
    faults(run_task_failures=1)
    run = test_dag(form, parameter=["item-01"])
    assert run.returned("results") == [success("item-01")]
    assert started() == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_task_that_never_started_fails_its_item(test_dag: Callable[..., Any], samples: LocalAws, form: str) -> None:
    """It has no exit code."""
    container = {"name": "main", "image": "missing/image"}
    definition = register_task(samples.client("ecs"), "never-starts", container)
    run = test_dag(form, parameter=["item-01"], task_definition=definition)
    assert run.state == "success"
    [result] = run.returned("results")
    assert (result["result"], result["exit_code"]) == ("Fail", None)
    assert "CannotPullContainer" in result["reason"]


@pytest.fixture
def sleeps(samples: LocalAws) -> str:
    """A task definition whose tasks run for minutes."""
    return register_task(samples.client("ecs"), "sleeps", {"name": "main", "command": ["sleep", "600"]})


def running(samples: LocalAws) -> list[str]:
    """Return the running tasks."""
    return list(samples.client("ecs").list_tasks(cluster="jobflow", desiredStatus="RUNNING")["taskArns"])


def test_a_task_that_takes_too_long_fails_its_item_and_is_stopped(
    test_dag: Callable[..., Any], dags: Any, samples: LocalAws, started: Callable[[], int], sleeps: str
) -> None:
    """It is neither polled forever nor started again."""
    dags["fargate_map_expand"].get_task("process_item").partial_kwargs["job_timeout"] = 1
    run = test_dag("fargate_map_expand", parameter=["item-01"], task_definition=sleeps)
    [result] = run.returned("results")
    assert result["result"] == "Fail"
    assert started() == 1
    assert running(samples) == []


def test_a_map_that_takes_too_long_is_stopped(
    test_dag: Callable[..., Any], dags: Any, samples: LocalAws, started: Callable[[], int], sleeps: str
) -> None:
    """All items have one deadline, and the map is not started again."""
    dags["fargate_map"].get_task("process_items").job_timeout = 2
    run = test_dag("fargate_map", parameter=["item-01", "item-02"], task_definition=sleeps)
    assert (run.state, run.states["process_items"]) == ("failed", "failed")
    assert run.tries["process_items"] == 1
    assert started() == 2
    assert running(samples) == []


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_list_is_a_success(test_dag: Callable[..., Any], form: str) -> None:
    """The list of items may be empty."""
    run = test_dag(form, parameter=[])
    assert (run.state, run.returned("results")) == ("success", [])


@pytest.mark.parametrize("form", FORMS)
def test_each_default_item_has_an_input(dags: Any, samples: LocalAws, form: str) -> None:
    """There are more items than slots, so some wait for a free one."""
    items = dags[form].params["parameter"]
    listed = samples.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=INPUTS)["Contents"]
    assert {f"{INPUTS}{item}.json" for item in items} <= {each["Key"] for each in listed}
    assert len(items) == 45


def test_forty_run_at_a_time(dags: Any) -> None:
    """``airflow dags test`` runs single tasks one after the other, so their parameters are checked."""
    assert dags["fargate_map"].get_task("process_items").max_concurrency == 40
    assert dags["fargate_map_expand"].get_task("process_item").partial_kwargs["max_active_tis_per_dagrun"] == 40
