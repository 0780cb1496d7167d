"""Maps on ECS: one Fargate task for each item, all started by the map's nonce.

What ECS does and this module relies on: ListTasks finds by ``startedBy`` the tasks that go on, and those that have
stopped within about an hour; DescribeTasks tells the variables they were started with, and so whose they are; a
RunTask with the token of one that has started a task starts nothing more. The overrides of a RunTask go to all its
tasks, so that items that differ take a call each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs import ecs
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.environment import variables, with_variables
from airflow_jobflow.jobs.fan_out import Found, Start
from airflow_jobflow.jobs.maps import ATTEMPT, INDEX

REPEATABLE = True
CHECKPOINT = 900.0

ON_DEMAND = "on_demand"
DESIRED = ("RUNNING", "STOPPED")


def family(cluster: str, nonce: str, on_interruption: str) -> dict[str, str]:
    """Say how the tasks of a map are told from others, and what an attempt that follows an interruption runs on."""
    return {"cluster": cluster, "nonce": nonce, "on_interruption": on_interruption}


def item(request: dict[str, Any], container: str, index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the RunTask request of an item: the given one, whose container has these variables and its index.

    :param container: whose variables they are.
    """
    overrides = request.get("overrides", {})
    others, said = _split(overrides, container)
    own = with_variables(said, {**environment, INDEX: index})
    return {**request, "overrides": {**overrides, "containerOverrides": [*others, own]}}


def start(call: Call, family: Mapping[str, str], request: dict[str, Any], which: Start) -> str:
    """Run an item's task, and return its ARN. One RunTask call, which may be repeated.

    :raises NotStarted: the answer was that there is no such task now.
    """
    if which.attempt > 1:
        request = _again(family, request, which.attempt)
    token = f"{family['nonce']}-{which.index}-{which.attempt}-{which.turn}"
    answer = call("run_task", **request, startedBy=family["nonce"], clientToken=token)
    return ecs.started(answer)


def look_up(call: Call, family: Mapping[str, str], which: Start) -> str | None:  # noqa: ARG001
    """Find nothing: a start without an answer is repeated with its token."""
    return None


def page(call: Call, family: Mapping[str, str], cursor: Sequence[str] | None) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the tasks a map has started, and say where the next page begins. Two calls."""
    status, *token = cursor or DESIRED[:1]
    where: Any = {"nextToken": token[0]} if token else {}
    answer = call(
        "list_tasks",
        cluster=family["cluster"],
        startedBy=family["nonce"],
        desiredStatus=status,
        **where,
    )
    arns = answer["taskArns"]
    tasks: Sequence[Any] = call("describe_tasks", cluster=family["cluster"], tasks=arns)["tasks"] if arns else []
    found = [each for each in map(_found, tasks) if each]
    if answer.get("nextToken"):
        return found, [status, answer["nextToken"]]
    return found, [DESIRED[1]] if status == DESIRED[0] else None


def _again(family: Mapping[str, str], request: dict[str, Any], attempt: int) -> dict[str, Any]:
    """Return the request of an attempt that follows an interruption."""
    if family["on_interruption"] == ON_DEMAND:
        request = {name: value for name, value in request.items() if name != "capacityProviderStrategy"}
        request["launchType"] = "FARGATE"
    overrides = request["overrides"]
    marked = [
        with_variables(each, {ATTEMPT: attempt}) if INDEX in variables(each) else each
        for each in overrides["containerOverrides"]
    ]
    return {**request, "overrides": {**overrides, "containerOverrides": marked}}


def _found(task: Mapping[str, Any]) -> Found | None:
    for container in task.get("overrides", {}).get("containerOverrides", []):
        told = variables(container)
        if INDEX in told:
            attempt = int(told.get(ATTEMPT, 1))
            return Found(int(told[INDEX]), task["taskArn"], attempt, ended=task["lastStatus"] == ecs.STOPPED)
    return None


def _split(overrides: Mapping[str, Any], container: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the overrides of all other containers, and of this one."""
    said = overrides.get("containerOverrides", [])
    own = next((each for each in said if each.get("name") == container), {"name": container})
    return [each for each in said if each.get("name") != container], own
