"""Job definitions and task definitions that are registered from an image: their content, and their names. Pure.

A name contains a hash of the content, so the same content is registered once, and other content under another name.

AWS describes a definition in another form than the one that was registered: it adds defaults and empty lists, drops
empty variables, and reorders the environment. ``differences`` treats forms with the same meaning as equal.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_jobflow.jobs import batch_containers, fargate_sizes

FARGATE: Final = "FARGATE"
EC2: Final = "EC2"
EXTERNAL: Final = "EXTERNAL"

AWSVPC: Final = "awsvpc"
"""The network mode in which a task has a network interface of its own."""

PREFIX: Final = "jobflow-"
"""The beginning of all names, to which a policy can be restricted."""

CONTAINER: Final = "main"
"""The name of the container of a task definition, unless the user gives one."""

LOG_GROUP: Final = "/jobflow/ecs"
"""Where tasks log, unless the user names a log group. Batch has a default of its own."""

DEFAULT_EC2_SIZE: Final = (1.0, 2048)
"""The default vCPUs and MiB of a Batch job on EC2."""

MEMORY_RESERVATION: Final = 512
"""The MiB that ECS reserves on an instance for a container without a size, which may use more."""

NAME: Final = {"batch": "jobDefinitionName", "ecs": "family"}
"""The member with the name of a definition, also in the request that registers it."""

READABLE_LENGTH: Final = 60
"""The most characters of a name between the prefix and the hash."""

DESCRIBED_ONLY: Final = {
    "batch": ("jobDefinitionArn", "revision", "status", "containerOrchestrationType"),
    "ecs": (
        *("taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt"),
        *("registeredBy", "deregisteredAt", "deleteRequestedAt"),
    ),
}
"""Members that a described definition has, and the request that registers it does not."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "cpu": 0,
    "essential": True,
    "attempts": 1,
    "platformCapabilities": [EC2],
    "platformVersion": "LATEST",
    "assignPublicIp": "DISABLED",
    "networkMode": "bridge",
    "protocol": "tcp",
    "hostPort": 0,
    "rootDirectory": "/",
    "transitEncryption": "DISABLED",
    "operatingSystemFamily": "LINUX",
    "cpuArchitecture": "X86_64",
}
"""The defaults that AWS adds for missing members."""

TRUE_BY_DEFAULT: Final = ("essential", "hostNetwork")
"""Members whose default is true, so that false is not the same as missing."""

UNORDERED: Final = {"environment": "name", "secrets": "name", "ulimits": "name", "resourceRequirements": "type"}
"""Lists whose order has no meaning, with the member that identifies an element."""

Json = dict[str, Any]


def batch_definition(
    image: str,
    *,
    platform: str,
    vcpus: float,
    memory: int,
    gpus: int = 0,
    job_role: str | None = None,
    execution_role: str | None = None,
    log_group: str | None = None,
    assign_public_ip: bool | None = None,
) -> Json:
    """Return the RegisterJobDefinition request for an image, without a name.

    It has neither command nor environment: they differ between runs, and are sent with each job.

    :param image: the image.
    :param platform: ``FARGATE`` or ``EC2``.
    :param vcpus, memory, gpus: what the container gets; MiB of memory. Default of ``gpus``: 0.
    :param job_role: ARN of the role of the job. Default None: it has none.
    :param execution_role: ARN of the role that pulls the image and writes the log. Default None: that of the instance.
    :param log_group: the log group. Default None: Batch's own.
    :param assign_public_ip: whether a job on Fargate gets a public address. Default None: it does not.
    """
    amounts = {"VCPU": f"{vcpus:g}", "MEMORY": str(memory), **({"GPU": str(gpus)} if gpus else {})}
    container = {
        "image": image,
        "resourceRequirements": [{"type": kind, "value": value} for kind, value in amounts.items()],
        "jobRoleArn": job_role,
        "executionRoleArn": execution_role,
        "logConfiguration": log_group and {"logDriver": "awslogs", "options": {"awslogs-group": log_group}},
        "networkConfiguration": assign_public_ip and {"assignPublicIp": "ENABLED"},
    }
    return {
        "type": "container",
        "platformCapabilities": [platform],
        "containerProperties": {name: value for name, value in container.items() if value},
    }


def task_definition(
    image: str,
    *,
    region: str,
    launch_type: str | None = None,
    network_mode: str | None = None,
    cpu: int | None = None,
    memory: int | None = None,
    gpus: int | None = None,
    container: str | None = None,
    job_role: str | None = None,
    execution_role: str | None = None,
    log_group: str | None = None,
) -> Json:
    """Return the RegisterTaskDefinition request for an image, without a name.

    It has neither command nor environment: they differ between runs, and are sent with each task. The log group is
    created with the first task, if the execution role may do so and there is none.

    :param image: the image.
    :param region: where the task logs.
    :param launch_type: the launch type that the definition must be valid for. Default None: AWS checks that when a
        task starts.
    :param network_mode: the network mode. Default None: that of ECS, ``bridge``.
    :param cpu, memory: of the task, in CPU units and MiB. Default None: no limit; 512 MiB are reserved.
    :param gpus: of the container. Default None: it has none.
    :param container: name of the container. Default ``main``.
    :param job_role: ARN of the role of the task. Default None: it has none.
    :param execution_role: ARN of the role that pulls the image and writes the log. Default None: that of the instance.
    :param log_group: the log group. Default ``/jobflow/ecs``.
    """
    options = {
        "awslogs-group": log_group or LOG_GROUP,
        "awslogs-region": region,
        "awslogs-stream-prefix": "jobflow",
        "awslogs-create-group": "true",
    }
    own = {
        "name": container or CONTAINER,
        "image": image,
        "essential": True,
        "memoryReservation": None if memory else MEMORY_RESERVATION,
        "resourceRequirements": gpus and [{"type": "GPU", "value": str(gpus)}],
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    }
    task = {
        "requiresCompatibilities": launch_type and [launch_type],
        "networkMode": network_mode,
        "cpu": cpu and str(cpu),
        "memory": memory and str(memory),
        "taskRoleArn": job_role,
        "executionRoleArn": execution_role,
        "containerDefinitions": [{name: value for name, value in own.items() if value}],
    }
    return {name: value for name, value in task.items() if value}


