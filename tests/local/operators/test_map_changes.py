"""Items of maps that are started again with changes, on the local AWS."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults
from airflow_jobflow.local.faults import StartFailure
from airflow_jobflow.local.samples import create_queue
from airflow_jobflow.operators.batch import BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator
from airflow_jobflow.triggers.map import MapTrigger
from tests.local.maps import items, recreated, run_until_killed, run_until_shutdown

DOUBLE = {"memory": "x2", "max": 16384}

KILLED = "exit 137"
"""What a script does that runs out of memory."""


@pytest.fixture
def queue(kit: Any, here: Callable[[Any], None]) -> str:
    """A second queue, for which this process uses the AWS of the tests."""
    here(kit.aws)
    name = f"on-demand-{uuid.uuid4().hex}"
    create_queue(kit.batch, name)
    return name


def batch_map(kit: Any, script: str, count: int, **parameters: Any) -> BatchMapOperator:
    """Return an operator that runs a script for each of some items, and waits on the worker."""
    defaults = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "aws_conn_id": None, "deferrable": False}
    definition = kit.define(["sh", "-c", script])
    return BatchMapOperator(**{**defaults, "job_definition": definition, "items": items(count), **parameters})


def fargate_map(kit: Any, script: str, count: int, **parameters: Any) -> FargateMapOperator:
    """Return the same on Fargate."""
    defaults = {"task_id": "t", "cluster": kit.cluster, "subnets": ["s"], "aws_conn_id": None, "deferrable": False}
    definition = kit.define(kit.container(["sh", "-c", script]))
    return FargateMapOperator(**{**defaults, "task_definition": definition, "items": items(count), **parameters})


def jobs_of(kit: Any, queue: str) -> dict[str, str]:
    """Return the statuses of all jobs in a queue, by the end of their names: index and history."""
    pages = kit.batch.get_paginator("list_jobs").paginate(
        jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["*"]}]
    )
    listed = [job for page in pages for job in page["jobSummaryList"]]
    jobs = {"-".join(job["jobName"].split("-")[4:]): job["status"] for job in listed}
    assert len(jobs) == len(listed), "an attempt has two jobs"
    return jobs


def test_thirty_items_of_200_that_run_out_of_memory_are_thirty_more_tasks_of_the_next_size(
    ecs_kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """In one task instance. Twice the memory needs more CPU on Fargate."""
    here(ecs_kit.aws)
    script = f'test $N -ge 30 || test "$JOBFLOW_MAP_HISTORY" = m || {KILLED}'
    operator = fargate_map(ecs_kit, script, 200, cpu=256, memory=2048, on_out_of_memory=DOUBLE)
    outcome = operator.execute(context)
    assert outcome["statuses"] == "S" * 200
    started = [each for each in ecs_kit.aws.started("ecs") if each["clusterArn"].endswith(ecs_kit.cluster)]
    sizes = Counter((each["overrides"]["cpu"], each["overrides"]["memory"]) for each in started)
    assert sizes == {("256", "2048"): 200, ("512", "4096"): 30}
    assert [each["index"] for each in outcome["changes"]] == list(range(30))
    assert {each["cause"] for each in outcome["changes"]} == {"out_of_memory"}
    assert all(each["changed"] == {"cpu": 512, "memory": 4096} for each in outcome["changes"])


def test_another_triggerer_continues_with_jobs_in_another_queue_and_a_kill_stops_them(
    own_kit: Any, here: Callable[[Any], None], context: Any, gate: Any
) -> None:
    """It starts no attempt twice, and leaves nothing running."""
    here(own_kit.aws)
    queue = f"on-demand-{uuid.uuid4().hex}"
    create_queue(own_kit.batch, queue)
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = batch_map(own_kit, script, 4, on_capacity={"job_queue": queue}, deferrable=True)
    own_kit.aws.set_faults(Faults(fail_starts=(StartFailure("host_terminated", jobs=(own_kit.queue,), starts=2),)))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger: Any = recreated(deferred.value.trigger)
    asyncio.run(run_until_shutdown(own_kit, trigger, lambda: len(jobs_of(own_kit, queue)) == 2))
    first, second = (jobs_of(own_kit, each) for each in (own_kit.queue, queue))
    failed = [name for name, status in first.items() if status == "FAILED"]
    assert sorted(second) == sorted(f"{name}-c" for name in failed)
    trigger = recreated(trigger, began_at=0.0)
    asyncio.run(run_until_killed(own_kit, trigger, lambda: len(trigger._state.running) == 4))
    assert (jobs_of(own_kit, own_kit.queue).keys(), jobs_of(own_kit, queue).keys()) == (first.keys(), second.keys())
    for each in (own_kit.queue, queue):
        own_kit.eventually(lambda each=each: set(jobs_of(own_kit, each).values()) == {"FAILED"}, "the end of all jobs")


def test_a_lost_response_starts_no_attempt_twice(own_kit: Any, here: Callable[[Any], None], context: Any) -> None:
    """The job of a later attempt is found by its name, in the queue of that attempt."""
    here(own_kit.aws)
    queue = f"on-demand-{uuid.uuid4().hex}"
    create_queue(own_kit.batch, queue)
    script = f'test -n "$JOBFLOW_MAP_HISTORY" || {KILLED}'
    operator = batch_map(own_kit, script, 3, on_out_of_memory={"job_queue": queue, "memory": "x2"})
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), lose_answers=6))
    assert operator.execute(context)["statuses"] == "SSS"
    assert jobs_of(own_kit, own_kit.queue).keys() == {"0", "1", "2"}
    assert jobs_of(own_kit, queue).keys() == {"0-m", "1-m", "2-m"}


def test_a_later_try_without_a_record_stops_jobs_in_every_queue(kit: Any, queue: str, context: Any, gate: Any) -> None:
    """Airflow 3.2 has no store, so the jobs of the earlier try are found by their names."""
    operator = batch_map(kit, f"while [ ! -e {gate} ]; do sleep 0.02; done", 1, on_capacity={"job_queue": queue})
    spec, group = operator._execution.spec, operator._execution.record
    group.begin(context)
    name = spec.job_group(group)["stem"]
    for number, each in enumerate((kit.queue, queue)):
        kit.batch.submit_job(jobName=f"{name}-{number}", jobQueue=each, jobDefinition=operator.job_definition)
    found = operator._execution.jobs.call(spec.find_group, group.owner.group, group.attempt)
    assert {each.job.name for each in found} == {f"{name}-0", f"{name}-1"}


def test_an_item_without_an_attempt_left_or_at_the_maximum_fails_and_says_so(
    kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """The other items run to their end."""
    here(kit.aws)
    each = [{"memory": 512}, {"memory": 8192}, {"command": ["true"]}]
    rules = {"on_out_of_memory": {"memory": "x2", "max": 8192}, "item_attempts": "3", "on_item_failure": "continue"}
    with pytest.raises(exceptions.JobFailed) as error:
        batch_map(kit, KILLED, 0, items=each, **rules).execute(context)
    text = str(error.value)
    assert "It was attempt 3 of 3, the most that item_attempts allows." in text
    assert "It already had 8,192 MiB (memory), the most that on_out_of_memory allows, so it is not tried again." in text
    outcome: Any = error.value.outcome
    assert outcome["statuses"] == "FFS"
    assert [change["changed"] for change in outcome["failed"][0]["changes"]] == [{"memory": 1024}, {"memory": 2048}]
    assert jobs_of(kit, kit.queue).keys() == {"0", "0-m", "0-mm", "1", "2"}


def test_the_changes_of_several_causes_add_up(own_kit: Any, here: Callable[[Any], None], context: Any) -> None:
    """An item loses its host, runs out of memory, and then takes too long."""
    here(own_kit.aws)
    queue = f"on-demand-{uuid.uuid4().hex}"
    create_queue(own_kit.batch, queue)
    script = f'case "$JOBFLOW_MAP_HISTORY" in c) {KILLED};; cm) sleep 60;; esac'
    rules = {"on_out_of_memory": DOUBLE, "on_capacity": {"job_queue": queue}, "on_timeout": {"attempt_timeout": "x2"}}
    own_kit.aws.set_faults(Faults(fail_starts=(StartFailure("host_terminated", starts=1),)))
    outcome = batch_map(own_kit, script, 1, memory=256, attempt_timeout=60, **rules).execute(context)
    assert [(each["attempt"], each["cause"], each["changed"]) for each in outcome["changes"]] == [
        (2, "capacity", {"job_queue": queue}),
        (3, "out_of_memory", {"memory": 512}),
        (4, "timeout", {"attempt_timeout": 120}),
    ]
    last = own_kit.look(outcome["outcomes"][0]["job_id"])
    assert (last["jobName"].rpartition("-")[2], last["jobQueue"].rpartition("/")[2]) == ("cmt", queue)
    assert last["timeout"] == {"attemptDurationSeconds": 120}
    assert {"type": "MEMORY", "value": "512"} in last["container"]["resourceRequirements"]


def test_an_item_that_loses_its_spot_capacity_gets_the_provider_of_on_capacity(
    own_ecs_kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """The items that keep theirs stay on Spot."""
    here(own_ecs_kit.aws)
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    capacity = {"capacity_provider_strategy": {"FARGATE": 1}}
    spot = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}
    outcome = fargate_map(own_ecs_kit, "sleep 0.2", 3, on_capacity=capacity, **spot).execute(context)
    assert outcome["statuses"] == "SSS"
    providers = Counter(each["capacityProviderName"] for each in own_ecs_kit.aws.started("ecs"))
    assert providers == {"FARGATE_SPOT": 3, "FARGATE": 1}
    assert [each["cause"] for each in outcome["changes"]] == ["capacity"]


def test_a_start_without_capacity_is_repeated_with_what_on_capacity_sets(
    own_ecs_kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """Without a pause, and it is the same attempt, because nothing was started."""
    here(own_ecs_kit.aws)
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1))
    capacity = {"capacity_provider_strategy": {"FARGATE": 1}}
    spot = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}
    outcome = fargate_map(own_ecs_kit, "true", 2, on_capacity=capacity, item_attempts=1, **spot).execute(context)
    providers = Counter(each["capacityProviderName"] for each in own_ecs_kit.aws.started("ecs"))
    assert providers == {"FARGATE_SPOT": 1, "FARGATE": 1}
    [change] = outcome["changes"]
    assert (change["index"], change["attempt"], change["cause"]) == (0, 1, "capacity")
    assert change["text"].endswith("because AWS had no capacity for it")


def test_a_stored_trigger_of_an_older_version_starts_an_item_again_on_demand(
    own_ecs_kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """It has no rules, and its job group says what follows a Spot interruption."""
    here(own_ecs_kit.aws)
    spot = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}, "on_spot_interruption": "on_demand"}
    operator = fargate_map(own_ecs_kit, "sleep 0.2", 2, deferrable=True, **spot)
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    arguments = deferred.value.trigger.serialize()[1]
    assert arguments.pop("changes")["rules"] == {"i": {"launch_type": "FARGATE"}}
    arguments["job_group"] |= {"on_interruption": "on_demand"}
    assert asyncio.run(MapTrigger(**arguments).wait())["statuses"] == "SS"
    providers = [each["capacityProviderName"] for each in own_ecs_kit.aws.started("ecs")]
    assert providers == ["FARGATE_SPOT", "FARGATE_SPOT", None]


def test_a_queue_that_does_not_exist_is_rejected_before_anything_starts(
    kit: Any, here: Callable[[Any], None], context: Any
) -> None:
    """Otherwise the map would fail hours later, when the first host is lost."""
    here(kit.aws)
    with pytest.raises(exceptions.SubmissionRejected, match=r"nowhere.*Nothing was started"):
        batch_map(kit, "true", 2, on_capacity={"job_queue": "nowhere"}).execute(context)
    assert not jobs_of(kit, kit.queue)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"item_attempts": 0}, "item_attempts=0: must be a number of at least 1 and at most 10"),
        ({"item_attempts": "11"}, "item_attempts='11': must be a number of at least 1 and at most 10"),
        ({"item_attempts": 2}, "item_attempts=2: has no effect, because no parameter such as on_out_of_memory"),
    ],
)
def test_bounds_of_item_attempts(
    kit: Any, here: Callable[[Any], None], context: Any, parameters: dict[str, Any], words: str
) -> None:
    """Nothing is started."""
    here(kit.aws)
    with pytest.raises(exceptions.InvalidParameter, match=words):
        batch_map(kit, "true", 1, **parameters).execute(context)
    assert not jobs_of(kit, kit.queue)
