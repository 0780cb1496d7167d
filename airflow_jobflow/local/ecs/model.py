"""The decisions of ECS about tasks, as pure functions of plain data.

Invariants: nothing here reads a clock or changes its arguments. Members of ECS's API have their names in the API.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_jobflow.local.batch.model import merged

PROVISIONING: Final = "PROVISIONING"
PENDING: Final = "PENDING"
ACTIVATING: Final = "ACTIVATING"
RUNNING: Final = "RUNNING"
DEACTIVATING: Final = "DEACTIVATING"
STOPPING: Final = "STOPPING"
DEPROVISIONING: Final = "DEPROVISIONING"
STOPPED: Final = "STOPPED"

STATUSES: Final = (
    PROVISIONING,
    PENDING,
    ACTIVATING,
    RUNNING,
    DEACTIVATING,
    STOPPING,
    DEPROVISIONING,
    STOPPED,
)
"""The statuses of a task in order. A task that never ran skips those before DEPROVISIONING."""
NOT_YET_RUNNING: Final = frozenset({PROVISIONING, PENDING, ACTIVATING})

FAILED_TO_START: Final = "TaskFailedToStart"
CONTAINER_EXITED: Final = "EssentialContainerExited"
USER: Final = "UserInitiated"
SPOT: Final = "SpotInterruption"

REASONS: Final[Mapping[str, str]] = {
    FAILED_TO_START: "Task failed to start",
    CONTAINER_EXITED: "Essential container in task exited",
    USER: "Task stopped by user",
    "ServiceSchedulerInitiated": "Scaling activity initiated by (deployment ecs-svc/1234567890123456789)",
    SPOT: "Your Spot Task was interrupted.",
    "TerminationNotice": "Your Spot Task was interrupted.",
    "InfrastructureHealth": "Task stopped because the underlying infrastructure is unhealthy",
}
"""The usual `stoppedReason` for each `stopCode`."""
WITHOUT_WARNING: Final = frozenset({FAILED_TO_START, "InfrastructureHealth"})
"""Stop codes with which containers are killed immediately and have no exit code."""

CAPACITY_UNAVAILABLE: Final = (
    "Capacity is unavailable at this time. Please try again later or in a different availability zone"
)
MISSING: Final = "MISSING"

FARGATE: Final = "FARGATE"
EC2: Final = "EC2"
EXTERNAL: Final = "EXTERNAL"
AWSVPC: Final = "awsvpc"
PROVIDERS: Final = ("FARGATE", "FARGATE_SPOT")
"""The capacity providers of Fargate. All others have instances."""
PLATFORM_VERSION: Final = "1.4.0"
MAX_DESCRIBED: Final = 100
MAX_LISTED: Final = 100
MAX_STARTED: Final = 10
DEFINITION: Final = re.compile(
    r"(?:arn:[\w-]+:ecs:[\w-]+:\d{12}:task-definition/)?(?P<family>[\w-]{1,255})(?::(?P<revision>\d+))?"
)

Json = dict[str, Any]


def placements(strategy: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return the capacity provider of each task of a RunTask call: first by `base`, then by `weight`.

    Each call is computed separately, so a single task goes to the provider with a base, or else the largest weight.

    :param strategy: the capacity provider strategy.
    :param count: the number of tasks.
    """
    chosen: list[str] = []
    shares: Counter[str] = Counter()
    base = next((item for item in strategy if item.get("base", 0) > 0), None)
    weighted = [item for item in strategy if item.get("weight", 0) > 0] or strategy[:1]
    for number in range(count):
        if base is not None and number < base["base"]:
            chosen.append(base["capacityProvider"])
            continue
        item = min(weighted, key=lambda each: (shares[each["capacityProvider"]] + 1) / (each.get("weight", 0) or 1))
        shares[item["capacityProvider"]] += 1
        chosen.append(item["capacityProvider"])
    return chosen


def supports(definition: Mapping[str, Any], launch_type: str) -> bool:
    """Return whether a task definition supports a launch type: it requires it, or has the necessary properties.

    :param definition: the task definition.
    :param launch_type: the launch type.
    """
    if launch_type == EC2:
        return True
    is_awsvpc = definition.get("networkMode") == AWSVPC
    if launch_type == EXTERNAL:
        return not is_awsvpc
    required = definition.get("requiresCompatibilities")
    return FARGATE in required if required else is_awsvpc and bool(definition.get("cpu") and definition.get("memory"))


def is_spot(provider: str | None) -> bool:
    """Return whether a capacity provider has Spot capacity: its name says so.

    :param provider: the name of the capacity provider, or None.
    """
    return "spot" in (provider or "").lower()


OVERRIDABLE: Final = ("command", "cpu", "memory", "memoryReservation", "resourceRequirements")
"""The members of a container that its overrides replace."""


def overridden(container: Mapping[str, Any], overrides: Mapping[str, Any]) -> Json:
    """Return a container definition with its overrides.

    :param container: the container definition.
    :param overrides: the overrides of the task.
    """
    named = {each.get("name"): each for each in overrides.get("containerOverrides", ())}
    own: Mapping[str, Any] = named.get(container["name"], {})
    result = {**container, **{name: own[name] for name in OVERRIDABLE if name in own}}
    result["environment"] = merged(container.get("environment", ()), own.get("environment", ()), "name")
    return result


def arguments(container: Mapping[str, Any]) -> list[str]:
    """Return the command of a container. There are no images, so the definition must contain it.

    :param container: the container definition.
    """
    return [*(container.get("entryPoint") or ()), *(container.get("command") or ())]


def shown_overrides(definition: Mapping[str, Any], overrides: Mapping[str, Any]) -> Json:
    """Return ``overrides`` as in DescribeTasks, with an entry for every container.

    :param definition: the task definition.
    :param overrides: the overrides of the request.
    """
    given = {each["name"]: each for each in overrides.get("containerOverrides", ())}
    containers = [given.get(each["name"], {"name": each["name"]}) for each in definition["containerDefinitions"]]
    return {**overrides, "containerOverrides": containers, "inferenceAcceleratorOverrides": []}


def name_of(identifier: str) -> str:
    """Return the name at the end of an ARN; other texts unchanged.

    :param identifier: an ARN or a name.
    """
    return identifier.rsplit("/", 1)[-1]
