"""FargateMapOperator on the local AWS: one task per item, including Spot."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.jobs.owner import job_group
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.operators.ecs import FargateMapOperator
from tests.local.maps import items, recreated, retry, run_until_killed, run_until_shutdown

Make = Callable[..., FargateMapOperator]

SPOT = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}


def maker(kit: Any) -> Make:
    """Return a function that creates operators for a cluster, which by default wait on the worker."""

    def operator(script: str = "true", **parameters: Any) -> FargateMapOperator:
        if "task_definition" not in parameters:
            parameters["task_definition"] = kit.define(kit.container(["sh", "-c", script]))
        defaults = {"task_id": "t", "cluster": kit.cluster, "subnets": ["subnet-1"], "aws_conn_id": None, "items": []}
        return FargateMapOperator(**{**defaults, "deferrable": False, **parameters})

    return operator


@pytest.fixture
def make(ecs_kit: Any, here: Callable[[Any], None]) -> Make:
    """Return a function that creates operators for the test's cluster."""
    here(ecs_kit.aws)
    return maker(ecs_kit)


@pytest.fixture
def own_make(own_ecs_kit: Any, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that creates operators with short pauses on a local AWS of the test's own, for faults."""
    here(own_ecs_kit.aws)
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "300")
    return maker(own_ecs_kit)


def variables(started: dict[str, Any]) -> dict[str, str]:
    """Return the variables with which a task was started."""
    [container] = started["overrides"]["containerOverrides"]
    return {each["name"]: each["value"] for each in container["environment"]}


def starts(kit: Any) -> Counter[str]:
    """Return how often each item's task was started on the test's cluster."""
    mine = [each for each in kit.aws.started("ecs") if each["clusterArn"].endswith(f"/{kit.cluster}")]
    return Counter(variables(each)["N"] for each in mine)


def once(count: int) -> dict[str, int]:
    """Return the counts if each item's task was started once."""
    return {str(number): 1 for number in range(count)}


def test_each_item_is_a_task_and_results_come_in_order(ecs_kit: Any, make: Make, context: Any) -> None:
    """This includes items that wait for a free slot; all tasks are in the group of the task instance."""
    result = make("test $N = $JOBFLOW_MAP_INDEX", items=items(5), max_concurrency=2).execute(context)
    assert (result["state"], result["statuses"]) == ("SUCCEEDED", "SSSSS")
    tasks = [ecs_kit.look(outcome["job_id"]) for outcome in result["outcomes"]]
    ti = context["ti"]
    assert {task["startedBy"] for task in tasks} == {job_group(ti.dag_id, ti.task_id, ti.run_id)}
    of_items = [variables({"overrides": task["overrides"]})["N"] for task in tasks]
    assert of_items == [str(number) for number in range(5)]
    assert result == json.loads(json.dumps(result))


def test_an_item_overrides_the_operator(ecs_kit: Any, make: Make, context: Any) -> None:
    """Its environment is merged with the operator's."""
    overrides = {"containerOverrides": [{"name": "main", "environment": [{"name": "A", "value": "a"}]}]}
    each: list[dict[str, Any]] = [
        {"command": ["sh", "-c", "echo $A$B"], "environment": {"B": "b"}, "cpu": 1024, "tags": {"team": "x"}},
        {"overrides": {"containerOverrides": [{"name": "main", "command": ["sh", "-c", "echo .$A"]}]}},
    ]
    result = make(items=each, overrides=overrides, memory=2048).execute(context)
    first, second = (ecs_kit.look(outcome["job_id"]) for outcome in result["outcomes"])
    assert [ecs_kit.lines(task["taskArn"]) for task in (first, second)] == [["ab"], ["."]]
    assert (first["cpu"], first["memory"], second["memory"]) == ("1024", "2048", "2048")


@pytest.mark.parametrize(("policy", "provider"), [("retry", "FARGATE_SPOT"), ("on_demand", None)])
def test_an_interrupted_item_gets_another_attempt(
    own_ecs_kit: Any, own_make: Make, context: Any, policy: str, provider: str | None
) -> None:
    """Only the interrupted item is started again."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    result = own_make("sleep 0.2", items=items(3), on_spot_interruption=policy, **SPOT).execute(context)
    assert result["statuses"] == "SSS"
    started = own_ecs_kit.aws.started("ecs")
    assert sorted(starts(own_ecs_kit).values()) == [1, 1, 2]
    [again] = [each for each in started if variables(each).get("JOBFLOW_MAP_ATTEMPT") == "2"]
    assert again["capacityProviderName"] == provider


def test_attempts_after_interruptions_are_limited(own_ecs_kit: Any, own_make: Make, context: Any) -> None:
    """An item whose attempts were all interrupted has failed."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=99))
    with pytest.raises(exceptions.JobFailed, match="taken away"):
        own_make("sleep 5", items=items(1), **SPOT).execute(context)
    assert starts(own_ecs_kit) == {"0": 4}


def test_attempts_are_counted_across_a_crash(own_ecs_kit: Any, own_make: Make, context: Any) -> None:
    """They are counted from listed tasks; the index is read from the variables of a task."""
    operator = own_make("sleep 5", items=items(1), deferrable=True, **SPOT)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=99))
    trigger = recreated(deferred.value.trigger)
    asyncio.run(run_until_shutdown(own_ecs_kit, trigger, lambda: starts(own_ecs_kit)["0"] >= 2))
    event = asyncio.run(recreated(trigger, began_at=0).wait())
    assert event["statuses"] == "F"
    assert starts(own_ecs_kit) == {"0": 4}


