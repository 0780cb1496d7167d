"""What ECS rejects, as pure functions that return the reason.

Invariants: nothing here changes its arguments. Members of ECS's API have their names in the API.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.jobs.fargate_sizes import CPU, MEMORY, is_size, units
from airflow_jobflow.local.ecs.model import (
    AWSVPC,
    FARGATE,
    MAX_LISTED,
    PENDING,
    PLATFORM_VERSION,
    PROVIDERS,
    RUNNING,
    STOPPED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PLATFORM_VERSIONS: Final = frozenset({"LATEST", "1.3.0", PLATFORM_VERSION})
COUNTS: Final = range(1, 11)
MAX_OVERRIDES: Final = 8192
CLIENT_TOKEN: Final = re.compile(r"[!-~]{1,64}")
LONGEST_STARTED_BY: Final = 128
FAMILY: Final = re.compile(r"[\w-]{1,255}", re.ASCII)
MAX_CONSTRAINTS: Final = 10
MAX_STRATEGIES: Final = 5
TASK_IDS: Final = (32, 36)
"""The possible lengths of a task's id."""


def _strategy(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return request.get("capacityProviderStrategy") or ()


def _constraints(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return request.get("placementConstraints") or ()


RUN_RULES: Final[Sequence[tuple[Callable[[Mapping[str, Any]], bool], str]]] = (
    (lambda it: it.get("count", 1) not in COUNTS, "count must be between 1 and 10"),
    (
        lambda it: "clientToken" in it and not CLIENT_TOKEN.fullmatch(it["clientToken"]),
        "clientToken must be 1 to 64 characters in the range of 33-126",
    ),
    (
        lambda it: len(it.get("startedBy", "")) > LONGEST_STARTED_BY,  # AWS accepts more characters than documented
        f"startedBy must be up to {LONGEST_STARTED_BY} characters",
    ),
    (
        lambda it: bool(it.get("launchType")) and bool(_strategy(it)),
        "Specify either Launch Type or Capacity Provider Strategy, but not both.",
    ),
    (
        lambda it: it.get("platformVersion", PLATFORM_VERSION) not in PLATFORM_VERSIONS,
        "The specified platform version does not exist.",
    ),
    (
        lambda it: it.get("propagateTags") == "SERVICE",
        "Tags can only be propagated from the task definition when running a task.",
    ),
    (
        lambda it: len(json.dumps(it.get("overrides", {}), separators=(",", ":"))) > MAX_OVERRIDES,
        f"Container Overrides length must be at most {MAX_OVERRIDES}",
    ),
    (
        lambda it: len({item["capacityProvider"] in PROVIDERS for item in _strategy(it)}) > 1,
        (
            "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and "
            "Fargate providers."
        ),
    ),
    (
        lambda it: it.get("launchType") == "MANAGED_INSTANCES",
        "Managed instances require a capacity provider strategy.",
    ),
    (
        lambda it: len(_constraints(it)) > MAX_CONSTRAINTS,
        f"placementConstraints can have at most {MAX_CONSTRAINTS} entries",
    ),
    (
        lambda it: len(it.get("placementStrategy") or ()) > MAX_STRATEGIES,
        f"placementStrategy can have at most {MAX_STRATEGIES} entries",
    ),
    (
        lambda it: any(each.get("type") == "memberOf" and not each.get("expression") for each in _constraints(it)),
        "The constraint memberOf requires an expression.",
    ),
)
"""Invalid values that RunTask rejects, with AWS's messages where they are known."""


def run_error(request: Mapping[str, Any]) -> str | None:
    """Return why RunTask rejects a request because of its values, or None.

    :param request: the request.
    """
    return next((why for rejects, why in RUN_RULES if rejects(request)), None)


def list_error(request: Mapping[str, Any]) -> str | None:
    """Return why ListTasks rejects a request, or None.

    :param request: the request.
    """
    if request.get("startedBy") and any(
        request.get(name) for name in ("family", "serviceName", "containerInstance", "launchType", "daemonName")
    ):
        return "cannot specify startedBy with other arguments"
    if not 1 <= request.get("maxResults", MAX_LISTED) <= MAX_LISTED:
        return f"maxResults must be between 1 and {MAX_LISTED}"
    if request.get("desiredStatus", RUNNING) not in (RUNNING, PENDING, STOPPED):
        return "desiredStatus must be RUNNING, PENDING or STOPPED"
    return None


def strategy_error(strategy: Sequence[Mapping[str, Any]], associated: Sequence[str]) -> str | None:
    """Return why a cluster rejects a capacity provider strategy, or None.

    :param strategy: the strategy.
    :param associated: the capacity providers of the cluster.
    """
    names = [item["capacityProvider"] for item in strategy]
    if unknown := [name for name in names if name not in associated]:
        if all(name in PROVIDERS for name in unknown):
            return (
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated "
                "with the cluster. Associate the capacity provider with the cluster or specify a valid capacity "
                "provider and try again."
            )
        return "The specified capacity provider was not found. Specify a valid capacity provider and try again."
    if len(set(names)) < len(names):
        return "The specified capacity provider strategy cannot contain duplicate capacity providers."
    if sum(item.get("base", 0) > 0 for item in strategy) > 1:
        return "The specified capacity provider strategy cannot have more than one capacity provider with a base."
    if len(strategy) > 1 and not any(item.get("weight", 0) for item in strategy):
        return "At least one capacity provider of a strategy must have a weight greater than zero."
    return None


def definition_error(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """Return why Fargate rejects a task definition with overrides (a ClientException), or None.

    :param definition: the task definition.
    :param request: the request of RunTask.
    """
    overrides = request.get("overrides", {})
    for name in ("cpu", "memory"):
        if not (definition.get(name) or overrides.get(name)):
            return f"Fargate requires that '{name}' be defined at the task level."
    return size_error(definition, overrides)


def containers_error(definition: Mapping[str, Any]) -> str | None:
    """Return why ECS rejects the family or the containers of a task definition (a ClientException), or None.

    :param definition: the task definition.
    """
    if not FAMILY.fullmatch(definition["family"]):
        return "Family contains invalid characters."
    containers = definition["containerDefinitions"]
    if not containers:
        return "Container list cannot be empty."
    missing = (name for container in containers for name in ("name", "image") if not container.get(name))
    return next((f"Container.{name} should not be null or empty." for name in missing), None)


def fargate_error(definition: Mapping[str, Any]) -> str | None:
    """Return why Fargate rejects a task definition that requires it (a ClientException), or None.

    :param definition: the task definition.
    """
    if (mode := definition.get("pidMode", "task")) != "task":
        rule = f"do not support pidMode '{mode}'. The supported value for pidMode is 'task'."
        return f"Tasks using the Fargate launch type {rule}"
    return size_error(definition, {}) or role_error(definition)


def role_error(definition: Mapping[str, Any]) -> str | None:
    """Return that Fargate needs an execution role to write the log of a task, or None.

    :param definition: the task definition.
    """
    drivers = {each.get("logConfiguration", {}).get("logDriver") for each in definition["containerDefinitions"]}
    if "awslogs" not in drivers or definition.get("executionRoleArn"):
        return None
    return "Fargate requires task definition to have execution role ARN to support log driver awslogs."


def size_error(definition: Mapping[str, Any], overrides: Mapping[str, Any]) -> str | None:
    """Return why Fargate does not have the size of a task, or None.

    :param definition: the task definition.
    :param overrides: the overrides of the task.
    """
    cpu, memory = (overrides.get(name) or definition.get(name) for name in ("cpu", "memory"))
    if not cpu or not memory or is_size(cpu, memory):
        return None
    return f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory."


def memory_error(definition: Mapping[str, Any]) -> str | None:
    """Return that a container has no memory, which it or the task definition must have, or None.

    :param definition: the task definition.
    """
    if definition.get("memory"):
        return None
    containers = definition["containerDefinitions"]
    without = (each["name"] for each in containers if not (each.get("memory") or each.get("memoryReservation")))
    rule = "At least one of 'memory' or 'memoryReservation' must be specified."
    return next((f"Invalid setting for container '{name}'. {rule}" for name in without), None)


def instance_size_error(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """Return that the size of a task on an instance is invalid (a ClientException), or None.

    :param definition: the task definition.
    :param request: the request of RunTask or StartTask.
    """
    for name, pattern in {"cpu": CPU, "memory": MEMORY}.items():
        size = request.get("overrides", {}).get(name) or definition.get(name)
        if size and units(pattern, size) < 1:
            return f"Invalid '{name}' setting for task."
    return None


def launch_type_error(request: Mapping[str, Any], launch_type: str) -> str | None:
    """Return why a launch type does not support a request (an InvalidParameterException), or None.

    :param request: the request of RunTask or StartTask.
    :param launch_type: the launch type.
    """
    if launch_type == FARGATE:
        is_placed = _constraints(request) or request.get("placementStrategy")
        return "Task placement is not supported with launch type FARGATE." if is_placed else None
    if request.get("platformVersion"):
        return f"The platform version must be null when specifying an {launch_type} launch type."
    if request.get("networkConfiguration", {}).get("awsvpcConfiguration", {}).get("assignPublicIp") == "ENABLED":
        return "Assign public IP is not supported for this launch type."
    return None


def request_error(definition: Mapping[str, Any], request: Mapping[str, Any], launch_type: str) -> str | None:
    """Return why a request does not match its task definition (an InvalidParameterException), or None.

    :param definition: the task definition.
    :param request: the request of RunTask or StartTask.
    :param launch_type: the launch type.
    """
    network = request.get("networkConfiguration", {}).get("awsvpcConfiguration")
    if launch_type == FARGATE or definition.get("networkMode") == AWSVPC:
        if network is None:
            return "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        if not network.get("subnets"):
            return "subnets can not be empty."
    elif network is not None:
        return "Network Configuration is not valid for the given networkMode of this task definition."
    names = {container["name"] for container in definition["containerDefinitions"]}
    for override in request.get("overrides", {}).get("containerOverrides", ()):
        if override.get("name") not in names:
            return f"Override for container named {override.get('name')} is not a container in the TaskDefinition."
    return None


def foreign_arn_error(identifier: str, account: str, region: str) -> str | None:
    """Return that an ARN belongs to another account or region, or None.

    :param identifier: an ARN, or a name.
    :param account: the account here.
    :param region: the region here.
    """
    parts = identifier.split(":")
    if parts[0] != "arn":
        return None
    if len(parts) < 6:  # noqa: PLR2004 -- arn, partition, service, region, account, resource
        return f"Invalid identifier: {identifier}"
    if parts[3] != region:
        return f"Invalid identifier: Identifier is for {parts[3]}. Your region is {region}"
    if parts[4] != account:
        return f"Invalid identifier: Identifier is for account {parts[4]}. Your accountId is {account}"
    return None


def task_error(identifier: str, account: str, region: str, cluster: str) -> str | None:
    """Return why an id or ARN cannot be that of a task, or None.

    :param identifier: the id or ARN.
    :param account: the account here.
    :param region: the region here.
    :param cluster: the name of the cluster.
    """
    if why := foreign_arn_error(identifier, account, region):
        return why
    parts = identifier.rsplit("/", 2)
    if identifier.startswith("arn:"):
        if ":task/" not in identifier:
            return "Invalid identifier: Identifier is not for a task."
        if len(parts) > 2 and parts[1] != cluster:  # noqa: PLR2004 -- the prefix, the cluster, the id
            return f"Invalid identifier: Identifier is for cluster {parts[1]}. Your cluster is {cluster}"
    elif len(parts) > 1:
        return "Invalid identifier: Unexpected number of separators"
    if len(parts[-1]) not in TASK_IDS:
        return "taskId length should be one of [32,36]"
    return None
