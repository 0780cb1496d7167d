"""The attempts at the items of a map in AWS: their names and variables, where they run, and what they change."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.jobs import batch, batch_map, batch_request, ecs_map, ecs_snapshot
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.batch_search import NAME_LENGTH, attempt_name
from airflow_jobflow.jobs.changes import CAUSES, AtMaximum, Changes
from airflow_jobflow.jobs.environment import variables
from airflow_jobflow.jobs.maps import MAX_ATTEMPTS, Found, Start, history_in
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.owner import group_in_name
from airflow_jobflow.operators import batch_parameters, ecs_parameters
from airflow_jobflow.triggers.map import MapTrigger

NAME = attempt_name("n", "0123456789", Try(1, 2, 0), "abcdefabcd")


class Aws:
    """Records requests, and lists jobs by queue.

    :param listed: the pages of each queue.
    """

    may_tag = True

    def __init__(self, **listed: list[list[str]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.listed = listed

    def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        """Respond to a call."""
        self.requests.append(request)
        if operation != "list_jobs":
            return {"jobId": "a", "tasks": [{"taskArn": "a"}]}
        number = int(request.get("nextToken", 0))
        pages = self.listed.get(request["jobQueue"], [[]])
        jobs = [{"jobName": name, "jobId": f"id-{name}", "status": "RUNNING"} for name in pages[number]]
        return {"jobSummaryList": jobs} | ({"nextToken": f"{number + 1}"} if number + 1 < len(pages) else {})


def submitted(job_group: dict[str, Any], which: Start, **parameters: Any) -> dict[str, Any]:
    """Return the request that starts an attempt on Batch."""
    aws: Any = Aws()
    item = batch_map.item({"jobDefinition": "d", **parameters}, which.index, {"A": "1"})
    batch_map.start(aws, job_group, item, which)
    [request] = aws.requests
    return dict(request)


def test_the_name_of_a_batch_job_has_the_history_of_its_item() -> None:
    """A trigger that takes over finds out from it which attempt it is, and the reaper which task it belongs to."""
    job_group = batch_map.job_group("q", NAME, {})
    names = [submitted(job_group, Start(7, history))["jobName"] for history in ("", "m", "cimt")]
    assert names == [f"{NAME}-7", f"{NAME}-7-m", f"{NAME}-7-cimt"]
    found, cursor = batch_map.page(Aws(q=[[*names, f"{NAME}-x", f"{NAME}-7-2"]]), job_group, None)  # type: ignore[arg-type]
    assert (found, cursor) == (
        [Found(7, f"id-{names[0]}"), Found(7, f"id-{names[1]}", "m"), Found(7, f"id-{names[2]}", "cimt")],
        None,
    )
    assert {group_in_name(each) for each in names} == {"0123456789"}
    assert {group_in_name(f"{NAME}-7-{letter}") for letter in CAUSES} == {"0123456789"}


def test_the_longest_history_fits_into_the_name_of_a_job() -> None:
    """Batch rejects longer names."""
    name = attempt_name("n" * NAME_LENGTH, "0123456789", Try(9, 99, 9), "abcdefabcd")
    request = submitted(batch_map.job_group("q", name, {}), Start(9999, "m" * (MAX_ATTEMPTS - 1)))
    assert len(request["jobName"]) <= NAME_LENGTH


def test_all_queues_are_listed_that_a_rule_names() -> None:
    """Otherwise a job in another queue would be started twice, and left running by a kill."""
    job_group = batch_map.job_group("spot", "n", {}, ["on-demand", "spot", "on-demand", "last"])
    aws: Any = Aws(spot=[["n-0"], ["n-1"]], last=[["n-0-cc"]], **{"on-demand": [["n-0-c", "n-1-c"]]})
    found, cursor = batch_map.page(aws, job_group, None)
    while cursor:
        more, cursor = batch_map.page(aws, job_group, cursor)
        found += more
    assert [(each.index, each.history) for each in found] == [(0, ""), (1, ""), (0, "c"), (1, "c"), (0, "cc")]


def test_a_changed_queue_is_used_only_if_the_map_lists_it() -> None:
    """A later try may name another queue, in which no trigger would look for the job."""
    for others, queue in ((["on-demand"], "on-demand"), ([], "spot")):
        job_group = batch_map.job_group("spot", "n", {}, others)
        start = Start(0, "c", values={"job_queue": "on-demand"})
        assert submitted(job_group, start)["jobQueue"] == queue
        aws: Any = Aws(**{queue: [["n-0-c"]]})
        assert batch_map.find_submitted(aws, job_group, start) == "id-n-0-c"


def test_a_later_attempt_on_batch_gets_the_changed_values() -> None:
    """Everything else stays as the item has it."""
    overrides = {"resourceRequirements": [{"type": "GPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]}
    values = {"memory": 4096, "vcpus": 0.5, "attempt_timeout": 120, "retry_strategy": {"attempts": 2}}
    request = submitted(batch_map.job_group("q", "n", {}), Start(7, "mt", values=values), containerOverrides=overrides)
    sizes = {each["type"]: each["value"] for each in request["containerOverrides"]["resourceRequirements"]}
    assert sizes == {"GPU": "1", "MEMORY": "4096", "VCPU": "0.5"}
    assert (request["timeout"], request["retryStrategy"]) == ({"attemptDurationSeconds": 120}, {"attempts": 2})
    assert variables(request["containerOverrides"]) == {
        "A": "1",
        "JOBFLOW_MAP_INDEX": "7",
        "JOBFLOW_MAP_ATTEMPT": "3",
        "JOBFLOW_MAP_HISTORY": "mt",
    }


def run(which: Start, **parameters: Any) -> dict[str, Any]:
    """Return the request that starts an attempt on ECS."""
    aws: Any = Aws()
    ecs_map.start(aws, ecs_map.job_group("c", "g", "t", {}), ecs_map.item(parameters, "main", which.index, {}), which)
    [request] = aws.requests
    return dict(request)


def test_a_later_attempt_on_ecs_gets_the_changed_values() -> None:
    """A launch type replaces a capacity provider strategy, and the other way round; AWS takes only one of them."""
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    network = {"awsvpcConfiguration": {"subnets": ["a"], "assignPublicIp": "ENABLED"}}
    values = {"memory": 4096, "cpu": 512, "ephemeral_storage": 50, "launch_type": "FARGATE", "subnets": ["b", "c"]}
    request = run(Start(0, "mc", values=values), **spot, networkConfiguration=network, overrides={"memory": "2048"})
    sizes = {name: request["overrides"][name] for name in ("memory", "cpu", "ephemeralStorage")}
    assert sizes == {"memory": "4096", "cpu": "512", "ephemeralStorage": {"sizeInGiB": 50}}
    assert (request["launchType"], "capacityProviderStrategy" in request) == ("FARGATE", False)
    assert request["networkConfiguration"] == {
        "awsvpcConfiguration": {"subnets": ["b", "c"], "assignPublicIp": "ENABLED"}
    }
    strategy = [{"capacityProvider": "FARGATE", "weight": 1}]
    request = run(Start(0, "c", values={"capacity_provider_strategy": strategy}), launchType="FARGATE")
    assert (request["capacityProviderStrategy"], "launchType" in request) == (strategy, False)


def test_the_token_of_an_attempt_on_ecs_has_its_number() -> None:
    """Two triggers that know different causes of a failure must not start it twice."""
    assert [run(Start(3, history))["clientToken"] for history in ("", "m", "c")] == ["t-3-1-0", "t-3-2-0", "t-3-2-0"]


def test_the_history_of_a_task_of_an_older_version_has_spot_interruptions() -> None:
    """Only these led to another attempt, whose number was all that the task got."""
    assert history_in({"JOBFLOW_MAP_ATTEMPT": "3"}) == "ii"
    assert not history_in({})
    [container] = run(Start(0, "mc"))["overrides"]["containerOverrides"]
    assert history_in(variables(container)) == "mc"


@pytest.mark.parametrize("service", ["batch", "ecs"])
def test_the_result_of_an_earlier_attempt_is_not_taken_for_that_of_a_later_one(service: str) -> None:
    """The attempts at an item share the address, so what was written before a job was created is outdated."""
    marks = [{"name": name, "value": value} for name, value in Start(0, "m").marks.items()]

    def ended_at(environment: list[dict[str, str]]) -> str | None:
        if service == "batch":
            container = {"environment": environment}
            job = {"jobId": "a", "jobName": "n", "status": "SUCCEEDED", "createdAt": 10_000, "container": container}
            return batch.snapshot(job).previous_attempt_ended_at
        arn = "arn:aws:ecs:eu-west-1:1:task/c/a"
        overrides = {"containerOverrides": [{"name": "main", "environment": environment}]}
        task = {"taskArn": arn, "taskDefinitionArn": "d", "lastStatus": "RUNNING", "createdAt": 10.0}
        made_from = ecs_snapshot.Definition()
        return ecs_snapshot.snapshot({**task, "overrides": overrides}, made_from).previous_attempt_ended_at

    assert ended_at([]) is None
    assert ended_at(marks) == "1970-01-01T00:00:09+00:00"


BATCH_VALUES: dict[str, Any] = {
    "job_queue": "other",
    "memory": 4096,
    "vcpus": 2,
    "gpus": 2,
    "attempt_timeout": 120,
    "retry_strategy": {"attempts": 2},
    "share_identifier": "s",
    "scheduling_priority_override": 7,
}

ECS_VALUES: dict[str, Any] = {
    "cpu": 1024,
    "memory": 4096,
    "ephemeral_storage": 50,
    "capacity_provider_strategy": [{"capacityProvider": "FARGATE", "weight": 1}],
    "launch_type": "FARGATE",
    "subnets": ["other"],
    "security_groups": ["sg"],
    "assign_public_ip": False,
    "platform_version": "1.4.0",
    "placement_constraints": [{"type": "distinctInstance"}],
    "placement_strategy": [{"type": "random"}],
}


def test_an_attempt_on_batch_is_what_an_item_with_these_values_would_be() -> None:
    """Every parameter that a rule may set is applied, and like the operator's."""
    assert BATCH_VALUES.keys() == set(batch_parameters.CHANGEABLE)
    values = {"job_queue": "q", "job_definition": "d", "memory": 2048, "command": ["a"], "environment": {"A": "1"}}
    members = batch_parameters.PARAMETERS.members
    for name, value in BATCH_VALUES.items():
        changed = batch_map.with_changes(batch_request.request(values, members), {name: value})
        expected = batch_request.request({**values, name: value}, members)
        for each in (changed, expected):
            each["containerOverrides"]["resourceRequirements"].sort(key=lambda amount: amount["type"])
        assert changed == expected, name


SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


@pytest.mark.parametrize("more", [{"launch_type": "FARGATE"}, {"capacity_provider_strategy": SPOT}])
def test_an_attempt_on_ecs_is_what_an_item_with_these_values_would_be(more: dict[str, Any]) -> None:
    """The same."""
    assert ECS_VALUES.keys() == set(ecs_parameters.CHANGEABLE)
    values = {
        "cluster": "c",
        "task_definition": "d",
        "subnets": ["s"],
        "memory": 2048,
        "assign_public_ip": True,
        **more,
    }
    parameters = ecs_parameters.EcsParameters(values)
    request = parameters.request(values, "main")
    for name, value in ECS_VALUES.items():
        expected = parameters.request(ecs_parameters.changed(values, {name: value}), "main")
        assert ecs_map.with_changes(request, {name: value}) == expected, name


def test_a_fixed_size_never_lowers_that_of_an_item() -> None:
    """The rule is the operator's, and an item may have more."""
    last = Snapshot("j", JobState.FAILED, "FAILED", exit_code=137, resources={"gib": 8.0})
    assert isinstance(Changes({"m": {"memory": 4096}}).after("m", last), AtMaximum)


@pytest.mark.parametrize(
    ("job_group", "attempts", "rules"),
    [
        ({"on_interruption": "on_demand"}, 4, {"i": {"launch_type": "FARGATE"}}),
        ({"on_interruption": "retry"}, 4, {"i": {}}),
        ({"on_interruption": "fail"}, 1, {}),
        ({"queue": "q", "stem": "n"}, 1, {}),
    ],
)
def test_a_map_of_an_older_version_starts_items_again_as_before(
    job_group: dict[str, Any], attempts: int, rules: dict[str, Any]
) -> None:
    """It was stored without rules."""
    trigger = MapTrigger(service="ecs", job_group=job_group, size=1, indexes="0", requests="", attempts=attempts)
    assert trigger.changes["rules"] == rules
    assert MapTrigger(**trigger.serialize()[1]).changes == trigger.changes
