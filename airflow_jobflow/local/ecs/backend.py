"""The use of moto's internals by the local ECS: clusters, task definitions and tags.

The supported versions of moto are limited, and a test checks what is used here.

Invariants: values are copied when they are read.
"""

from __future__ import annotations

import copy
import inspect
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.core.utils import camelcase_to_underscores
from moto.ecs.models import ContainerInstance, EC2ContainerServiceBackend, TaskDefinition, ecs_backends
from moto.logs.models import logs_backends

from airflow_jobflow.local.ecs import model
from airflow_jobflow.local.ecs.placement import Resources

if TYPE_CHECKING:
    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.settings import Settings

ACTIVE = "ACTIVE"
GPUS = ("GPU-0",)
"""The ids of the GPUs of a simulated instance."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The current state of a cluster."""

    name: str
    arn: str
    capacity_providers: tuple[str, ...]
    default_strategy: tuple[Json, ...]


@dataclass(slots=True)
class Tagged:
    """The part of a task that moto needs for TagResource, UntagResource and ListTagsForResource."""

    task_arn: str
    tags: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EcsBackend:
    """The resources of ECS in moto, for one account and region.

    :param account: the account.
    :param region: the region.
    """

    account: str
    region: str

    @property
    def _ecs(self) -> EC2ContainerServiceBackend:
        return ecs_backends[self.account][self.region]

    def cluster(self, name: str) -> Cluster | None:
        """Return an active cluster, or None.

        :param name: its name.
        """
        found = self._ecs.clusters.get(name)
        if found is None or found.status != ACTIVE:
            return None
        strategy: list[Any] = copy.deepcopy(found.default_capacity_provider_strategy or [])
        return Cluster(found.name, found.arn, tuple(found.capacity_providers or ()), tuple(strategy))

    def count(self, cluster: str, *, pending: int, running: int) -> None:
        """Set the numbers of tasks that DescribeClusters shows.

        :param cluster: the name of the cluster.
        :param pending: the number of tasks that do not run yet.
        :param running: the number of running tasks.
        """
        found = self._ecs.clusters.get(cluster)
        if found is not None:
            found.pending_tasks_count, found.running_tasks_count = pending, running

    def definition(self, family: str, revision: int | None) -> Json | None:
        """Return a task definition as in DescribeTaskDefinition, or None.

        :param family: its family.
        :param revision: its revision; None for the newest active one.
        """
        revisions: dict[int, TaskDefinition] = self._ecs.task_definitions.get(family, {})
        if revision is None:
            revision = max((number for number, each in revisions.items() if each.status == ACTIVE), default=None)
        found = revisions.get(revision) if revision is not None else None
        if found is None:
            return None
        return copy.deepcopy({name: value for name, value in _shown(found).items() if value is not None})

    def register(self, request: Json) -> Json:
        """Register a task definition, and return it as in DescribeTaskDefinition.

        moto requires a hard limit of memory on EC2, and takes EXTERNAL for Fargate, so it does not see the launch type.

        :param request: the request, which has been checked.
        """
        known = inspect.signature(self._ecs.register_task_definition).parameters
        arguments = {camelcase_to_underscores(name): value for name, value in request.items()}
        compatible = arguments.pop("requires_compatibilities", None)
        made = self._ecs.register_task_definition(**{name: arguments[name] for name in arguments if name in known})
        made.requires_compatibilities = compatible
        if model.FARGATE in (compatible or ()):
            made.compatibilities, made.network_mode = [model.EC2, model.FARGATE], model.AWSVPC
        return copy.deepcopy({name: value for name, value in _shown(made).items() if value is not None})

    def families(self, prefix: str, status: str) -> list[str]:
        """Return the families of task definitions, in order.

        :param prefix: the beginning of their names.
        :param status: ``ACTIVE`` for those with an active revision, ``INACTIVE`` for those without one, or ``ALL``.
        """
        active = {
            family: any(each.status == ACTIVE for each in revisions.values())
            for family, revisions in self._ecs.task_definitions.items()
        }
        wanted = {ACTIVE: (True,), "INACTIVE": (False,)}.get(status, (True, False))
        return sorted(
            family for family, is_active in active.items() if family.startswith(prefix) and is_active in wanted
        )

    def keep_tags(self, cluster: str, tagged: Tagged) -> None:
        """Make a task known to moto's calls for tags.

        :param cluster: the name of its cluster.
        :param tagged: the task.
        """
        tasks: dict[str, dict[str, Any]] = self._ecs.tasks
        tasks.setdefault(cluster, {})[tagged.task_arn] = tagged

    def instances(self, cluster: str) -> list[ContainerInstance]:
        """Return the registered container instances of a cluster.

        :param cluster: the name of the cluster.
        """
        return list(self._ecs.container_instances.get(cluster, {}).values())

    def add_instance(self, cluster: str, settings: Settings, *, external: bool, provider: str | None) -> None:
        """Register a simulated container instance, which has one GPU.

        :param cluster: the name of the cluster.
        :param settings: its size.
        :param external: whether it is external.
        :param provider: its capacity provider, if any.
        """
        registered: dict[str, ContainerInstance] = self._ecs.container_instances.setdefault(cluster, {})
        instance = SimulatedInstance(self._ecs, cluster, settings, external=external, provider=provider)
        zone = "ab"[len(registered) % 2]
        instance.attributes["ecs.availability-zone"] = f"{self.region}{zone}"
        registered[instance.id] = instance
        self._ecs.clusters[cluster].registered_container_instances_count += 1

    def free(self, instance: ContainerInstance) -> Resources:
        """Return the free resources of a container instance.

        :param instance: the container instance.
        """
        free = {each["name"]: each for each in instance.remaining_resources}
        gpus = free.get("GPU", {}).get("stringSetValue", ())
        return Resources(free["CPU"]["integerValue"], free["MEMORY"]["integerValue"], len(gpus))

    def use(self, instance: ContainerInstance, resources: Resources, tasks: int) -> None:
        """Change what a container instance has free, and the number of its running tasks.

        :param instance: the container instance.
        :param resources: of a task.
        :param tasks: 1 for a task that is placed there, -1 for one that has stopped.
        """
        instance.running_tasks_count += tasks
        taken = {"CPU": resources.cpu, "MEMORY": resources.memory}
        for each in instance.remaining_resources:
            each["integerValue"] -= tasks * taken.get(each["name"], 0)
            if each["name"] == "GPU" and resources.gpus:
                each["stringSetValue"] = [] if tasks > 0 else list(GPUS)

    def has_log_group(self, group: str) -> bool:
        """Return whether a log group exists.

        :param group: its name.
        """
        return group in logs_backends[self.account][self.region].groups


