"""Flow 3, a Fargate task for each item: every item has a result, whatever becomes of its task."""

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
    """The result of an item that went well."""
    return {"item": item, "result": "Success"}


@pytest.fixture
def faults(samples: LocalAws) -> Iterator[Callable[..., None]]:
    """Switch faults on, until the test has ended."""
    yield lambda **which: samples.set_faults(Faults(**which))
    samples.set_faults(Faults())


@pytest.fixture
def started(samples: LocalAws) -> Callable[[], int]:
    """How many tasks were started since."""
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
    """One fails, and one is interrupted on Spot, which is no fault of its own; neither stops the others."""
    faults(interrupt_spot=1, interrupt_spot_with="item-02")
    run = test_dag(form, parameter=["item-01", "broken-item", "item-02", "item-45"])
    assert run.state == "success"
    assert run.returned("results") == [success("item-01"), BROKEN, success("item-02"), success("item-45")]
    assert started() == 5
    output = samples.client("s3").get_object(Bucket=BUCKET, Key="fargate_map/output/item-02.json")["Body"]
    assert json.load(output)["input"] == ITEMS["item-02"]
    assert {each["capacityProviderName"] for each in samples.started("ecs")} == {"FARGATE_SPOT"}


@pytest.mark.parametrize("form", FORMS)
def test_a_start_that_aws_answers_with_failures_is_made_again(
    test_dag: Callable[..., Any], faults: Callable[..., None], started: Callable[[], int], form: str
) -> None:
    """RunTask says 200 and starts nothing."""
    faults(run_task_failures=1)
    run = test_dag(form, parameter=["item-01"])
    assert run.returned("results") == [success("item-01")]
    assert started() == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_task_that_never_started_fails_its_item(test_dag: Callable[..., Any], samples: LocalAws, form: str) -> None:
    """It has no exit code to go by."""
    container = {"name": "main", "image": "missing/image"}
    definition = register_task(samples.client("ecs"), "never-starts", container)
    run = test_dag(form, parameter=["item-01"], task_definition=definition)
    assert run.state == "success"
    [result] = run.returned("results")
    assert (result["result"], result["exit_code"]) == ("Fail", None)
    assert "CannotPullContainer" in result["reason"]


@pytest.fixture
def sleeps(samples: LocalAws) -> str:
    """A task definition whose tasks would run for minutes."""
    return register_task(samples.client("ecs"), "sleeps", {"name": "main", "command": ["sleep", "600"]})


def running(samples: LocalAws) -> list[str]:
    """Tasks that go on."""
    return list(samples.client("ecs").list_tasks(cluster="jobflow", desiredStatus="RUNNING")["taskArns"])


def test_a_task_that_takes_too_long_fails_its_item_and_is_stopped(
    test_dag: Callable[..., Any], dags: Any, samples: LocalAws, started: Callable[[], int], sleeps: str
) -> None:
    """It is not polled for ever, nor started again."""
    dags["fargate_map_expand"].get_task("process_item").partial_kwargs["job_timeout"] = 1
    run = test_dag("fargate_map_expand", parameter=["item-01"], task_definition=sleeps)
    [result] = run.returned("results")
    assert result["result"] == "Fail"
    assert started() == 1
    assert running(samples) == []


def test_a_map_that_takes_too_long_is_stopped(
    test_dag: Callable[..., Any], dags: Any, samples: LocalAws, started: Callable[[], int], sleeps: str
) -> None:
    """Its deadline is one for all items, and it is not begun again."""
    dags["fargate_map"].get_task("process_items").job_timeout = 2
    run = test_dag("fargate_map", parameter=["item-01", "item-02"], task_definition=sleeps)
    assert (run.state, run.states["process_items"]) == ("failed", "failed")
    assert run.tries["process_items"] == 1
    assert started() == 2
    assert running(samples) == []


@pytest.mark.parametrize("form", FORMS)
def test_no_items_are_no_failure(test_dag: Callable[..., Any], form: str) -> None:
    """A list may be empty."""
    run = test_dag(form, parameter=[])
    assert (run.state, run.returned("results")) == ("success", [])


@pytest.mark.parametrize("form", FORMS)
def test_there_is_an_input_for_each_item_that_is_run_by_default(dags: Any, samples: LocalAws, form: str) -> None:
    """And there are more of them than run at a time, so that they come in waves."""
    items = dags[form].params["parameter"]
    listed = samples.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=INPUTS)["Contents"]
    assert {f"{INPUTS}{item}.json" for item in items} <= {each["Key"] for each in listed}
    assert len(items) == 45


def test_forty_run_at_a_time(dags: Any) -> None:
    """Of single tasks ``airflow dags test`` runs one after another, so what they are told is looked at."""
    assert dags["fargate_map"].get_task("process_items").max_concurrency == 40
    assert dags["fargate_map_expand"].get_task("process_item").partial_kwargs["max_active_tis_per_dagrun"] == 40
