"""What the map operator for AWS Batch starts: one job for each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs import batch_request
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.batch_parameters import PARAMETERS, changes_of, reject_contradictions
from airflow_jobflow.operators.batch_spec import attempt_name, find_group
from airflow_jobflow.operators.spec import MapSpec

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.waiting.remote import RemoteJobs


class BatchMapSpec(MapSpec):
    """One Batch job for each item.

    :param values: the validated parameters of the operator, see ``PARAMETERS``: they hold for every item.
    :raises InvalidParameter: two of them contradict each other.
    """

    table = PARAMETERS

    def __init__(self, values: Mapping[str, Any]) -> None:
        reject_contradictions(values, redrive=False)
        self.values = values
        self.name: str = values["job_name"]
        self.container: str | None = values.get("container_name")
        self.changes = changes_of(values)
        self._queue: str = values["job_queue"]
        self._other_queues = [rule["job_queue"] for rule in self.changes.rules.values() if "job_queue" in rule]
        """The queues to which later attempts at an item may be submitted."""
        self._definition = definitions.of_batch(values)
        self._common = values

    def requests(self, items: Sequence[Mapping[str, Any]], jobs: RemoteJobs) -> list[dict[str, Any]]:
        """Return the SubmitJob request of each item, without its name; see the base."""
        self._definition.check_containers(jobs)
        requests = [self._request(index, item) for index, item in enumerate(items)]
        definition = self._definition.resolve(jobs, f"Map {self.name} of Batch jobs")
        return [{**request, "jobDefinition": definition} for request in requests]

    def _request(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        from airflow_jobflow.jobs import batch_map
        from airflow_jobflow.jobs.environment import variables

        common, overrides = self._common, item.get("container_overrides", {})
        for name in batch_request.duplicates(item, overrides):
            rule = f"{name} is also set in container_overrides; set it in one place only"
            raise invalid_parameter(f"items[{index}]", item, rule)
        values = {**common, **item}
        # The item's overrides replace the operator's short forms, except for single variables.
        duplicates = batch_request.duplicates(common, overrides)
        for name in {"command", *batch_request.RESOURCES}.intersection(duplicates) - item.keys():
            values.pop(name)
        cpu = values.get("vcpus", 0) * definitions.CPU_UNITS
        self._definition.check_size(f"items[{index}]", item, cpu, values.get("memory"))
        environment = common.get("environment", {}) | variables(overrides) | item.get("environment", {})
        values.pop("environment", None)
        return batch_map.item(batch_request.request(values, PARAMETERS.members), index, environment)

    def job_group(self, record: AttemptRecord) -> dict[str, Any]:
        """Return what identifies the jobs of this attempt's map."""
        from airflow_jobflow.jobs import batch_map

        name = attempt_name(record, self.name)
        job_group = batch_map.job_group(self._queue, name, record.owner.tags(), self._other_queues)
        return job_group | record.inputs.of_map(record)

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:
        """Return all jobs of this task instance."""
        queues = dict.fromkeys([self._queue, *self._other_queues])
        return [each for queue in queues for each in find_group(call, queue, self.name, group, recorded)]