class SimulatedInstance(ContainerInstance):
    """A container instance without an instance in EC2.

    :param backend: moto's resources.
    :param cluster: the name of its cluster.
    :param settings: its size.
    :param external: whether it is external.
    :param provider: its capacity provider, if any.
    """

    def __init__(
        self,
        backend: EC2ContainerServiceBackend,
        cluster: str,
        settings: Settings,
        *,
        external: bool,
        provider: str | None,
    ) -> None:
        number = uuid.uuid4().hex[:17]
        self.ec2_instance_id = f"{'mi' if external else 'i'}-{number}"
        self.capacity_provider_name = provider
        self.agent_connected = True
        self.status = ACTIVE
        self.registered_resources = _resources(settings)
        self.remaining_resources = _resources(settings)
        self.running_tasks_count = self.pending_tasks_count = 0
        self.version_info = {
            "agentVersion": "1.96.0",
            "agentHash": "00000000",
            "dockerVersion": "DockerVersion: 25.0.8",
        }
        self.attributes = {"ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64"}
        self.attributes["ecs.instance-type"] = "external" if external else "m5.xlarge"
        self.registered_at = datetime.now(UTC)
        self.region_name = backend.region_name
        self.id = uuid.uuid4().hex
        self.cluster_name = cluster
        self._account_id = backend.account_id
        self._backend = backend


def _resources(settings: Settings) -> list[dict[str, Any]]:
    """Return the resources of a container instance, as DescribeContainerInstances has them."""
    numbers = {"CPU": settings.instance_cpu, "MEMORY": settings.instance_memory}
    sets = {"PORTS": (), "PORTS_UDP": (), "GPU": GPUS}
    none = {"doubleValue": 0.0, "longValue": 0, "integerValue": 0}
    return [
        *({**none, "name": name, "type": "INTEGER", "integerValue": number} for name, number in numbers.items()),
        *({**none, "name": name, "type": "STRINGSET", "stringSetValue": list(each)} for name, each in sets.items()),
    ]


def _shown(definition: TaskDefinition) -> Json:
    """Return a task definition as in DescribeTaskDefinition, with None for what it does not have."""
    return {
        "taskDefinitionArn": definition.arn,
        "family": definition.family,
        "revision": definition.revision,
        "status": definition.status,
        "containerDefinitions": definition.container_definitions,
        "taskRoleArn": getattr(definition, "task_role_arn", None),
        "executionRoleArn": getattr(definition, "execution_role_arn", None),
        "networkMode": definition.network_mode,
        "volumes": definition.volumes,
        "placementConstraints": definition.placement_constraints,
        "compatibilities": definition.compatibilities,
        "requiresCompatibilities": definition.requires_compatibilities or [],
        "cpu": definition.cpu,
        "memory": definition.memory,
        "proxyConfiguration": definition.proxy_configuration,
        "inferenceAccelerators": definition.inference_accelerators,
        "pidMode": definition.pid_mode,
        "ipcMode": definition.ipc_mode,
        "ephemeralStorage": definition.ephemeral_storage,
        "runtimePlatform": definition.runtime_platform,
        "tags": definition.tags or [],
    }


def definition_named(backend: EcsBackend, identifier: str) -> Json | None:
    """Return the task definition for an identifier, or None.

    :param backend: the resources of ECS.
    :param identifier: an ARN, ``family:revision`` or ``family``.
    :raises ValueError: the identifier is malformed.
    """
    matched = model.DEFINITION.fullmatch(identifier)
    if matched is None:
        raise ValueError(f"Invalid task definition identifier: {identifier}")
    revision = matched["revision"]
    return backend.definition(matched["family"], int(revision) if revision else None)
