"""What a describe call says about an ECS task, as a snapshot. Pure.

- ``stopCode`` is more specific than the containers, of which there may be none if the task never started. A missing
  exit code is not 0.
- Only the task definition says which containers are essential and where they log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_jobflow.jobs.containers import deciding, in_order
from airflow_jobflow.jobs.environment import RESULT_URI, variables
from airflow_jobflow.jobs.maps import ATTEMPT
from airflow_jobflow.jobs.model import Container, JobState, LogStream, Snapshot, iso_seconds
from airflow_jobflow.jobs.reasons import by_aws

STATES = {
    "PROVISIONING": JobState.SUBMITTED,
    "PENDING": JobState.SUBMITTED,
    "ACTIVATING": JobState.SUBMITTED,
    "RUNNING": JobState.RUNNING,
    "DEACTIVATING": JobState.RUNNING,
    "STOPPING": JobState.RUNNING,
    "DEPROVISIONING": JobState.RUNNING,
}
"""The statuses of a task before its end. STOPPED is the end; the stop code and the containers decide the state."""

STOPPED = "STOPPED"

BY_REQUEST = ("UserInitiated", "ServiceSchedulerInitiated")
"""Stop codes of tasks that a person or a service asked ECS to stop."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The parts of a task definition that a snapshot needs.

    :param names: names of all containers, in order; empty if the definition could not be read.
    :param essential: names of the essential ones, in order.
    :param logs: log group, stream prefix and region, by container.
    """

    names: tuple[str, ...] = ()
    essential: tuple[str, ...] = ()
    logs: Mapping[str, tuple[str, str, str | None]] = field(default_factory=dict)


def definition(described: Mapping[str, Any]) -> Definition:
    """Extract what a snapshot needs from a task definition.

    :param described: the definition in a DescribeTaskDefinition response.
    """
    containers = described["containerDefinitions"]
    logs = {}
    for container in containers:
        options = container.get("logConfiguration", {}).get("options", {})
        if "awslogs-group" in options and "awslogs-stream-prefix" in options:
            where = options["awslogs-group"], options["awslogs-stream-prefix"], options.get("awslogs-region")
            logs[container["name"]] = where
    names = tuple(container["name"] for container in containers)
    essential = tuple(container["name"] for container in containers if container.get("essential", True))
    return Definition(names, essential, logs)


def snapshot(task: Mapping[str, Any], made_from: Definition, job_id: str | None = None) -> Snapshot:
    """Convert a task of a DescribeTasks response. A task with an unknown status counts as running.

    :param task: the task as ECS describes it.
    :param made_from: its task definition; an empty one if that is not known.
    :param job_id: the id to use. Default: the task's ARN.
    """
    arn: str = task["taskArn"]
    _, partition, _, region, *_ = (*arn.split(":"), "", "", "")
    task_id = arn.rpartition("/")[2]
    containers = in_order(task.get("containers", []), made_from.names)
    state = _state(task, _essential(containers, made_from))
    container = deciding(containers, made_from.essential, succeeded=state is JobState.SUCCEEDED)
    return Snapshot(
        job_id=job_id or arn,
        name=task_id,
        state=state,
        status=task["lastStatus"],
        code=task.get("stopCode"),
        reason=task.get("stoppedReason"),
        container_reason=container.get("reason"),
        exit_code=container.get("exitCode"),
        attempt=int("startedAt" in task),
        stopped_by_request=task.get("stopCode") in BY_REQUEST and not by_aws(task.get("stoppedReason")),
        created_at=iso_seconds(task.get("createdAt")),
        started_at=iso_seconds(task.get("startedAt")),
        stopped_at=iso_seconds(task.get("stoppedAt")),
        log=log_of(container.get("name", ""), made_from, task_id, region),
        region=region or None,
        partition=partition or "aws",
        definition=task["taskDefinitionArn"],
        queue=task.get("clusterArn"),
        fargate=(task.get("capacityProviderName") or task.get("launchType") or "").startswith("FARGATE"),
        **_used(task),
        containers=tuple(
            Container(
                each["name"],
                each.get("exitCode"),
                each.get("reason"),
                log_of(each["name"], made_from, task_id, region),
                _state(task, [each]),
            )
            for each in containers
            if "name" in each
        ),
    )


def _used(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a snapshot that say what a task used, and the address for its result."""
    given = [variables(each) for each in task.get("overrides", {}).get("containerOverrides", [])]
    used: dict[str, Any] = {"result_uri": next((each[RESULT_URI] for each in given if each.get(RESULT_URI)), None)}
    if "createdAt" in task and any(ATTEMPT in each for each in given):  # the attempts at an item share the address
        used["previous_attempt_ended_at"] = iso_seconds(task["createdAt"] - 1.0)  # at the latest; S3 has whole seconds
    if task["lastStatus"] != STOPPED:
        return used
    begun = task.get("pullStartedAt", task.get("startedAt"))
    sizes = {"vcpu": task.get("cpu"), "gib": task.get("memory")}
    return used | {
        "resources": {unit: int(size) / 1024 for unit, size in sizes.items() if size and size.isdecimal()},
        "run_seconds": max(task["stoppedAt"] - begun, 0.0) if begun and "stoppedAt" in task else 0.0,
        "capacity": task.get("capacityProviderName") or task.get("launchType"),
    }


def _essential(containers: Sequence[Mapping[str, Any]], made_from: Definition) -> Sequence[Mapping[str, Any]]:
    return [each for each in containers if each.get("name") in made_from.essential] or containers


def _state(task: Mapping[str, Any], counted: Sequence[Mapping[str, Any]]) -> JobState:
    """Return the state of a task if these of its containers count."""
    if task["lastStatus"] != STOPPED:
        return STATES.get(task["lastStatus"], JobState.RUNNING)
    exited_with_0 = counted and all(container.get("exitCode") == 0 for container in counted)
    ended_by_itself = task.get("stopCode", "EssentialContainerExited") == "EssentialContainerExited"
    return JobState.SUCCEEDED if exited_with_0 and ended_by_itself else JobState.FAILED


def log_of(container: str, made_from: Definition, task_id: str, region: str | None) -> LogStream | None:
    """Return where a container of a task logs; None if its definition does not say.

    :param container: its name.
    :param made_from: the task's definition.
    :param task_id: the last part of the task's ARN.
    :param region: the task's region.
    """
    if container not in made_from.logs:
        return None
    group, prefix, logs_in = made_from.logs[container]
    return LogStream(group, f"{prefix}/{container}/{task_id}", logs_in if logs_in != region else None)
