"""Maps on ECS: one task for each item; ``startedBy`` of all is the group of the task instance.

This module relies on the following behaviour of ECS:

- ListTasks finds running tasks by ``startedBy``, and those that stopped within about an hour.
- DescribeTasks returns the variables with which tasks were started, which name the map and the item.
- A RunTask whose token was used before starts nothing.
- The overrides of a RunTask apply to all of its tasks, so items that differ take a call each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import ecs
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.ecs_network import awsvpc
from airflow_jobflow.jobs.ecs_snapshot import STOPPED
from airflow_jobflow.jobs.environment import MAX_OVERRIDES_LENGTH, of_item, variables, with_variables
from airflow_jobflow.jobs.maps import INDEX, MAP, Found, Start, history_in
from airflow_jobflow.jobs.owner import with_owner_tags
from airflow_jobflow.jobs.starting import NotStarted, start_tagged

REPEATABLE = True
CHECKPOINT = 900.0

ROOM_FOR_MARKS = 192
"""The most characters of the variables that name the map and the attempt."""

DESIRED = ("RUNNING", "STOPPED")

MEMBERS: Final = {
    "capacity_provider_strategy": "capacityProviderStrategy",
    "launch_type": "launchType",
    "platform_version": "platformVersion",
    "placement_constraints": "placementConstraints",
    "placement_strategy": "placementStrategy",
}
"""The member of a request for each parameter that a later attempt may change. Sizes are in the overrides."""

REPLACES: Final = {
    "capacity_provider_strategy": "launch_type",
    "launch_type": "capacity_provider_strategy",
}
"""What is left out if a parameter is set, because AWS takes only one of the two."""


def job_group(cluster: str, group: str, token: str, owner: Mapping[str, str]) -> dict[str, Any]:
    """Return what identifies the tasks of a map.

    :param cluster: name or ARN of the cluster.
    :param group: of the task instance.
    :param token: of the attempt that started the map.
    :param owner: the owner's tags.
    """
    return {"cluster": cluster, "group": group, "token": token, "owner": dict(owner)}


def item(request: dict[str, Any], container: str, index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the RunTask request of an item, whose container gets more variables and the item's index.

    :param request: the RunTask request of the item.
    :param container: name of the container.
    :param index: the item's index.
    :param environment: variables to add to the container.
    """
    overrides = request.get("overrides", {})
    own = ecs.container_overrides(overrides, container) or {"name": container}
    return {**request, "overrides": ecs.with_container(overrides, with_variables(own, {**environment, INDEX: index}))}


def with_changes(request: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the RunTask request of an item with other values.

    :param request: as ``item`` returned it.
    :param values: the new values by our names of parameters.
    """
    changed = {**request, "overrides": ecs.overrides({"overrides": request["overrides"], **values}, None)}
    changed |= {member: values[name] for name, member in MEMBERS.items() if name in values}
    for name in [each for each in values if each in REPLACES][-1:]:  # the newest of the two
        changed.pop(MEMBERS[REPLACES[name]], None)
    if network := awsvpc(values):
        own = request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
        changed["networkConfiguration"] = {"awsvpcConfiguration": {**own, **network}}
    return changed


def start(call: Call, job_group: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
    """Run an item's task, and return its ARN. One RunTask call, which may be repeated.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param request: as ``item`` returned it.
    :param which: the item, and the attempt at it.
    :raises NotStarted: the response has no task; or another triggerer has started the attempt with another request.
    :raises CallError: it was not started, or the response was lost.
    """
    request = with_changes(request, which.values)
    group, token = _identity(job_group)
    identity = {"startedBy": group, "clientToken": f"{token}-{which.index}-{which.attempt}-{which.turn}"}
    marked = {**_marked(request, token, which, job_group), **identity}
    own = {tag["key"]: tag["value"] for tag in request.get("tags", [])}
    tags, _ = with_owner_tags(own, job_group.get("owner", {}))
    try:
        return start_tagged(call, ecs.run_task, marked, {**marked, "tags": ecs.tags(tags)} if tags else marked)
    except CallError as error:
        if error.code != ecs.TOKEN_IN_USE:
            raise
        raise NotStarted(str(error), Fault.TRANSIENT) from error  # the tasks are listed before anything else is started


def find_submitted(call: Call, job_group: Mapping[str, Any], which: Start) -> str | None:  # noqa: ARG001
    """Return None: a start whose response was lost is repeated with its token.

    :param call, job_group, which: ignored.
    """
    return None


def page(
    call: Call, job_group: Mapping[str, Any], cursor: Sequence[str] | None
) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the tasks that a map has started. Two calls.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param cursor: where the page begins; None for the first.
    :return: the tasks, and where the next page begins; None if there is none.
    """
    group, token = _identity(job_group)
    status, *after = cursor or DESIRED[:1]
    where: Any = {"nextToken": after[0]} if after else {}
    answer = call(
        "list_tasks",
        cluster=job_group["cluster"],
        startedBy=group,
        desiredStatus=status,
        **where,
    )
    arns = answer["taskArns"]
    tasks: Sequence[Any] = call("describe_tasks", cluster=job_group["cluster"], tasks=arns)["tasks"] if arns else []
    found = [each for task in tasks if (each := _found(task, token))]
    if answer.get("nextToken"):
        return found, [status, answer["nextToken"]]
    return found, [DESIRED[1]] if status == DESIRED[0] else None


def _identity(job_group: Mapping[str, Any]) -> tuple[str, str]:
    """Return the group and the token of a map. Triggers of an older version have a ``nonce`` instead."""
    nonce = job_group.get("nonce", "")
    return job_group.get("group", nonce), job_group.get("token", nonce)


def _marked(request: dict[str, Any], token: str, which: Start, job_group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request whose container gets variables that name the map and the attempt, and those of the map."""
    mark = {MAP: token, **which.marks}
    overrides = request["overrides"]
    room = MAX_OVERRIDES_LENGTH - len(json.dumps(overrides)) - ROOM_FOR_MARKS
    marked = [
        of_item(with_variables(each, mark), job_group, which.index, room) if INDEX in variables(each) else each
        for each in overrides["containerOverrides"]
    ]
    return {**request, "overrides": {**overrides, "containerOverrides": marked}}


def _found(task: Mapping[str, Any], token: str) -> Found | None:
    for container in task.get("overrides", {}).get("containerOverrides", []):
        values = variables(container)
        if INDEX in values and values.get(MAP, token) == token:
            ended = task["lastStatus"] == STOPPED
            return Found(int(values[INDEX]), task["taskArn"], history_in(values), ended=ended)
    return None
