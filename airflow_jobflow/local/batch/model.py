"""What AWS Batch decides, as plain functions of plain data: no server, no threads, no processes.

What always holds: nothing here reads a clock or changes its arguments; whatever names a member of Batch's API
spells it as the API does.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.fargate_sizes import is_batch_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
"""Statuses in which CancelJob ends a job; later ones take a TerminateJob."""

CONTAINER_EXITED: Final = "Essential container in task exited"
FAILED_TO_START: Final = "Task failed to start"
TIMED_OUT: Final = "Job attempt duration exceeded timeout"
DEPENDENCY_FAILED: Final = "Dependent Job failed"
CHILD_FAILED: Final = "Array Child Job failed"
OVERRIDES_TOO_LONG: Final = "Container Overrides length must be at most 8192"
MISCONFIGURED: Final = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_DISABLED - no compute environment of the job queue is enabled"
)

JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
JOB_ID: Final = re.compile(r"[a-zA-Z_0-9-]{1,128}([:#]\d{1,5})?")
REFERENCE: Final = re.compile(r"Ref::([A-Za-z0-9_.-]+)")
MAX_DESCRIBED: Final = 100
MAX_LISTED: Final = 100
MAX_DEPENDENCIES: Final = 20
MAX_RULES: Final = 5
MAX_JOB_BYTES: Final = 30 * 1024
MAX_OVERRIDES: Final = 8192
ATTEMPTS: Final = range(1, 11)
ARRAY_SIZES: Final = range(2, 10_001)
MIN_TIMEOUT: Final = 60

Json = dict[str, Any]


def substitute(command: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """`command` with every element ``Ref::name`` replaced; a name without a value stays as it is."""
    replaced = []
    for element in command:
        reference = REFERENCE.fullmatch(element)
        replaced.append(parameters.get(reference[1], element) if reference else element)
    return replaced


def pattern_matches(pattern: str, value: str) -> bool:
    """Whether a pattern of ``evaluateOnExit``, a literal with an optional ``*`` at its end, covers
    `value`.
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
    """Whether a failed attempt is tried again: the first rule all of whose conditions hold decides; if none,
    it is.
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
    """``arrayProperties.statusSummary``: every status, also those no child has."""
    return {status: counts.get(status, 0) for status in STATUSES}


def parent_status(counts: Mapping[str, int], size: int) -> str:
    """The status of an array parent whose children have the statuses counted."""
    if counts.get(SUCCEEDED, 0) == size:
        return SUCCEEDED
    if counts.get(SUCCEEDED, 0) + counts.get(FAILED, 0) == size:
        return FAILED
    return PENDING


def dependencies(depends_on: Iterable[Mapping[str, str]], index: int | None, parent: str | None) -> list[str]:
    """The ids of the jobs that a job, or the child `index` of the array `parent`, waits for.

    The type of a dependency has a meaning for arrays only; AWS accepts it on other jobs and ignores it.
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
    """Two lists of settings told apart by `key`, such as environment variables; `then` overrides `first`."""
    by_key = {item[key]: dict(item) for item in first}
    by_key.update({item[key]: dict(item) for item in then})
    return list(by_key.values())


def containers_of(definition: Mapping[str, Any], request: Mapping[str, Any]) -> list[Json]:
    """The containers as DescribeJobs shows them: the definition's properties with the request's overrides."""
    parameters = {**definition.get("parameters", {}), **request.get("parameters", {})}
    if "ecsProperties" not in definition:
        return [_overridden(definition["containerProperties"], request.get("containerOverrides", {}), parameters)]
    overrides = {each.get("name"): each for each in _ecs_containers(request.get("ecsPropertiesOverride", {}))}
    defined = _ecs_containers(definition["ecsProperties"])
    return [_overridden(each, overrides.get(each["name"], {}), parameters) for each in defined]


def _ecs_containers(properties: Mapping[str, Any]) -> list[Json]:
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
    """How long the overrides are that Batch hands to ECS for the containers of a job."""
    names = ("command", "environment", "resourceRequirements")
    overrides = [{name: each.get(name, []) for name in names} for each in containers]
    return sum(len(json.dumps(each, separators=(",", ":"))) for each in overrides)


