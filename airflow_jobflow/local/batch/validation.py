"""What AWS Batch rejects, as pure functions that return the reason.

Invariants: nothing here changes its arguments. Members of Batch's API have their names in the API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.jobs.fargate_sizes import is_batch_size
from airflow_jobflow.local.batch.model import ecs_containers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
DEFINITION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_DEPENDENCIES: Final = 20
MAX_RULES: Final = 5
MAX_JOB_BYTES: Final = 30 * 1024
ATTEMPTS: Final = range(1, 11)
ARRAY_SIZES: Final = range(2, 10_001)
MIN_TIMEOUT: Final = 60
CONDITIONS: Final = ("START", "COMPLETE", "SUCCESS")
"""The conditions of ``dependsOn`` between containers of a job."""


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
"""What SubmitJob rejects, with AWS's messages where they are known."""


def submission_error(request: Mapping[str, Any], length: int) -> str | None:
    """Return why SubmitJob rejects a request, or None.

    :param request: the request.
    :param length: its length in bytes.
    """
    if length >= MAX_JOB_BYTES:
        return f"Job size must be less than 30 KiB, got {length // 1024} KiB"
    return next((why for rejects, why in SUBMISSION_RULES if rejects(request)), None)


def cannot_run(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """Return why the local AWS cannot run a job that Batch could run, or None.

    :param definition: the job definition.
    :param request: the request of SubmitJob.
    """
    name = definition["jobDefinitionName"]
    for member in ("nodeOverrides", "eksPropertiesOverride"):
        if member in request:
            return f"The local AWS does not run multi-node jobs and jobs on EKS, so it cannot run a job with {member}"
    if "containerProperties" not in definition and "ecsProperties" not in definition:
        kind = "eksProperties" if "eksProperties" in definition else "nodeProperties"
        return f"The local AWS does not run multi-node jobs and jobs on EKS, but job definition {name} has {kind}"
    return _overrides_error(definition, request)


def _overrides_error(definition: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """Return why the overrides of a request do not match its job definition, or None."""
    name, is_ecs = definition["jobDefinitionName"], "ecsProperties" in definition
    wrong = "containerOverrides" if is_ecs else "ecsPropertiesOverride"
    if request.get(wrong):
        kind = "ecsProperties" if is_ecs else "containerProperties"
        return f"{wrong} cannot be used with job definition {name}, which has {kind}"
    known = {each["name"] for each in ecs_containers(definition["ecsProperties"])} if is_ecs else set()
    given = [each.get("name") for each in ecs_containers(request.get("ecsPropertiesOverride", {}))]
    if unknown := [str(each) for each in given if each not in known]:
        return f"ecsPropertiesOverride names containers that job definition {name} does not have: {', '.join(unknown)}"
    return None


def definition_error(request: Mapping[str, Any]) -> str | None:
    """Return why RegisterJobDefinition rejects a request, or None.

    :param request: the request.
    """
    if not DEFINITION_NAME.fullmatch(request["jobDefinitionName"]):
        return "Job definition name should match valid pattern"
    if request.get("ecsProperties"):
        return ecs_properties_error(request["ecsProperties"])
    container = request.get("containerProperties")
    if container is None:
        return None
    if why := size_error(request, container):
        return why
    if "FARGATE" in request.get("platformCapabilities", ()) and not container.get("executionRoleArn"):
        return "An execution role is required for jobs on Fargate: executionRoleArn is missing"
    return None


def ecs_properties_error(properties: Mapping[str, Any]) -> str | None:
    """Return why RegisterJobDefinition rejects ``ecsProperties``, or None.

    :param properties: ``ecsProperties``.
    """
    tasks = properties.get("taskProperties") or ()
    if len(tasks) != 1:
        return "ecsProperties must have exactly one element in taskProperties"
    containers = {str(each.get("name", "")): each for each in ecs_containers(properties)}
    if len(containers) < len(ecs_containers(properties)) or not all(containers):
        return "Each container must have a unique name"
    if not any(each.get("essential", True) for each in containers.values()):
        return "At least one container must be essential"
    if not any(not each.get("dependsOn") for each in containers.values()):
        return "At least one container must not depend on others"
    wrong = (_dependency_error(name, each, containers) for name in containers for each in _depends(containers[name]))
    return next(filter(None, wrong), None)


def _depends(container: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return container.get("dependsOn") or ()


def _dependency_error(name: str, dependency: Mapping[str, Any], containers: Mapping[str, Any]) -> str | None:
    """Return why a dependency between containers is invalid, or None."""
    other, condition = str(dependency.get("containerName")), dependency.get("condition")
    if other not in containers or other == name:
        return f"Container {name} depends on {other}, which is not another container of the job"
    if condition not in CONDITIONS:
        return f"Container {name}: condition of dependsOn must be one of {', '.join(CONDITIONS)}"
    if condition != "START" and containers[other].get("essential", True):
        return f"Container {name} cannot wait for the end of {other}, which is essential"
    return None


def size_error(definition: Mapping[str, Any], container: Mapping[str, Any]) -> str | None:
    """Return why Fargate cannot run a container, or None.

    :param definition: the job definition, which may not be for Fargate.
    :param container: the properties of the container.
    """
    if "FARGATE" not in (definition.get("platformCapabilities") or ()):
        return None
    sizes = {each["type"]: each["value"] for each in container.get("resourceRequirements") or ()}
    vcpus, memory = sizes.get("VCPU", ""), sizes.get("MEMORY", "")
    if is_batch_size(vcpus, memory):
        return None
    return f"Fargate resource requirements ({vcpus or 'no'} vCPU, {memory or 'no'} MiB) not valid."
