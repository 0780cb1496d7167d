"""The use of moto's internals by the local ECS: clusters, task definitions and tags.

The supported versions of moto are limited, and a test checks what is used here.

Invariants: values are copied when they are read.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moto.ecs.models import EC2ContainerServiceBackend, TaskDefinition, ecs_backends
from moto.logs.models import logs_backends

from airflow_jobflow.local.ecs import model

if TYPE_CHECKING:
    from airflow_jobflow.local.ecs.model import Json

ACTIVE = "ACTIVE"


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

    def has_log_group(self, group: str) -> bool:
        """Return whether a log group exists.

        :param group: its name.
        """
        return group in logs_backends[self.account][self.region].groups


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