def _depends_on(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return request.get("dependsOn") or ()


def _size(request: Mapping[str, Any]) -> int | None:
    size: int | None = request.get("arrayProperties", {}).get("size")
    return size


SUBMISSION_RULES: Final[Sequence[tuple[Callable[[Mapping[str, Any]], bool], str]]] = (
    (lambda it: not JOB_NAME.fullmatch(it.get("jobName", "")), "Job name should match valid pattern"),
    (lambda it: len(_depends_on(it)) > MAX_DEPENDENCIES, "Job cannot have more than 20 dependencies"),
    (
        lambda it: _size(it) is not None and _size(it) not in ARRAY_SIZES,
        "Array size must be between 2 and 10000",
    ),
    (
        lambda it: any(
            not each.get("jobId") and (each.get("type") != "SEQUENTIAL" or _size(it) is None)
            for each in _depends_on(it)
        ),
        "jobId is required for a dependency that is not SEQUENTIAL between the children of an array",
    ),
    (
        lambda it: it.get("timeout", {}).get("attemptDurationSeconds", MIN_TIMEOUT) < MIN_TIMEOUT,
        "Timeout must be at least 60 seconds",
    ),
    (
        lambda it: "attempts" not in it.get("retryStrategy", {"attempts": 1}),
        "RetryAttempts must be provided with retry strategy",
    ),
    (
        lambda it: it.get("retryStrategy", {}).get("attempts", 1) not in ATTEMPTS,
        "RetryAttempts must be between 1 and 10",
    ),
    (
        lambda it: len(it.get("retryStrategy", {}).get("evaluateOnExit", ())) > MAX_RULES,
        "EvaluateOnExit cannot have more than 5 conditions",
    ),
)
"""What SubmitJob refuses, in AWS's words where they are known."""


def wrong_with_submission(request: Mapping[str, Any], length: int) -> str | None:
    """Why SubmitJob refuses a request of `length` bytes; None if it does not."""
    if length >= MAX_JOB_BYTES:
        return f"Job size must be less than 30 KiB, got {length // 1024} KiB"
    return next((why for refuses, why in SUBMISSION_RULES if refuses(request)), None)


def cannot_run(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """What real Batch would run and this one cannot; None if it can."""
    name = definition["jobDefinitionName"]
    for member in ("nodeOverrides", "eksPropertiesOverride"):
        if member in request:
            return f"The local AWS runs no jobs of several nodes and none on EKS: it cannot run a job with {member}"
    if "containerProperties" not in definition and "ecsProperties" not in definition:
        kind = "eksProperties" if "eksProperties" in definition else "nodeProperties"
        return f"The local AWS runs no jobs of several nodes and none on EKS: job definition {name} has {kind}"
    return _wrong_overrides(definition, request)


def _wrong_overrides(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """Why the overrides of a request do not fit the kind of its job definition; None if they do."""
    name, is_ecs = definition["jobDefinitionName"], "ecsProperties" in definition
    wrong = "containerOverrides" if is_ecs else "ecsPropertiesOverride"
    if request.get(wrong):
        kind = "ecsProperties" if is_ecs else "containerProperties"
        return f"{wrong} cannot be used with job definition {name}, which has {kind}"
    known = {each["name"] for each in _ecs_containers(definition["ecsProperties"])} if is_ecs else set()
    given = [each.get("name") for each in _ecs_containers(request.get("ecsPropertiesOverride", {}))]
    if unknown := [str(each) for each in given if each not in known]:
        return f"ecsPropertiesOverride names containers that job definition {name} does not have: {', '.join(unknown)}"
    return None


def wrong_with_ecs_properties(properties: Mapping[str, Any]) -> str | None:
    """Why RegisterJobDefinition refuses ``ecsProperties``; None if it does not."""
    tasks = properties.get("taskProperties") or ()
    if len(tasks) != 1:
        return "ecsProperties must have exactly one element in taskProperties"
    containers = {str(each.get("name", "")): each for each in _ecs_containers(properties)}
    if len(containers) < len(_ecs_containers(properties)) or not all(containers):
        return "Each container must have a name of its own"
    if not any(each.get("essential", True) for each in containers.values()):
        return "At least one container must be essential"
    if not any(not each.get("dependsOn") for each in containers.values()):
        return "At least one container must not depend on others"
    wrong = (_wrong_dependency(name, each, containers) for name in containers for each in _depends(containers[name]))
    return next(filter(None, wrong), None)


def _depends(container: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return container.get("dependsOn") or ()


def _wrong_dependency(name: str, dependency: Mapping[str, Any], containers: Mapping[str, Any]) -> str | None:
    """Why a container cannot depend on another as it says; None if it can."""
    other, condition = str(dependency.get("containerName")), dependency.get("condition")
    if other not in containers or other == name:
        return f"Container {name} depends on {other}, which is no other container"
    if condition not in CONDITIONS:
        return f"Container {name}: condition of dependsOn must be one of {', '.join(CONDITIONS)}"
    if condition != "START" and containers[other].get("essential", True):
        return f"Container {name} cannot wait for the end of {other}, which is essential"
    return None


def wrong_with_size(definition: Mapping[str, Any], container: Mapping[str, Any]) -> str | None:
    """Why Fargate cannot run a container of a job definition; None if it can, or is not meant to."""
    if "FARGATE" not in (definition.get("platformCapabilities") or ()):
        return None
    sizes = {each["type"]: each["value"] for each in container.get("resourceRequirements") or ()}
    vcpus, memory = sizes.get("VCPU", ""), sizes.get("MEMORY", "")
    if is_batch_size(vcpus, memory):
        return None
    return f"Fargate resource requirements ({vcpus or 'no'} vCPU, {memory or 'no'} MiB) not valid."


def matches_filter(summary: Mapping[str, Any], name: str, values: Sequence[str]) -> bool:
    """Whether one of ListJobs' `filters` lets a job summary through."""
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


CONDITIONS: Final = ("START", "COMPLETE", "SUCCESS")
"""Of ``dependsOn`` among the containers of a job."""

FILTERS: Final = frozenset({"JOB_NAME", "JOB_DEFINITION", "SHARE_IDENTIFIER", "BEFORE_CREATED_AT", "AFTER_CREATED_AT"})