@pytest.mark.parametrize(
    "fault",
    [
        Faults(actions=("RunTask",), lose_answers=3),
        Faults(actions=("RunTask",), error_every=3),
        Faults(actions=("RunTask",), calls_per_second=6),
        Faults(run_task_failures=2),
        Faults(visible_after=1),
    ],
    ids=["lost answers", "5xx", "throttling", "no capacity", "late"],
)
def test_no_fault_starts_an_item_twice_or_fails_it(
    own_ecs_kit: Any, own_make: Make, context: Any, fault: Faults
) -> None:
    """Each item is started exactly once, and the map succeeds."""
    operator = own_make(items=items(8))
    own_ecs_kit.aws.set_faults(fault)
    assert operator.execute(context)["statuses"] == "S" * 8
    assert starts(own_ecs_kit) == once(8)


def test_a_response_without_a_task_fails_the_item(own_ecs_kit: Any, own_make: Make, context: Any) -> None:
    """Missing capacity, which is transient, does not."""
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1, run_task_reason="ATTRIBUTE"))
    with pytest.raises(exceptions.SubmissionRejected, match=r"items\[0\]: ATTRIBUTE\. Nothing was started"):
        own_make(items=items(2)).execute(context)


def test_a_trigger_after_a_crash_starts_no_item_twice(
    own_ecs_kit: Any, own_make: Make, context: Any, gate: Any
) -> None:
    """It finds running and stopped tasks."""
    operator = own_make(f"test $N = 0 || while [ ! -e {gate} ]; do sleep 0.02; done", items=items(6), deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger = recreated(deferred.value.trigger)
    asyncio.run(run_until_shutdown(own_ecs_kit, trigger, lambda: sum(starts(own_ecs_kit).values()) >= 3))
    gate.touch()
    event = asyncio.run(recreated(trigger, began_at=0).wait())
    assert operator.execute_complete(context, event)["statuses"] == "S" * 6
    assert starts(own_ecs_kit) == once(6)


@pytest.fixture
def forgetful(here: Callable[[Any], None], kit_class: Any) -> Iterator[Any]:
    """A cluster of an AWS that forgets a stopped task after four seconds."""
    with LocalAws(settings=Settings(time_scale=0.01, stopped_visible=400)) as server:
        here(server)
        yield kit_class["ecs"](server)


def test_a_retry_remembers_items_that_aws_has_forgotten(forgetful: Any, context: Any, gate: Any) -> None:
    """The map was left running at its deadline: items that have ended since do not run again."""
    script = f"test $N = 0 || while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = maker(forgetful)(script, items=items(3), job_timeout=2, cancel_on_timeout=False)
    with pytest.raises(exceptions.JobTimeout, match="1 of 3 items ended, 0 failed, 2 running"):
        operator.execute(context)
    forgetful.eventually(lambda: not forgetful.listed(desiredStatus="STOPPED"), "that the first is forgotten")
    gate.touch()
    forgetful.eventually(lambda: not forgetful.listed(desiredStatus="RUNNING"), "the end of the others")
    retry(context)
    result = operator.execute(context)
    assert (result["state"], result["statuses"]) == ("SUCCEEDED", "SSS")
    assert [outcome["index"] for outcome in result["outcomes"]] == [0, 1, 2]
    assert starts(forgetful) == once(3)


def test_a_killed_task_stops_all_tasks(ecs_kit: Any, make: Make, context: Any, gate: Any) -> None:
    """Airflow cancels the trigger, and then calls ``on_kill``."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(4), deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger = recreated(deferred.value.trigger)
    asyncio.run(run_until_killed(ecs_kit, trigger, lambda: sum(starts(ecs_kit).values()) >= 2))
    ecs_kit.eventually(lambda: not ecs_kit.listed(desiredStatus="RUNNING"), "the end of all tasks")


@pytest.mark.parametrize("parameter", ["cluster", "task_definition"])
def test_unknown_resources_are_rejected(make: Make, context: Any, parameter: str) -> None:
    """No task is started, and the Airflow task is not retried."""
    with pytest.raises(exceptions.SubmissionRejected, match=r"[Nn]othing was started"):
        make(items=items(2), **{parameter: "nowhere"}).execute(context)


OVERRIDES = {"containerOverrides": [{"name": "main", "command": ["b"]}]}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"cluster": "c"}, r"items\[1\]=.*: 'cluster' is not one of command, environment"),
        ({"cpu": "much"}, r"items\[1\]\['cpu'\]='much': must be a number"),
        ({"command": "ls"}, r"items\[1\]\['command'\]='ls': must be a list of strings"),
        (
            {"command": ["a"], "overrides": OVERRIDES},
            r"items\[1\]=.*: command is also set in overrides; set it in one place only",
        ),
    ],
)
def test_the_error_for_an_invalid_item_names_it(
    ecs_kit: Any, make: Make, context: Any, item: dict[str, Any], words: str
) -> None:
    """No task is started before."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        make(items=[{}, item]).execute(context)
    assert not starts(ecs_kit)


def test_a_named_container_decides_for_every_item(ecs_kit: Any, make: Any, context: Any) -> None:
    """A router that is killed after the work fails no item."""
    router = ["sh", "-c", "trap 'exit 137' TERM; while :; do sleep 0.02; done"]  # as if killed
    work = ["sh", "-c", "sleep 0.2; exit $JOBFLOW_MAP_INDEX"]
    definition = ecs_kit.define(ecs_kit.container(work), ecs_kit.container(router, name="router"))
    with pytest.raises(exceptions.JobFailed) as error:
        make(task_definition=definition, items=[{}, {}], container_name="main", on_item_failure="continue").execute(
            context
        )
    outcome: Any = error.value.outcome
    assert outcome["statuses"] == "SF"
    assert outcome["failed"][0]["exit_code"] == 1
