"""The container instances of the local ECS, and what runs on them.

moto keeps the instances, and answers the calls about them. A cluster that needs instances of a kind, and has none, gets
simulated ones.

Invariants: `Instances` is used under the lock of `tasks.Tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_jobflow.local.ecs import placement
from airflow_jobflow.local.ecs.errors import invalid
from airflow_jobflow.local.ecs.model import EC2, EXTERNAL, name_of
from airflow_jobflow.local.ecs.placement import Host, Resources

if TYPE_CHECKING:
    from moto.ecs.models import ContainerInstance

    from airflow_jobflow.local.ecs.backend import EcsBackend
    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.ecs.task import Start
    from airflow_jobflow.local.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a task on a container instance."""

    instance: ContainerInstance
    resources: Resources
    group: str

    @property
    def arn(self) -> str:
        """The ARN of the container instance."""
        return str(self.instance.container_instance_arn)

    @property
    def instance_id(self) -> str:
        """The id of the EC2 instance, or of the external one."""
        return str(self.instance.ec2_instance_id)


class Instances:
    """The container instances of a region.

    :param backend: the resources of ECS.
    :param settings: how many instances a cluster gets, and their size.
    """

    def __init__(self, backend: EcsBackend, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings
        self._places: list[Place] = []
        self._known: set[tuple[str, str, str | None]] = set()
        """The kinds of instances that a cluster has had: its name, launch type and capacity provider."""

    def of(self, cluster: str, launch_type: str, provider: str | None) -> list[ContainerInstance]:
        """Return the active instances that may run a task; simulated ones are added if there never were any.

        :param cluster: the name of the cluster.
        :param launch_type: ``EC2`` or ``EXTERNAL``.
        :param provider: the capacity provider; None for all instances of the launch type.
        """
        kind = (cluster, launch_type, provider)
        if kind not in self._known and not self._registered(*kind):
            for _ in range(self._settings.instances):
                self._backend.add_instance(cluster, self._settings, external=launch_type == EXTERNAL, provider=provider)
        self._known.add(kind)
        return [each for each in self._registered(*kind) if each.status == "ACTIVE"]

    def keep(self, cluster: str) -> None:
        """Simulate no instances for launch type EC2 in a cluster whose instances are registered by a user.

        :param cluster: the name of the cluster.
        """
        self._known.add((cluster, EC2, None))

    def _registered(self, cluster: str, launch_type: str, provider: str | None) -> list[ContainerInstance]:
        return [
            each
            for each in self._backend.instances(cluster)
            if str(each.ec2_instance_id).startswith("mi-") == (launch_type == EXTERNAL)
            and provider in (None, getattr(each, "capacity_provider_name", None))
        ]

    def place(self, start: Start, provider: str | None) -> tuple[Place | None, list[Json]]:
        """Find the instance for a task, and reserve what it needs.

        :param start: the request.
        :param provider: its capacity provider, if any.
        :return: the place; or None, and a failure for each instance.
        :raises AwsError: there are no instances, or an expression is not supported.
        """
        request = start.request
        instances = self.of(start.cluster.name, start.launch_type, provider)
        if not instances:
            raise invalid(
                f"No Container Instances were found in your {'capacity provider' if provider else 'cluster'}."
            )
        constraints = [*(start.definition.get("placementConstraints") or ()), *request.get("placementConstraints", ())]
        wanted = placement.needed(start.definition, request.get("overrides", {}))
        hosts = [self._host(each) for each in instances]
        try:
            arn, failures = placement.choose(
                hosts, wanted, constraints, request.get("placementStrategy", ()), start.group
            )
        except ValueError as error:
            raise invalid(str(error)) from None
        chosen = next((each for each in instances if each.container_instance_arn == arn), None)
        return (self._reserve(chosen, wanted, start.group), []) if chosen else (None, failures)

    def place_on(self, start: Start, instance: str) -> tuple[Place | None, list[Json]]:
        """Reserve what a task needs on a given instance, as StartTask does.

        :param start: the request.
        :param instance: id or ARN of the container instance.
        :return: the place; or None, and the failure.
        """
        wanted = placement.needed(start.definition, start.request.get("overrides", {}))
        known = self._backend.instances(start.cluster.name)
        found = next((each for each in known if name_of(each.container_instance_arn) == name_of(instance)), None)
        reason = "MISSING" if found is None else self._host(found).free.lacking(wanted)
        if found is None or reason:
            return None, [{"arn": instance, "reason": reason}]
        return self._reserve(found, wanted, start.group), []

    def _host(self, instance: ContainerInstance) -> Host:
        groups = [each.group for each in self._places if each.instance is instance]
        arn, attributes = instance.container_instance_arn, instance.attributes
        return Host(arn, instance.ec2_instance_id, attributes, self._backend.free(instance), groups)

    def _reserve(self, instance: ContainerInstance, wanted: Resources, group: str) -> Place:
        place = Place(instance, wanted, group)
        self._places.append(place)
        self._backend.use(instance, wanted, 1)
        return place

    def release(self, place: Place) -> None:
        """Free the resources of a task that has stopped.

        :param place: its place.
        """
        self._places.remove(place)
        self._backend.use(place.instance, place.resources, -1)