def fargate_size(cpu: int | None, memory: int | None) -> tuple[int, int]:
    """Return the size of a task on Fargate. A missing value becomes the smallest that Fargate has for the other one.

    :param cpu: CPU units; None if they are not given.
    :param memory: MiB; None if they are not given.
    """
    least = fargate_sizes.nearest(cpu or 0, memory or 0)
    return cpu or least[0], memory or least[1]


def fargate_size_error(cpu: float, memory: int) -> str | None:
    """Return a rule that names the nearest size, if Fargate does not have this one; else None.

    :param cpu: CPU units.
    :param memory: MiB.
    """
    units, mib = fargate_sizes.nearest(cpu, memory)
    if (units, mib) == (cpu, memory):
        return None
    return (
        f"Fargate has no size with {cpu / 1024:g} vCPU and {memory} MiB; "
        f"the nearest has {units / 1024:g} vCPU ({units} CPU units) and {mib} MiB"
    )


def named(service: str, content: Mapping[str, Any]) -> Json:
    """Return a request with the name of its content: ``jobflow-``, a readable part, and a hash.

    :param service: ``batch`` or ``ecs``.
    :param content: the request. Its name, or else its first image, is the readable part.
    """
    member = NAME[service]
    hashed = {name: value for name, value in content.items() if name != member}
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", content.get(member) or _image_name(content))[:READABLE_LENGTH]
    return {**content, member: f"{PREFIX}{readable.strip('-')}-{digest(hashed)}"}


def digest(content: Any) -> str:
    """Return a hash of JSON, in which the order of members does not matter.

    :param content: the JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _image_name(content: Any) -> str:
    """Return the last part of the first image, without tag and digest."""
    image = next(_images(content), "definition")
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _images(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        if isinstance(content.get("image"), str):
            yield content["image"]
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _images(each)


def container_names(service: str, content: Mapping[str, Any]) -> list[str]:
    """Return the names of a definition's containers, in order; the container of a plain Batch job has no name.

    :param service: ``batch`` or ``ecs``.
    :param content: the request that registers it.
    """
    if service == "batch":
        return batch_containers.names(content)
    return [each["name"] for each in content.get("containerDefinitions", ()) if "name" in each]


def main_container(content: Mapping[str, Any]) -> str:
    """Return the name of a task definition's first essential container.

    :param content: the request that registers it.
    """
    containers = content.get("containerDefinitions", ())
    essential = (each.get("name") for each in containers if each.get("essential", True))
    return str(next(essential, None) or CONTAINER)


def differences(service: str, wanted: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    """Return the paths of all members in which a described definition differs from what we register.

    :param service: ``batch`` or ``ecs``.
    :param wanted: the request.
    :param described: the definition as AWS describes it.
    """
    return list(_differing(comparable(service, wanted), comparable(service, described), ""))


def comparable(service: str, definition: Mapping[str, Any]) -> Any:
    """Return a definition without its name, its tags, empty members and AWS's defaults.

    :param service: ``batch`` or ``ecs``.
    :param definition: a request, or a definition as AWS describes it.
    """
    left_out = ("tags", NAME[service], *DESCRIBED_ONLY[service])
    return _reduced("", {name: value for name, value in definition.items() if name not in left_out})


def _reduced(name: str, value: Any) -> Any:
    """Return a value without empty members and defaults; None if nothing is left."""
    if isinstance(value, Mapping):
        members = ((key, _reduced(key, each)) for key, each in value.items())
        value = {key: each for key, each in members if each is not None}
    elif isinstance(value, list | tuple):
        value = [_reduced("", each) for each in value]
        if name == "environment":  # Batch drops variables without a value
            value = [each for each in value if each and "value" in each]
        if name in UNORDERED:
            value.sort(key=lambda each: str(each.get(UNORDERED[name])))
    elif name == "action":  # Batch returns the actions of a retry strategy in lower case
        value = str(value).lower()
    says_nothing = value is False and name not in TRUE_BY_DEFAULT
    if value is None or says_nothing or value in ("", [], {}) or value == DEFAULTS.get(name):
        return None
    return value


def _differing(wanted: Any, described: Any, path: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(described, Mapping):
        for name in sorted({*wanted, *described}):
            yield from _differing(wanted.get(name), described.get(name), f"{path}.{name}" if path else name)
    elif isinstance(wanted, list) and isinstance(described, list) and len(wanted) == len(described):
        for index, (one, other) in enumerate(zip(wanted, described, strict=True)):
            yield from _differing(one, other, f"{path}[{index}]")
    elif wanted != described:
        yield path
