"""The decisions of AWS Batch, as pure functions of plain data.

Invariants: nothing here reads a clock or changes its arguments. Members of Batch's API have their names in the API.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SUBMITTED: Final = "SUBMITTED"
PENDING: Final = "PENDING"
RUNNABLE: Final = "RUNNABLE"
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"

STATUSES: Final = (SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED, FAILED)
ENDED: Final = frozenset({SUCCEEDED, FAILED})
CANCELLABLE: Final = frozenset({SUBMITTED, PENDING, RUNNABLE})
"""Statuses in which CancelJob ends a job. Later, only TerminateJob does."""

CONTAINER_EXITED: Final = "Essential container in task exited"
FAILED_TO_START: Final = "Task failed to start"
TIMED_OUT: Final = "Job attempt duration exceeded timeout"
DEPENDENCY_FAILED: Final = "Dependent Job failed"
CHILD_FAILED: Final = "Array Child Job failed"
OVERRIDES_TOO_LONG: Final = "Container Overrides length must be at most 8192"
MISCONFIGURED: Final = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_DISABLED - no compute environment of the job queue is enabled"
)

JOB_ID: Final = re.compile(r"[a-zA-Z_0-9-]{1,128}([:#]\d{1,5})?")
REFERENCE: Final = re.compile(r"Ref::([A-Za-z0-9_.-]+)")
MAX_DESCRIBED: Final = 100
MAX_LISTED: Final = 100
MAX_OVERRIDES: Final = 8192
FILTERS: Final = frozenset({"JOB_NAME", "JOB_DEFINITION", "SHARE_IDENTIFIER", "BEFORE_CREATED_AT", "AFTER_CREATED_AT"})

Json = dict[str, Any]


def substitute(command: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """Replace each element ``Ref::name`` of a command; a name without a value is not replaced.

    :param command: the command.
    :param parameters: values by name.
    """
    replaced = []
    for element in command:
        reference = REFERENCE.fullmatch(element)
        replaced.append(parameters.get(reference[1], element) if reference else element)
    return replaced


def pattern_matches(pattern: str, value: str) -> bool:
    """Return whether a pattern of ``evaluateOnExit`` matches a value.

    :param pattern: a text with an optional ``*`` at its end.
    :param value: the value.
    """
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


def retries(
    rules: Iterable[Mapping[str, str]],
    *,
    status_reason: str | None,
    reason: str | None,
    exit_code: int | None,
) -> bool:
    """Return whether a failed attempt is retried: the first matching rule decides; without one, it is.

    :param rules: ``evaluateOnExit``.
    :param status_reason: the status reason of the attempt, if any.
    :param reason: the reason of the container, if any.
    :param exit_code: its exit code, if any.
    """
    values = {
        "onStatusReason": status_reason or "",
        "onReason": reason or "",
        "onExitCode": "" if exit_code is None else str(exit_code),
    }
    for rule in rules:
        conditions = {name: rule[name] for name in values if name in rule}
        if all(pattern_matches(pattern, values[name]) for name, pattern in conditions.items()):
            return rule["action"].upper() == "RETRY"
    return True


def status_summary(counts: Mapping[str, int]) -> dict[str, int]:
    """Return ``arrayProperties.statusSummary``, which contains every status.

    :param counts: the number of children by status.
    """
    return {status: counts.get(status, 0) for status in STATUSES}


def parent_status(counts: Mapping[str, int], size: int) -> str:
    """Return the status of an array parent.

    :param counts: the number of its children by status.
    :param size: the number of its children.
    """
    if counts.get(SUCCEEDED, 0) == size:
        return SUCCEEDED
    if counts.get(SUCCEEDED, 0) + counts.get(FAILED, 0) == size:
        return FAILED
    return PENDING


def dependencies(depends_on: Iterable[Mapping[str, str]], index: int | None, parent: str | None) -> list[str]:
    """Return the ids of the jobs that a job or an array child waits for.

    The type of a dependency is ignored for jobs that are not arrays, as by AWS.

    :param depends_on: ``dependsOn``.
    :param index: the index of the child; None for other jobs.
    :param parent: the id of its array; None for other jobs.
    """
    ids = []
    for dependency in depends_on:
        kind, job_id = dependency.get("type"), dependency.get("jobId")
        if index is not None and kind == "N_TO_N":
            ids.append(f"{job_id}:{index}")
        elif index is not None and kind == "SEQUENTIAL" and not job_id:
            if index > 0:
                ids.append(f"{parent}:{index - 1}")
        elif job_id:
            ids.append(job_id)
    return ids


def merged(first: Iterable[Mapping[str, Any]], then: Iterable[Mapping[str, Any]], key: str) -> list[Json]:
    """Merge two lists of settings, such as environment variables.

    :param first: settings.
    :param then: settings that override them.
    :param key: the member that identifies a setting.
    """
    by_key = {item[key]: dict(item) for item in first}
    by_key.update({item[key]: dict(item) for item in then})
    return list(by_key.values())


def containers_of(definition: Mapping[str, Any], request: Mapping[str, Any]) -> list[Json]:
    """Return the containers as in DescribeJobs, with the overrides of the request.

    :param definition: the job definition.
    :param request: the request of SubmitJob.
    """
    parameters = {**definition.get("parameters", {}), **request.get("parameters", {})}
    if "ecsProperties" not in definition:
        return [_overridden(definition["containerProperties"], request.get("containerOverrides", {}), parameters)]
    overrides = {each.get("name"): each for each in ecs_containers(request.get("ecsPropertiesOverride", {}))}
    defined = ecs_containers(definition["ecsProperties"])
    return [_overridden(each, overrides.get(each["name"], {}), parameters) for each in defined]


def ecs_containers(properties: Mapping[str, Any]) -> list[Json]:
    """Return the containers of ``ecsProperties`` or ``ecsPropertiesOverride``.

    :param properties: the properties.
    """
    return [container for task in properties.get("taskProperties", ()) for container in task.get("containers", ())]


def _overridden(defined: Mapping[str, Any], overrides: Mapping[str, Any], parameters: Mapping[str, str]) -> Json:
    container: Json = dict(defined)
    for name in ("command", "vcpus", "memory", "instanceType"):
        if name in overrides:
            container[name] = overrides[name]
    container["environment"] = merged(container.get("environment", ()), overrides.get("environment", ()), "name")
    container["resourceRequirements"] = merged(
        container.get("resourceRequirements", ()), overrides.get("resourceRequirements", ()), "type"
    )
    container["command"] = substitute(container.get("command", ()), parameters)
    return container


def overrides_length(containers: Iterable[Mapping[str, Any]]) -> int:
    """Return the length of the overrides that Batch passes to ECS.

    :param containers: the containers of the job.
    """
    names = ("command", "environment", "resourceRequirements")
    overrides = [{name: each.get(name, []) for name in names} for each in containers]
    return sum(len(json.dumps(each, separators=(",", ":"))) for each in overrides)


def matches_filter(summary: Mapping[str, Any], name: str, values: Sequence[str]) -> bool:
    """Return whether a job matches a filter of ListJobs.

    :param summary: the job as in ListJobs.
    :param name: the name of the filter.
    :param values: its values.
    """
    if name == "JOB_NAME":
        return any(pattern_matches(value.lower(), summary["jobName"].lower()) for value in values)
    if name == "JOB_DEFINITION":
        arn: str = summary["jobDefinition"]
        named = arn.rsplit("/", 1)[-1]
        return any(pattern_matches(value, known) for value in values for known in (arn, named, named.rsplit(":", 1)[0]))
    if name == "SHARE_IDENTIFIER":
        return summary.get("shareIdentifier") in values
    if name == "BEFORE_CREATED_AT":
        return bool(summary["createdAt"] < int(values[0]))
    return bool(summary["createdAt"] > int(values[0]))
