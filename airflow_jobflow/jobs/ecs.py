"""ECS tasks, on Fargate and on instances.

This module relies on the following behaviour of ECS:

- DescribeTasks takes 100 tasks of one cluster, the scope, and returns unknown ones as failures.
- A stopped task can be described for about an hour.
- A revision of a task definition never changes, so it is read once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_jobflow.faults import CallError, Fault, classify_failure
from airflow_jobflow.jobs.attempt import TRY_TAG, Try
from airflow_jobflow.jobs.calls import Call, member, pages, remembered
from airflow_jobflow.jobs.ecs_snapshot import STOPPED, Definition, definition, log_of, snapshot
from airflow_jobflow.jobs.environment import MAX_OVERRIDES_LENGTH, RESULT_URI, variables, with_context, with_variables
from airflow_jobflow.jobs.model import Container, JobState, Snapshot, container_streams
from airflow_jobflow.jobs.reattach import SKEW, Found
from airflow_jobflow.jobs.starting import NotStarted

log = logging.getLogger(__name__)

CLIENT = "ecs"
DISPLAY_NAME = "ECS task"
BATCH_SIZE = 100
RETENTION = "about an hour"

UNREADABLE = (Fault.DENIED, Fault.REJECTED)
"""Faults of DescribeTaskDefinition for a definition that the role may not read, or that does not exist."""

UNREADABLE_FOR = 300.0
"""Seconds for which an unreadable definition is not requested again: otherwise every stopped task would request it."""

REASON_LENGTH = 1024
"""The most characters of a reason for StopTask."""

_definitions: dict[str, Definition] = {}
"""Definitions by ARN of their revision; a revision never changes."""

_unreadable_until: dict[str, float] = {}
"""When an unreadable definition is requested again, by ARN, in seconds of the monotonic clock."""


def describe(call: Call, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot]:
    """Describe up to 100 tasks of a cluster in one DescribeTasks call.

    :param call: makes the API calls.
    :param job_ids: ARNs, or their last parts.
    :param scope: name or ARN of the cluster; None for the default cluster.
    :return: snapshots by the given ids, without unknown ids.
    """
    tasks = call("describe_tasks", cluster=scope or "default", tasks=list(job_ids))["tasks"]
    by_id = {task["taskArn"]: task for task in tasks} | {task["taskArn"].rpartition("/")[2]: task for task in tasks}
    known = [job_id for job_id in job_ids if job_id in by_id]
    return {job_id: snapshot(by_id[job_id], _definition(call, by_id[job_id]), job_id) for job_id in known}


def _definition(call: Call, task: Mapping[str, Any]) -> Definition:
    """Return the definition of a task that has ended; an empty one for other tasks."""
    return _read_definition(call, task["taskDefinitionArn"]) if task["lastStatus"] == STOPPED else Definition()


def _read_definition(call: Call, arn: str) -> Definition:
    """Return a task definition, which is read once; an empty one if it cannot be read."""
    if arn not in _definitions:
        if time.monotonic() < _unreadable_until.get(arn, 0.0):
            return Definition()
        try:
            _definitions[arn] = _describe_definition(call, arn)
        except CallError as error:
            if error.fault not in UNREADABLE:
                raise  # transient: the task is described again
            _unreadable_until[arn] = time.monotonic() + UNREADABLE_FOR
            log.warning("Treating every container as essential, because the task definition is unreadable: %s", error)
            return Definition()
    return _definitions[arn]


def _describe_definition(call: Call, name: str) -> Definition:
    """Describe a task definition, at most once a minute: RunTask rejects a container that a newer revision lacks."""

    def read() -> Definition:
        try:
            return definition(call("describe_task_definition", taskDefinition=name)["taskDefinition"])
        except CallError as error:
            error.sent = False  # nothing was started, even if the response was lost
            raise

    return remembered(call, ("task definition", name), read)


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:
    """Stop a task. Does nothing if it has ended or does not exist any more.

    :param call: makes the API calls.
    :param job_id: ARN of the task, or its last part.
    :param scope: name or ARN of the cluster; None for the default cluster.
    :param reason: becomes the task's ``stoppedReason``.
    """
    try:
        call("stop_task", cluster=scope or "default", task=job_id, reason=reason[:REASON_LENGTH])
    except CallError as error:
        if error.code != "InvalidParameterException" or "not found" not in error.message:
            raise


def with_final_details(call: Call, snapshot: Snapshot) -> Snapshot:
    """Add where a running task logs, which only its definition says. At most one call.

    :param call: makes the API calls.
    :param snapshot: the last one of the task.
    :raises CallError: the definition cannot be read.
    """
    if snapshot.state.ended or not snapshot.definition:
        return snapshot
    made_from, task_id = _read_definition(call, snapshot.definition), snapshot.name
    logs = {name: log_of(name, made_from, task_id, snapshot.region) for name in made_from.names}
    containers = tuple(Container(name, log=stream) for name, stream in logs.items())
    return replace(snapshot, containers=containers, log=logs.get(next(iter(made_from.essential), "")))


log_streams = container_streams


def find_group(call: Call, cluster: str, group: str) -> list[Found]:
    """Return the tasks of a group, with the tries that started them. Three calls: stopped ones are listed separately.

    A listed task counts as started even if it cannot be described yet. Stopped ones can be found for about an hour.

    :param call: makes the API calls.
    :param cluster: name or ARN of the cluster.
    :param group: of the task instance, in ``startedBy``.
    """
    return [Found(job, Try.read(tag.partition("-")[0])) for job, tag in _tasks_of(call, cluster, group)]


def find(call: Call, cluster: str, group: str, token: str, since: float) -> str | None:
    """Return the ARN of the task that an attempt has started, or None. As many calls as ``find_group``.

    :param call, cluster, group: see ``find_group``.
    :param token: of the attempt.
    :param since: when the attempt began, in seconds since the epoch. If the role may not tag, the task carries no
        token. Then a task counts as the attempt's if it was created since, and still runs or has succeeded.
    """
    for job, tag in _tasks_of(call, cluster, group):
        is_recent = not job.created_at or datetime.fromisoformat(job.created_at).timestamp() >= since - SKEW
        may_match = not tag and is_recent and job.state is not JobState.FAILED and not job.stopped_by_request
        if tag.partition("-")[2] == token or may_match:
            return job.job_id
    return None


def _tasks_of(call: Call, cluster: str, group: str) -> list[tuple[Snapshot, str]]:
    """Return the tasks of a group, each with the value of its ``TRY_TAG``; empty if it has none."""
    arns = [
        arn
        for desired in ("RUNNING", "STOPPED")
        for page in pages(call, "list_tasks", cluster=cluster, startedBy=group, desiredStatus=desired)
        for arn in page["taskArns"]
    ]
    found = []
    for start in range(0, len(arns), BATCH_SIZE):
        part = arns[start : start + BATCH_SIZE]
        tasks = call("describe_tasks", cluster=cluster, tasks=part, include=["TAGS"])["tasks"]
        by_arn = {task["taskArn"]: task for task in tasks}
        for arn in part:
            task = by_arn.get(arn)
            unseen = Snapshot(arn, JobState.SUBMITTED, JobState.SUBMITTED)
            tags = {tag.get("key"): tag.get("value", "") for tag in (task or {}).get("tags", [])}
            job = snapshot(task, _definition(call, task)) if task else unseen
            found.append((job, tags.get(TRY_TAG, "")))
    return found


TASK_SIZE = {"cpu": "cpu", "memory": "memory", "ephemeral_storage": "ephemeralStorage"}
"""Our short form of each member of ``overrides`` that applies to the whole task."""

OF_CONTAINER = {"command": "command", "environment": "environment", "gpus": "resourceRequirements"}
"""The same for a container. The environment is set by variable."""


def overrides(values: Mapping[str, Any], container: str | None) -> dict[str, Any] | None:
    """Return ``overrides`` with the values of the short forms.

    :param values: validated values by our names. Used are ``overrides``, ``command``, ``environment``, ``gpus``,
        ``cpu``, ``memory`` and ``ephemeral_storage``.
    :param container: the container of ``command``, ``environment`` and ``gpus``.
    """
    result = dict(values.get("overrides") or {})
    for name in ("cpu", "memory"):
        if name in values:
            result[name] = str(values[name])
    if "ephemeral_storage" in values:
        result["ephemeralStorage"] = {"sizeInGiB": values["ephemeral_storage"]}
    if not OF_CONTAINER.keys() & values.keys():
        return result or None
    own = dict(container_overrides(result, container) or {"name": container})
    if "command" in values:
        own["command"] = values["command"]
    if "gpus" in values:
        own["resourceRequirements"] = [{"type": "GPU", "value": str(values["gpus"])}]
    if "environment" in values:
        own = with_variables(own, values["environment"])
    return with_container(result, own)


def container_overrides(overrides: Mapping[str, Any], container: str | None) -> Mapping[str, Any]:
    """Return the overrides of a container; empty if there are none.

    :param overrides: the ``overrides`` of the request.
    :param container: name of the container.
    """
    containers: Sequence[Mapping[str, Any]] = overrides.get("containerOverrides", [])
    return next((each for each in containers if each.get("name") == container), {})


def with_job_variables(
    overrides: Mapping[str, Any], container: str, uri: str | None, context: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Return ``overrides`` with the variables that say where a container writes its result, and that name its task.

    :param overrides: the ``overrides`` of the request.
    :param container: name of the container.
    :param uri: the address of the result; None for none.
    :param context: the variables that name the task, see ``environment.with_context``.
    :return: the overrides, and the names of the variables that did not fit.
    """
    own = dict(container_overrides(overrides, container) or {"name": container})
    own = with_variables(own, {RESULT_URI: uri}) if uri else own
    own, left_out = with_context(own, context, MAX_OVERRIDES_LENGTH - len(json.dumps(with_container(overrides, own))))
    return with_container(overrides, own), left_out


