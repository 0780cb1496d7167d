"""ECS tasks on Fargate and Fargate Spot.

What ECS does and this module relies on: DescribeTasks takes 100 tasks of one cluster, the scope, and names those it
does not know as failures; a stopped task can be described for about an hour; ``stopCode`` says more than the
containers, of which there may be none if the task never started; an absent exit code is not 0. Which containers are
essential, and where they log, only the task definition says; a revision of it never changes, so it is read once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_jobflow.jobs.answers import read_plainly
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, as_seen, iso_seconds

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import TaskDefinitionTypeDef

log = logging.getLogger(__name__)

CLIENT = "ecs"
NOUN = "Fargate task"
BATCH_SIZE = 100
CALLS = 1
KEPT = "about an hour"

STATES = {
    "PROVISIONING": JobState.SUBMITTED,
    "PENDING": JobState.SUBMITTED,
    "ACTIVATING": JobState.SUBMITTED,
    "RUNNING": JobState.RUNNING,
    "DEACTIVATING": JobState.RUNNING,
    "STOPPING": JobState.RUNNING,
    "DEPROVISIONING": JobState.RUNNING,
}
"""Every status on a task's way; STOPPED is the end, and what it means the verdict says."""

STOPPED = "STOPPED"

BY_REQUEST = ("UserInitiated", "ServiceSchedulerInitiated")
"""Stop codes of tasks that somebody, or something, asked ECS to stop."""

INTERRUPTIONS = ("SpotInterruption", "TerminationNotice")
"""Stop codes of tasks whose capacity AWS has taken back."""

UNREADABLE = ("AccessDeniedException", "ClientException")
"""Codes of DescribeTaskDefinition for a definition that may not be read, or is not there: asking again is no use."""

REASON_LENGTH = 1024
"""The most characters StopTask takes as a reason."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a snapshot needs of a task definition.

    :param essential: names of the essential containers, in order; empty if the definition could not be read.
    :param logs: log group and stream prefix, by container.
    """

    essential: tuple[str, ...] = ()
    logs: tuple[tuple[str, str, str], ...] = ()


_definitions: dict[str, Definition] = {}
"""Definitions by ARN of their revision; a revision never changes."""


def describe(client: ECSClient, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot]:
    """Look at up to 100 tasks of a cluster, the scope, in one DescribeTasks call.

    The ids are ARNs or the last parts of them; answers come by the ids as they were given.
    """
    read_plainly(client, "DescribeTasks", "tasks")
    tasks = client.describe_tasks(cluster=scope or "default", tasks=list(job_ids))["tasks"]
    by_id = {task["taskArn"]: task for task in tasks} | {task["taskArn"].rpartition("/")[2]: task for task in tasks}
    return {
        job_id: snapshot(by_id[job_id], _definition(client, by_id[job_id]), job_id)
        for job_id in job_ids
        if job_id in by_id
    }


