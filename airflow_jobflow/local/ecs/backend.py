"""What the local ECS asks of moto's insides: clusters, task definitions and tags stay moto's.

What always holds: what is read is read from a copy. moto is pinned, and a test guards what is used here.
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
    """A cluster as it is now."""

    name: str
    arn: str
    capacity_providers: tuple[str, ...]
    default_strategy: tuple[Json, ...]


@dataclass(slots=True)
class Tagged:
    """As much of a task as moto needs for TagResource, UntagResource and ListTagsForResource."""

    task_arn: str
    tags: list[dict[str, str]] = field(default_factory=list)


class EcsBackend:
    """What moto keeps of ECS for one account and region."""

    def __init__(self, account: str, region: str) -> None:
        self._account = account
        self._region = region

    @property
    def _ecs(self) -> EC2ContainerServiceBackend:
        return ecs_backends[self._account][self._region]

    def cluster(self, name: str) -> Cluster | None:
        """An active cluster."""
        found = self._ecs.clusters.get(name)
        if found is None or found.status != ACTIVE:
            return None
        strategy: list[Any] = copy.deepcopy(found.default_capacity_provider_strategy or [])
        return Cluster(found.name, found.arn, tuple(found.capacity_providers or ()), tuple(strategy))

    def count(self, cluster: str, *, pending: int, running: int) -> None:
        """Have DescribeClusters show how many tasks there are."""
        found = self._ecs.clusters.get(cluster)
        if found is not None:
            found.pending_tasks_count, found.running_tasks_count = pending, running

    def definition(self, family: str, revision: int | None) -> Json | None:
        """A task definition in the shape of DescribeTaskDefinition: the newest active one if no revision is given."""
        revisions: dict[int, TaskDefinition] = self._ecs.task_definitions.get(family, {})
        if revision is None:
            revision = max((number for number, each in revisions.items() if each.status == ACTIVE), default=None)
        found = revisions.get(revision) if revision is not None else None
        if found is None:
            return None
        shown = {
            "taskDefinitionArn": found.arn,
            "family": found.family,
            "status": found.status,
            "containerDefinitions": found.container_definitions,
            "networkMode": found.network_mode,
            "requiresCompatibilities": found.requires_compatibilities or [],
            "cpu": found.cpu,
            "memory": found.memory,
            "ephemeralStorage": found.ephemeral_storage,
            "runtimePlatform": found.runtime_platform or {},
            "tags": found.tags or [],
        }
        return copy.deepcopy(shown)

    def keep_tags(self, cluster: str, tagged: Tagged) -> None:
        """Have moto's calls about tags find a task."""
        tasks: dict[str, dict[str, Any]] = self._ecs.tasks
        tasks.setdefault(cluster, {})[tagged.task_arn] = tagged

    def has_log_group(self, group: str) -> bool:
        """Whether a log group exists."""
        return group in logs_backends[self._account][self._region].groups


def definition_named(backend: EcsBackend, identifier: str) -> Json | None:
    """The task definition that RunTask means by an ARN, ``family:revision`` or ``family``; None if there is none.

    :raises ValueError: it cannot be the name of one.
    """
    matched = model.DEFINITION.fullmatch(identifier)
    if matched is None:
        raise ValueError(f"Invalid task definition identifier: {identifier}")
    revision = matched["revision"]
    return backend.definition(matched["family"], int(revision) if revision else None)