def with_container(overrides: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides in which those of one container are replaced.

    :param overrides: the ``overrides`` of the request.
    :param own: the new overrides of the container that they name.
    """
    others = [each for each in overrides.get("containerOverrides", []) if each.get("name") != own["name"]]
    return {**overrides, "containerOverrides": [*others, own]}


def duplicates(short: Mapping[str, Any], overrides: Mapping[str, Any], container: str | None) -> list[str]:
    """Return the short forms that ``overrides`` also set.

    :param short: validated values by our names, such as ``command``, ``environment`` and ``cpu``.
    :param overrides: the ``overrides`` of the request.
    :param container: the container of ``command`` and ``environment``; None if it is not known yet.
    """
    own = container_overrides(overrides, container)
    both = {name for name, member in TASK_SIZE.items() if member in overrides}
    both |= {name for name, member in OF_CONTAINER.items() if member in own} - {"environment"}
    if variables(own).keys() & short.get("environment", {}).keys():
        both.add("environment")
    return [name for name in short if name in both]


def main_container(call: Call, task_definition: str) -> str:
    """Return the name of a task definition's first essential container. At most one DescribeTaskDefinition call.

    :param call: makes the API calls.
    :param task_definition: family, family with revision, or ARN.
    """
    return _describe_definition(call, task_definition).essential[0]


def main_container_if_readable(call: Call, task_definition: str) -> str | None:
    """Return the first essential container, or None if the definition cannot be read. One call a minute at most.

    :param call: makes the API calls.
    :param task_definition: family, family with revision, or ARN.
    """

    def read() -> str | None:
        try:
            return main_container(call, task_definition)
        except CallError as error:
            if error.fault not in UNREADABLE:
                raise
            log.info("ECS tasks get no AIRFLOW_CTX variables, because their task definition cannot be read: %s", error)
            return None

    return remembered(call, ("main container", task_definition), read)


def container_names(call: Call, task_definition: str) -> list[str]:
    """Return the names of a task definition's containers, in order. At most one DescribeTaskDefinition call.

    :param call: makes the API calls.
    :param task_definition: family, family with revision, or ARN.
    """
    return list(_describe_definition(call, task_definition).names)


def tags(by_name: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form of ECS.

    :param by_name: values by name.
    """
    return [{"key": name, "value": value} for name, value in by_name.items()]


def run_task(call: Call, request: Mapping[str, Any]) -> str:
    """Run a task, and return its ARN. One RunTask call. With a ``clientToken`` it is idempotent.

    :param call: makes the API calls.
    :param request: the RunTask request.
    :raises NotStarted: the response has no task.
    :raises CallError: it was not started, or the response was lost.
    """
    return started(call("run_task", **request))


def started(response: Mapping[str, Any]) -> str:
    """Return the ARN of the task that a RunTask call has started.

    :param response: of the call.
    :raises NotStarted: it has no task.
    :raises CallError: it is unreadable.
    """
    tasks = member(response, "tasks", "RunTask")
    if not tasks:
        raise _not_started(response)
    return str(tasks[0]["taskArn"])


def _not_started(response: Mapping[str, Any]) -> NotStarted:
    """Return the error for a RunTask response without a task. It has a failure for each instance of the cluster."""
    failures = [(each.get("reason") or "", each.get("detail") or "") for each in response.get("failures", [])]
    reasons = "; ".join(dict.fromkeys(" ".join(filter(None, failure)) for failure in failures if any(failure)))
    faults = [classify_failure(*failure) for failure in failures] or [Fault.TRANSIENT]
    fault = Fault.NO_CAPACITY if Fault.NO_CAPACITY in faults else faults[0]
    return NotStarted(reasons or "RunTask returned neither a task nor a reason", fault)