def _definition(client: ECSClient, task: Mapping[str, Any]) -> Definition:
    """Read what a task that has ended was made from, unless that is known already."""
    arn = task["taskDefinitionArn"]
    if task["lastStatus"] != STOPPED:
        return Definition()
    if arn not in _definitions:
        try:
            _definitions[arn] = definition(client.describe_task_definition(taskDefinition=arn)["taskDefinition"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in UNREADABLE:
                raise  # a passing fault decides nothing: the task is looked at again
            log.warning("Without its task definition every container of a task counts as essential: %s", error)
            return Definition()
    return _definitions[arn]


def definition(described: TaskDefinitionTypeDef) -> Definition:
    """Take from a task definition what a snapshot needs."""
    containers = described["containerDefinitions"]
    logs = []
    for container in containers:
        options = container.get("logConfiguration", {}).get("options", {})
        if "awslogs-group" in options and "awslogs-stream-prefix" in options:
            logs.append((container["name"], options["awslogs-group"], options["awslogs-stream-prefix"]))
    essential = tuple(container["name"] for container in containers if container.get("essential", True))
    return Definition(essential, tuple(logs))


def snapshot(task: Mapping[str, Any], made_from: Definition, job_id: str | None = None) -> Snapshot:
    """Read one task of a DescribeTasks answer. A status no table knows is a task that is still going."""
    arn: str = task["taskArn"]
    _, partition, _, region, *_ = (*arn.split(":"), "", "", "")
    container = _deciding_container(task, made_from)
    return Snapshot(
        job_id=job_id or arn,
        name=arn.rpartition("/")[2],
        state=_state(task, made_from),
        status=task["lastStatus"],
        code=task.get("stopCode"),
        reason=task.get("stoppedReason"),
        container_reason=container.get("reason"),
        exit_code=container.get("exitCode"),
        attempt=int("startedAt" in task),
        stopped_by_request=task.get("stopCode") in BY_REQUEST,
        created_at=iso_seconds(task.get("createdAt")),
        started_at=iso_seconds(task.get("startedAt")),
        stopped_at=iso_seconds(task.get("stoppedAt")),
        log=_log(task, container, made_from),
        region=region or None,
        partition=partition or "aws",
        definition=task["taskDefinitionArn"],
        queue=task.get("clusterArn"),
    )


def _essential(task: Mapping[str, Any], made_from: Definition) -> list[Mapping[str, Any]]:
    containers = task.get("containers", [])
    return [each for each in containers if each.get("name") in made_from.essential] or list(containers)


def _deciding_container(task: Mapping[str, Any], made_from: Definition) -> Mapping[str, Any]:
    """Return the essential container that tells how the task went: the first that did not end with 0."""
    essential = _essential(task, made_from)
    failed = [container for container in essential if container.get("exitCode") != 0]
    return next(iter(failed or essential), {})


def _state(task: Mapping[str, Any], made_from: Definition) -> JobState:
    if task["lastStatus"] != STOPPED:
        return STATES.get(task["lastStatus"], JobState.RUNNING)
    essential = _essential(task, made_from)
    well = essential and all(container.get("exitCode") == 0 for container in essential)
    by_itself = task.get("stopCode", "EssentialContainerExited") == "EssentialContainerExited"
    return JobState.SUCCEEDED if well and by_itself else JobState.FAILED


def _log(task: Mapping[str, Any], container: Mapping[str, Any], made_from: Definition) -> LogStream | None:
    task_id = task["taskArn"].rpartition("/")[2]
    for name, group, prefix in made_from.logs:
        if name == container.get("name"):
            return LogStream(group, f"{prefix}/{name}/{task_id}")
    return None


def stop(client: ECSClient, job_id: str, scope: str | None, reason: str) -> None:
    """Stop a task; one that has ended, or is gone, stays as it is."""
    try:
        client.stop_task(cluster=scope or "default", task=job_id, reason=reason[:REASON_LENGTH])
    except client.exceptions.InvalidParameterException as error:
        if "not found" not in str(error):
            raise


settled = as_seen


def find(client: ECSClient, cluster: str, started_by: str) -> list[str]:
    """Return the ARNs of the tasks that were started by somebody. Two ListTasks calls: of those that go on, and others.

    Those that have stopped can be found for about an hour.
    """
    return [
        arn
        for desired in ("RUNNING", "STOPPED")
        for arn in client.list_tasks(cluster=cluster, startedBy=started_by, desiredStatus=desired)["taskArns"]
    ]


REQUEST_FIELDS = {
    "cluster": "cluster",
    "task_definition": "taskDefinition",
    "launch_type": "launchType",
    "capacity_provider_strategy": "capacityProviderStrategy",
    "network_configuration": "networkConfiguration",
    "overrides": "overrides",
    "platform_version": "platformVersion",
    "enable_execute_command": "enableExecuteCommand",
    "enable_ecs_managed_tags": "enableECSManagedTags",
    "propagate_tags": "propagateTags",
    "tags": "tags",
    "group": "group",
    "reference_id": "referenceId",
    "volume_configurations": "volumeConfigurations",
}
"""Our parameter for each member of a RunTask request that means something on Fargate."""


def request(values: Mapping[str, Any]) -> dict[str, Any]:
    """Build a RunTask request for one task. What is None is not sent.

    :param values: checked values by our names, see REQUEST_FIELDS.
    """
    return {"count": 1, **{REQUEST_FIELDS[name]: value for name, value in values.items() if value is not None}}


def overrides(values: Mapping[str, Any], container: str | None) -> dict[str, Any] | None:
    """Put what the short forms say into ``overrides``.

    :param values: checked values; of these ``overrides``, ``command``, ``environment``, ``cpu``, ``memory`` and
        ``ephemeral_storage``.
    :param container: whose command and environment are meant.
    """
    result = dict(values.get("overrides") or {})
    for name in ("cpu", "memory"):
        if name in values:
            result[name] = str(values[name])
    if "ephemeral_storage" in values:
        result["ephemeralStorage"] = {"sizeInGiB": values["ephemeral_storage"]}
    short = {name: values[name] for name in ("command", "environment") if name in values}
    if "environment" in short:
        short["environment"] = [{"name": key, "value": str(value)} for key, value in short["environment"].items()]
    if short:
        others = [each for each in result.get("containerOverrides", []) if each.get("name") != container]
        own = [each for each in result.get("containerOverrides", []) if each.get("name") == container]
        result["containerOverrides"] = [*others, {**(own[0] if own else {"name": container}), **short}]
    return result or None


def main_container(client: ECSClient, task_definition: str) -> str:
    """Return the name of a task definition's first essential container. One DescribeTaskDefinition call."""
    described = client.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    return definition(described).essential[0]


def failures(answer: Mapping[str, Any]) -> str:
    """Say why RunTask answered without a task."""
    said = [" ".join(filter(None, (each.get("reason"), each.get("detail")))) for each in answer.get("failures", [])]
    return "; ".join(filter(None, said)) or "RunTask answered with neither a task nor a reason"
