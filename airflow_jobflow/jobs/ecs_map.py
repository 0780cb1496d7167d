"""Maps on ECS: one Fargate task for each item, all started by the group of the task instance.

What ECS does and this module relies on: ListTasks finds by ``startedBy`` the tasks that run, and those that stopped
within about an hour; DescribeTasks returns the variables they were started with, which say of which map and item they
are; a RunTask with the token of one that has started a task starts nothing more. The overrides of a RunTask go to all
its tasks, so that items that differ take a call each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs import ecs
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.environment import variables, with_variables
from airflow_jobflow.jobs.maps import ATTEMPT, INDEX, MAP, Found, Start
from airflow_jobflow.jobs.owner import with_owner_tags
from airflow_jobflow.jobs.tagging import start_tagged

REPEATABLE = True
CHECKPOINT = 900.0

ON_DEMAND = "on_demand"
DESIRED = ("RUNNING", "STOPPED")


def family(cluster: str, group: str, token: str, on_interruption: str, owner: Mapping[str, str]) -> dict[str, Any]:
    """Return how the tasks of a map are told from others, and what an attempt that follows an interruption runs on.

    :param group: of the task instance.
    :param token: of the attempt whose map it is.
    :param owner: the tags that say whose the tasks are.
    """
    return {
        "cluster": cluster,
        "group": group,
        "token": token,
        "on_interruption": on_interruption,
        "owner": dict(owner),
    }


def item(request: dict[str, Any], container: str, index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the RunTask request of an item: the given one, whose container has these variables and its index.

    :param container: whose variables they are.
    """
    overrides = request.get("overrides", {})
    others, said = _split(overrides, container)
    own = with_variables(said, {**environment, INDEX: index})
    return {**request, "overrides": {**overrides, "containerOverrides": [*others, own]}}


def start(call: Call, family: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
    """Run an item's task, and return its ARN. One RunTask call, which may be repeated.

    :raises NotStarted: the answer was that there is no such task now.
    """
    if which.attempt > 1 and family["on_interruption"] == ON_DEMAND:
        request = {name: value for name, value in request.items() if name != "capacityProviderStrategy"}
        request["launchType"] = "FARGATE"
    group, token = _identity(family)
    identity = {"startedBy": group, "clientToken": f"{token}-{which.index}-{which.attempt}-{which.turn}"}
    marked = {**_marked(request, token, which.attempt), **identity}
    own = {tag["key"]: tag["value"] for tag in request.get("tags", [])}
    tags, _ = with_owner_tags(own, family.get("owner", {}))
    return start_tagged(call, ecs.run_task, marked, {**marked, "tags": ecs.tags(tags)} if tags else marked)


def look_up(call: Call, family: Mapping[str, Any], which: Start) -> str | None:  # noqa: ARG001
    """Find nothing: a start without an answer is repeated with its token."""
    return None


def page(call: Call, family: Mapping[str, Any], cursor: Sequence[str] | None) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the tasks a map has started, and say where the next page begins. Two calls."""
    group, token = _identity(family)
    status, *after = cursor or DESIRED[:1]
    where: Any = {"nextToken": after[0]} if after else {}
    answer = call(
        "list_tasks",
        cluster=family["cluster"],
        startedBy=group,
        desiredStatus=status,
        **where,
    )
    arns = answer["taskArns"]
    tasks: Sequence[Any] = call("describe_tasks", cluster=family["cluster"], tasks=arns)["tasks"] if arns else []
    found = [each for task in tasks if (each := _found(task, token))]
    if answer.get("nextToken"):
        return found, [status, answer["nextToken"]]
    return found, [DESIRED[1]] if status == DESIRED[0] else None


def _identity(family: Mapping[str, Any]) -> tuple[str, str]:
    """Return the group and the token of a map. Triggers that were stored before there were groups have a nonce."""
    nonce = family.get("nonce", "")
    return family.get("group", nonce), family.get("token", nonce)


def _marked(request: dict[str, Any], token: str, attempt: int) -> dict[str, Any]:
    """Return a request whose container knows which map and which attempt it is."""
    mark = {MAP: token, **({ATTEMPT: attempt} if attempt > 1 else {})}
    overrides = request["overrides"]
    marked = [
        with_variables(each, mark) if INDEX in variables(each) else each for each in overrides["containerOverrides"]
    ]
    return {**request, "overrides": {**overrides, "containerOverrides": marked}}


def _found(task: Mapping[str, Any], token: str) -> Found | None:
    for container in task.get("overrides", {}).get("containerOverrides", []):
        told = variables(container)
        if INDEX in told and told.get(MAP, token) == token:
            attempt = int(told.get(ATTEMPT, 1))
            return Found(int(told[INDEX]), task["taskArn"], attempt, ended=task["lastStatus"] == ecs.STOPPED)
    return None


def _split(overrides: Mapping[str, Any], container: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the overrides of all other containers, and of this one."""
    said = overrides.get("containerOverrides", [])
    own = next((each for each in said if each.get("name") == container), {"name": container})
    return [each for each in said if each.get("name") != container], own
