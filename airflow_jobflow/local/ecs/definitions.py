"""ECS's calls for task definitions that the local AWS answers. moto keeps the definitions, and answers all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_jobflow.local.ecs import model, validation
from airflow_jobflow.local.ecs.backend import EcsBackend, definition_named
from airflow_jobflow.local.ecs.errors import client_error, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local.ecs.model import Json


class Definitions:
    """The calls for task definitions.

    :param backend: the resources of ECS.
    """

    def __init__(self, backend: EcsBackend) -> None:
        self._backend = backend
        self.actions: dict[str, Callable[[Json, int], Json]] = {
            "RegisterTaskDefinition": self._register,
            "DescribeTaskDefinition": self._describe,
            "ListTaskDefinitionFamilies": self._list_families,
        }
        """Handlers by action."""

    def _register(self, request: Json, _length: int) -> Json:
        """RegisterTaskDefinition: containers must be complete, and Fargate must be able to run it if it is required."""
        why = validation.containers_error(request)
        if model.FARGATE in request.get("requiresCompatibilities", ()):
            why = why or validation.fargate_error(request)
        if why := why or validation.memory_error(request):
            raise client_error(why)
        return _with_tags(self._backend.register(request), shown=True)

    def _describe(self, request: Json, _length: int) -> Json:
        """DescribeTaskDefinition; of a family without a revision, the newest active one."""
        found = self._named(request["taskDefinition"])
        if found is None:
            raise client_error("Unable to describe task definition.")
        return _with_tags(found, shown="TAGS" in request.get("include", ()))

    def _list_families(self, request: Json, _length: int) -> Json:
        """ListTaskDefinitionFamilies, on one page."""
        return {"families": self._backend.families(request.get("familyPrefix", ""), request.get("status", "ALL"))}

    def active(self, identifier: str) -> Json:
        """Return the task definition of a request that starts tasks.

        :param identifier: an ARN, ``family:revision`` or ``family``.
        :raises AwsError: there is none, or it is inactive.
        """
        if why := validation.foreign_arn_error(identifier, self._backend.account, self._backend.region):
            raise invalid(why)
        definition = self._named(identifier)
        if definition is None:
            raise client_error("TaskDefinition not found.")
        if definition["status"] != "ACTIVE":
            raise client_error("TaskDefinition is inactive")
        return definition

    def _named(self, identifier: str) -> Json | None:
        try:
            return definition_named(self._backend, identifier)
        except ValueError as error:
            raise invalid(str(error)) from None


def _with_tags(definition: Json, *, shown: bool) -> Json:
    tags = definition.pop("tags")
    return {"taskDefinition": definition, **({"tags": tags} if shown else {})}
