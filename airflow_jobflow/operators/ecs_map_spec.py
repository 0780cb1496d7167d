"""What the map operators for ECS start: one task for each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs.changes import Changes
from airflow_jobflow.operators.ecs_parameters import EcsParameters, changes_of
from airflow_jobflow.operators.spec import MapSpec

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.params import ParameterTable
    from airflow_jobflow.waiting.remote import RemoteJobs


INTERRUPTED: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "fail": {},
    "retry": {"i": {}},
    "on_demand": {"i": {"launch_type": "FARGATE"}},
}
"""What the next attempt at an item changes after a Spot interruption, by ``on_spot_interruption``."""


class EcsMapSpec(MapSpec):
    """One task for each item.

    :param values: the validated parameters of the operator, see ``EcsParameters``: they hold for every item.
    :param table: the operator's table of parameters, of which an item may set some.
    :raises InvalidParameter: two of them contradict each other.
    """

    def __init__(self, values: Mapping[str, Any], table: ParameterTable) -> None:
        self._parameters = EcsParameters(values)
        self.table = table
        self.values = values
        self._cluster: str = values["cluster"]
        rules = changes_of(values, table).rules
        self.changes = Changes({**rules, **INTERRUPTED[values["on_spot_interruption"]]}, "cpu")
        self.name = self._parameters.definition.label.rpartition("/")[2]
        self.scope: str | None = self._cluster
        self.container: str | None = values.get("container_name")

    def requests(self, items: Sequence[Mapping[str, Any]], jobs: RemoteJobs) -> list[dict[str, Any]]:
        """Return the RunTask request of each item, without its token; see the base."""
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.operators import submission

        common, definition = self._parameters.values, self._parameters.definition
        named = {item["container_name"] for item in items if "container_name" in item}
        definition.check_containers(jobs, *sorted(named))
        main: str = common.get("container_name") or definition.main_container or ""
        if not main and not all("container_name" in item for item in items):
            main = submission.submit_once(
                jobs.call,
                lambda call: ecs.main_container(call, definition.label),
                None,
                f"A map of {definition.label}",
                repeatable=True,
                origin=lambda: jobs.origin,
            )
            self._parameters.reject_contradictions(main)
        requests = [self._request(index, item, item.get("container_name") or main) for index, item in enumerate(items)]
        revision = definition.resolve(jobs, f"A map of {definition.label}")
        return [{**request, "taskDefinition": revision} for request in requests]

    def _request(self, index: int, item: Mapping[str, Any], container: str) -> dict[str, Any]:
        from airflow_jobflow.jobs import ecs, ecs_map
        from airflow_jobflow.jobs.environment import variables

        self._parameters.reject_unsupported(item, f"items[{index}]")
        common, overrides = self._parameters.values, item.get("overrides", {})
        for name in ecs.duplicates(item, overrides, container):
            raise invalid_parameter(
                f"items[{index}]", item, f"{name} is also set in overrides; set it in one place only"
            )
        # The item's overrides replace the operator's short forms, except for single variables.
        replaced = set(ecs.duplicates(common, overrides, container)) - {"environment"}
        values = {name: value for name, value in common.items() if name not in replaced} | dict(item)
        self._parameters.definition.check_size(f"items[{index}]", item, values.get("cpu"), values.get("memory"))
        overridden = variables(ecs.container_overrides(overrides, container))
        environment = common.get("environment", {}) | overridden | item.get("environment", {})
        values.pop("environment", None)
        return ecs_map.item(self._parameters.request(values, container), container, index, environment)

    def job_group(self, record: AttemptRecord) -> dict[str, Any]:
        """Return what identifies the tasks of this attempt's map."""
        from airflow_jobflow.jobs import ecs_map

        owner, token = record.owner, record.attempt.token
        job_group = ecs_map.job_group(self._cluster, owner.group, token, owner.tags())
        return job_group | record.inputs.of_map(record)

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:  # noqa: ARG002
        """Return all tasks of this task instance in the cluster."""
        from airflow_jobflow.jobs import ecs

        return ecs.find_group(call, self._cluster, group)
