"""The definition that an operator's jobs run: one that exists, or one that is registered from an image.

A definition that is registered is looked up once for all starts of a process. It is looked up again after a while, so
that its last-used tag is updated, and so that it is registered again if somebody has deregistered it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs import definitions
from airflow_jobflow.jobs.definitions import AWSVPC, EC2, EXTERNAL, FARGATE, Json
from airflow_jobflow.params import Parameter

if TYPE_CHECKING:
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.waiting.remote import RemoteJobs

LIFETIME: Final = 900.0
"""Seconds after which a definition is looked up again."""

CPU_UNITS: Final = 1024
"""CPU units of a vCPU."""

COMMON: Final = {
    "image": Parameter("", params.non_empty_string),
    "job_role": Parameter("", params.non_empty_string),
    "execution_role": Parameter("", params.non_empty_string),
    "log_group": Parameter("", params.non_empty_string),
}

BATCH_PARAMETERS: Final = {
    "job_definition": Parameter("jobDefinition", params.non_empty_string),
    **COMMON,
    "platform": Parameter("", partial(params.one_of, allowed=(FARGATE, EC2))),
    "assign_public_ip": Parameter("", params.boolean),
    "definition": Parameter("", params_json.AwsShape("batch", "RegisterJobDefinition")),
}
"""The parameters that say which job definition is used. One of three is required."""

ECS_PARAMETERS: Final = {
    "task_definition": Parameter("taskDefinition", params.non_empty_string),
    **COMMON,
    "definition": Parameter("", params_json.AwsShape("ecs", "RegisterTaskDefinition")),
}
"""The parameters that say which task definition is used. One of three is required."""

BRIDGE: Final = "bridge"
"""The network mode of a task definition that has none."""

OF_IMAGE: Final = ("job_role", "execution_role", "log_group", "platform", "network_mode", "assign_public_ip")
"""Parameters that are parts of a definition that is made of an image."""


@dataclass(slots=True)
class _Entry:
    """A definition of this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while it is looked up or registered, so that concurrent starts do that once."""
    revision: str = ""
    expires_at: float = 0.0


_entries: dict[tuple[str, ...], _Entry] = {}
"""By connection, region, service and name."""


def forget_definitions() -> None:
    """Forget all definitions, as a forked process does."""
    _entries.clear()


os.register_at_fork(after_in_child=forget_definitions)


@dataclass(frozen=True)
class Definition:
    """The definition of an operator's jobs.

    :param service: ``batch`` or ``ecs``.
    :param label: what messages call it.
    :param build: returns the request that registers it, given the region. Default None: it exists, and ``label`` names
        it.
    :param containers: the names of its containers. Default None: they are looked up in AWS.
    :param main_container: the container of a task that command and environment are for. Default None: it is looked up
        in AWS.
    :param size: CPU units and MiB of a definition that is made of an image, for Fargate. Default None: any other.
    :param network_mode: the network mode of a task. Default None: it is not known.
    """

    service: str
    label: str
    build: Callable[[str], Json] | None = None
    containers: Sequence[str] | None = None
    main_container: str | None = None
    size: tuple[int, int] | None = None
    network_mode: str | None = None

    def check_containers(self, jobs: RemoteJobs, *names: str) -> None:
        """Check that it has the containers that the parameters name.

        :param jobs: makes the API calls, if the containers are not known.
        :param names: names to check besides ``container_name``.
        :raises InvalidParameter: it has no such container.
        """
        known = self.containers
        lookup = jobs.module.container_names if known is None else lambda *_: known  # type: ignore[attr-defined]
        jobs.check_containers(lookup, self.label, *names)

    def check_size(self, parameter: str, value: Any, cpu: float | None, memory: int | None) -> None:
        """Check that Fargate has a size; any size is accepted if it is not known that the jobs run on Fargate.

        :param parameter, value: the parameter, for the message.
        :param cpu: CPU units. None or 0 for those of the definition.
        :param memory: MiB. None for those of the definition.
        :raises InvalidParameter: Fargate has no such size; the nearest one is named.
        """
        if self.size and (rule := definitions.fargate_size_error(cpu or self.size[0], memory or self.size[1])):
            raise invalid_parameter(parameter, value, rule)

    def resolve(self, jobs: RemoteJobs, what: str) -> str:
        """Return the definition to start jobs with. If it is made here, it is looked up, and registered if necessary.

        :param jobs: makes the API calls.
        :param what: names the job in messages.
        :raises CapacityUnavailable: AWS throttled the calls. Nothing was started.
        :raises SubmissionRejected: AWS rejects the definition. Nothing was started.
        :raises SubmissionError: it could not be looked up or registered. Nothing was started.
        """
        from airflow_jobflow.operators import submission

        build = self.build
        if build is None:
            return self.label
        return submission.submit_once(
            jobs.call,
            lambda call: self._find(call, jobs.access.key, build(call.region)),
            None,
            what,
            repeatable=True,
            origin=lambda: jobs.origin,
        )

    def _find(self, call: Call, connection: str, request: Json) -> str:
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.registration import find_or_register

        name = str(request[definitions.NAME[self.service]])
        entry = _entries.setdefault((connection, call.region, self.service, name), _Entry())
        with entry.lock:
            if time.monotonic() >= entry.expires_at:
                try:
                    entry.revision = find_or_register(call, self.service, request, f"{datetime.now(UTC):%Y-%m-%d}")
                except CallError as error:
                    error.sent = False  # no job was started, whatever happened to the request
                    raise
                entry.expires_at = time.monotonic() + LIFETIME
            return entry.revision


def of_batch(values: Mapping[str, Any]) -> Definition:
    """Return the job definition that the parameters of an operator name or describe.

    :param values: validated parameters.
    :raises InvalidParameter: they name none or several, or contradict each other.
    """
    source = _source(values, "job_definition")
    if source != "image":
        return _given(values, "batch", source)
    gpus = values.get("gpus", 0)
    platform = values.get("platform") or (EC2 if gpus else FARGATE)
    vcpus, memory, size = values.get("vcpus"), values.get("memory"), None
    if platform == FARGATE:
        if gpus:
            raise invalid_parameter("gpus", gpus, f"Fargate has no GPUs; platform must be {EC2}")
        size = definitions.fargate_size(vcpus and _units("vcpus", vcpus), memory)
        vcpus, memory = size[0] / CPU_UNITS, size[1]
        _require_execution_role(values)
    elif "assign_public_ip" in values:
        rule = f"is for Fargate; on {EC2}, the compute environment decides"
        raise invalid_parameter("assign_public_ip", values["assign_public_ip"], rule)
    else:
        vcpus, memory = vcpus or definitions.DEFAULT_EC2_SIZE[0], memory or definitions.DEFAULT_EC2_SIZE[1]
    parts = {name: values.get(name) for name in ("job_role", "execution_role", "log_group", "assign_public_ip")}
    content = definitions.batch_definition(
        values["image"], platform=platform, vcpus=vcpus, memory=memory, gpus=gpus, **parts
    )
    request = definitions.named("batch", content)
    made = Definition("batch", values["image"], lambda _region: request, containers=(), size=size)
    return _of_possible_size(made, values, "vcpus")


def of_ecs(values: Mapping[str, Any], launch_type: str | None) -> Definition:
    """Return the task definition that the parameters of an operator name or describe.

    :param values: validated parameters.
    :param launch_type: where the tasks run. None if their capacity provider decides.
    :raises InvalidParameter: they name none or several, or contradict each other.
    """
    source = _source(values, "task_definition")
    if source != "image":
        return _given(values, "ecs", source)
    size = None
    if launch_type == FARGATE:
        _require_execution_role(values)
        size = definitions.fargate_size(values.get("cpu"), values.get("memory"))
    cpu, memory = size or (values.get("cpu"), values.get("memory"))
    network_mode = _network_mode(values, launch_type)
    container = values.get("container_name") or definitions.CONTAINER
    parts = {name: values.get(name) for name in ("job_role", "execution_role", "log_group", "gpus")}

    def build(region: str) -> Json:
        content = definitions.task_definition(
            values["image"],
            region=region,
            launch_type=launch_type,
            network_mode=network_mode,
            cpu=cpu,
            memory=memory,
            container=container,
            **parts,
        )
        return definitions.named("ecs", content)

    made = Definition("ecs", values["image"], build, (container,), container, size, network_mode or BRIDGE)
    return _of_possible_size(made, values, "cpu")


def _network_mode(values: Mapping[str, Any], launch_type: str | None) -> str | None:
    """Return the network mode of an image's definition: awsvpc if the task has a network; None for ECS's default.

    :raises InvalidParameter: the launch type does not support it.
    """
    mode: str | None = values.get("network_mode")
    if launch_type == FARGATE and mode not in (None, AWSVPC):
        raise invalid_parameter("network_mode", mode, f"Fargate supports only {AWSVPC}")
    if launch_type == EXTERNAL and mode == AWSVPC:
        raise invalid_parameter("network_mode", mode, "external instances support only bridge, host and none")
    has_network = launch_type == FARGATE or values.get("subnets") or values.get("network_configuration")
    return mode or (AWSVPC if has_network else None)


def _of_possible_size(definition: Definition, values: Mapping[str, Any], cpu: str) -> Definition:
    """Return a definition, unless Fargate does not have its size.

    :param cpu: the parameter that says how much CPU it gets.
    """
    parameter = "memory" if "memory" in values else cpu
    definition.check_size(parameter, values.get(parameter), None, None)
    return definition


def _source(values: Mapping[str, Any], existing: str) -> str:
    """Return the one parameter of three that says which definition is used.

    :param existing: the parameter that names one that exists.
    :raises InvalidParameter: none or several are given, or parts of an image's definition without an image.
    """
    given = [name for name in (existing, "image", "definition") if values.get(name)]
    if not given:
        rule = f"exactly one of {existing}, image and definition is required (did a template render to nothing?)"
        raise invalid_parameter(existing, values.get(existing), rule)
    if len(given) > 1:
        raise invalid_parameter(given[1], values[given[1]], f"{given[0]} is also given; keep only one of them")
    if given != ["image"]:
        for name in OF_IMAGE:
            if name in values and not (name == "assign_public_ip" and existing == "task_definition"):
                raise invalid_parameter(name, values[name], f"applies only with image, not with {given[0]}")
    return given[0]


def _given(values: Mapping[str, Any], service: str, source: str) -> Definition:
    """Return the definition that a user names, or gives in AWS's shape."""
    if source != "definition":
        return Definition(service, values[source])
    content = {"type": "container", **values[source]} if service == "batch" else values[source]
    request = definitions.named(service, content)
    names = definitions.container_names(service, request)
    name = request[definitions.NAME[service]]
    if service == "batch":
        return Definition(service, name, lambda _region: request, names)
    main, mode = definitions.main_container(request), request.get("networkMode", BRIDGE)
    return Definition(service, name, lambda _region: request, names, main, network_mode=mode)


def _require_execution_role(values: Mapping[str, Any]) -> None:
    if "execution_role" not in values:
        rule = "Fargate needs the ARN of a role that pulls the image and writes the log"
        raise invalid_parameter("execution_role", None, rule)


def _units(parameter: str, vcpus: float) -> int:
    """Return vCPUs in CPU units.

    :raises InvalidParameter: it is not a whole number of these.
    """
    units = vcpus * CPU_UNITS
    if not float(units).is_integer():
        raise invalid_parameter(parameter, vcpus, "Fargate has 0.25, 0.5, 1, 2, 4, 8, 16 and 32 vCPUs")
    return int(units)
