"""Operators for AWS Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.exceptions import CapacityUnavailable, JobflowError, SubmissionError
from airflow_jobflow.jobs.model import index_ranges
from airflow_jobflow.links import (
    BatchJobDefinitionLink,
    BatchJobLink,
    BatchJobQueueLink,
    JobLogLink,
)
from airflow_jobflow.operators.base import OF_ONE_JOB, JobOperator
from airflow_jobflow.operators.map import MapOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.jobs.reattach import Found


def _shape(member: str) -> params.AwsShape:
    return params.AwsShape("batch", "SubmitJob", member)


CHECKS: dict[str, params.Check] = {
    "job_name": params.job_name,
    "job_queue": params.non_empty_string,
    "job_definition": params.non_empty_string,
    "command": params.string_list,
    "environment": params.string_map,
    "vcpus": lambda name, value: params.number(name, value, least=0, above=True),
    "memory": lambda name, value: params.integer(name, value, least=4),
    "gpus": lambda name, value: params.integer(name, value, least=1),
    "container_overrides": _shape("containerOverrides"),
    "array_size": lambda name, value: params.integer(name, value, least=1, most=10_000),
    "array_properties": _shape("arrayProperties"),
    "parameters": params.string_map,
    "depends_on": _shape("dependsOn"),
    "retry_strategy": _shape("retryStrategy"),
    "attempt_timeout": lambda name, value: params.integer(name, value, least=60),
    "tags": params.string_map,
    "propagate_tags": params.boolean,
    "share_identifier": params.non_empty_string,
    "scheduling_priority_override": lambda name, value: params.integer(name, value, least=0, most=9999),
    "node_overrides": _shape("nodeOverrides"),
    "ecs_properties_override": _shape("ecsPropertiesOverride"),
    "eks_properties_override": _shape("eksPropertiesOverride"),
    "consumable_resource_properties_override": _shape("consumableResourcePropertiesOverride"),
    "container_name": params.non_empty_string,
}
"""What SubmitJob is told, and how the job is read, by our parameter, and what each must be."""


REQUIRED = ("job_name", "job_queue", "job_definition")
"""What a template must not render as None."""


NOT_IN_CONTAINER_OVERRIDES = ("node_overrides", "ecs_properties_override", "eks_properties_override")
"""Parameters for jobs that have no container of their own to override."""


class BatchJobOperator(JobOperator):
    """Run a job, or an array of jobs, on AWS Batch.

    Parameters mean what they mean in `SubmitJob <https://docs.aws.amazon.com/batch/latest/APIReference/
    API_SubmitJob.html>`_; all are templated; what is not given is not sent, so that the job definition decides.

    :param job_name: the job's name: 1 to 128 letters, digits, hyphens and underscores. A token of a few characters
        is appended, unless ``durable=False``.
    :param job_queue: name or ARN of the queue.
    :param job_definition: name, name with revision, or ARN of the job definition.
    :param command: the container's command, as a list of words.
    :param environment: environment variables of the container, by name; added to those in ``container_overrides``.
    :param vcpus, memory, gpus: what the container gets: vCPUs, such as 0.25 or 4, MiB, and GPUs.
    :param container_overrides: ``containerOverrides``, for all that the five before do not say. What is said twice is
        rejected.
    :param array_size: 1 to 10,000 for an array of so many children; each finds its index in
        ``AWS_BATCH_JOB_ARRAY_INDEX``. AWS has no array of one: 1 runs a plain job, without that variable, whose
        outcome is that of an array of one. Short for ``array_properties``.
    :param array_properties: ``arrayProperties``.
    :param parameters: values for the definition's ``Ref::`` placeholders.
    :param depends_on: jobs to wait for in the queue, as ``[{"jobId": …, "type": …}]``.
    :param retry_strategy: ``retryStrategy``: how often, and when, Batch itself tries again.
    :param attempt_timeout: seconds, or a timedelta, of at least 60, after which Batch ends an attempt.
    :param tags, propagate_tags: tags of the job, and whether the ECS task gets them too.
    :param share_identifier, scheduling_priority_override: its place in a queue with fair shares.
    :param node_overrides, ecs_properties_override, eks_properties_override,
        consumable_resource_properties_override: as in SubmitJob.
    :param container_name: of a job of several containers, the one whose exit code, reason and log count. Batch itself
        decides whether the job has failed. Default: the first essential one that failed by itself.

    The others are those of :class:`airflow_jobflow.operators.base.JobOperator` and
    :class:`airflow_jobflow.waiting.JobWaiter`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
    """

    service: ClassVar[str] = "batch"
    OF_ARRAYS: ClassVar[Mapping[str, str]] = OF_ONE_JOB
    """Parameters that mean nothing without ``array_size``, and why."""
    template_fields: Sequence[str] = (*JobOperator.template_fields, *CHECKS)
    template_fields_renderers: ClassVar[dict[str, str]] = params.renderers(CHECKS)
    operator_extra_links = (BatchJobLink(), JobLogLink(), BatchJobQueueLink(), BatchJobDefinitionLink())
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        job_name: str,
        job_queue: str,
        job_definition: str,
        command: Sequence[str] | str | None = None,
        environment: dict[str, Any] | str | None = None,
        vcpus: float | str | None = None,
        memory: int | str | None = None,
        gpus: int | str | None = None,
        container_overrides: dict[str, Any] | str | None = None,
        array_size: int | str | None = None,
        array_properties: dict[str, Any] | str | None = None,
        parameters: dict[str, Any] | str | None = None,
        depends_on: Sequence[dict[str, Any]] | str | None = None,
        retry_strategy: dict[str, Any] | str | None = None,
        attempt_timeout: float | str | timedelta | None = None,
        tags: dict[str, str] | str | None = None,
        propagate_tags: bool | str | None = None,
        share_identifier: str | None = None,
        scheduling_priority_override: int | str | None = None,
        node_overrides: dict[str, Any] | str | None = None,
        ecs_properties_override: dict[str, Any] | str | None = None,
        eks_properties_override: dict[str, Any] | str | None = None,
        consumable_resource_properties_override: dict[str, Any] | str | None = None,
        container_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.job_queue = job_queue
        self.job_definition = job_definition
        self.command = command
        self.environment = environment
        self.vcpus = vcpus
        self.memory = memory
        self.gpus = gpus
        self.container_overrides = container_overrides
        self.array_size = array_size
        self.array_properties = array_properties
        self.parameters = parameters
        self.depends_on = depends_on
        self.retry_strategy = retry_strategy
        self.attempt_timeout = attempt_timeout
        self.tags = tags
        self.propagate_tags = propagate_tags
        self.share_identifier = share_identifier
        self.scheduling_priority_override = scheduling_priority_override
        self.node_overrides = node_overrides
        self.ecs_properties_override = ecs_properties_override
        self.eks_properties_override = eks_properties_override
        self.consumable_resource_properties_override = consumable_resource_properties_override
        self.container_name = container_name

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        if "arrayProperties" not in self.request():
            params.reject(self, self.OF_ARRAYS)
        self.container()

    def container(self) -> str | None:
        """Return the name of the container that counts."""
        return None if self.container_name is None else params.non_empty_string("container_name", self.container_name)

    def known_name(self) -> str:
        """Return what the task calls its job."""
        return self.job_name

    def request(self) -> dict[str, Any]:
        """Check the parameters, and build the SubmitJob request of them.

        :raises InvalidParameter: one of them is wrong, or two contradict each other.
        """
        from airflow_jobflow.jobs import batch_request

        values = params.validated(self, CHECKS, REQUIRED)
        overrides, array = values.get("container_overrides", {}), values.get("array_properties", {})
        for name in batch_request.duplicates(values, overrides):
            raise params.invalid_parameter(name, getattr(self, name), "container_overrides says it too; keep one")
        if "array_size" in values and "size" in array:
            raise params.invalid_parameter(
                "array_size", self.array_size, "array_properties says the size too; keep one"
            )
        specified_elsewhere = [name for name in NOT_IN_CONTAINER_OVERRIDES if name in values]
        for name in batch_request.SHORT_FORMS if specified_elsewhere else ():
            if name in values:
                rule = f"is short for a part of container_overrides; with {specified_elsewhere[0]}, say it there"
                raise params.invalid_parameter(name, getattr(self, name), rule)
        if self.redrive and specified_elsewhere:
            rule = "with redrive, the children learn who they are in container_overrides, which this leaves no room for"
            raise params.invalid_parameter(specified_elsewhere[0], values[specified_elsewhere[0]], rule)
        if "size" in array:
            array["size"] = CHECKS["array_size"]("array_properties['size']", array["size"])
        return batch_request.request(values)

    def submit(self, context: Context) -> Sequence[str]:
        """Submit the job, or what is to run again of an array, and return the ids."""
        from airflow_jobflow.jobs import batch

        request = self.request()
        self.check_container(batch.container_names, request["jobDefinition"])
        earlier, resubmits = self.attempt, self.resubmits
        runs = self._runs(request)
        if runs is None:
            return earlier.job_ids
        self.new_attempt(
            context,
            where={"job_name": request["jobName"], "queue": request["jobQueue"]},
            size=request.get("arrayProperties", {}).get("size", 0),
            parts=[index_ranges(indexes) for indexes, _ in runs if indexes],
        )
        names = self._names(context, request["jobName"], len(runs))
        job_ids: list[str] = []
        try:
            for name, (_, part) in zip(names, runs, strict=True):
                one = {**part, "jobName": name}
                job_ids.append(self._submit_one(context, one, look_first=resubmits and len(runs) > 1))
        except JobflowError as error:
            self._stopped(job_ids, "Airflow: another part of the array could not be submitted")
            if job_ids:  # a later try must not take what was stopped for its own
                self.attempt = earlier
                self.save_if_possible(context)
            if self.redrive and isinstance(
                error, CapacityUnavailable
            ):  # what has to run again is found out by the next try
                raise SubmissionError(str(error)) from error
            raise
        if self.redrive:  # which job runs which part cannot be computed
            self.attempt.job_ids = job_ids
            self.save_if_possible(context)
        return job_ids

    def _names(self, context: Context, name: str, count: int) -> list[str]:
        """Return names that nobody else uses."""
        if not self.durable:
            return [name] * count
        name = self.attempt_name(context, name)
        return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]

    def attempt_name(self, context: Context, name: str) -> str:
        """Return the name of the job of this attempt.

        :param name: the user's name for the job.
        """
        from airflow_jobflow.jobs.batch import attempt_name

        return attempt_name(name, self.job_owner(context).group, self.this_try(context), self.attempt.token)

    def _runs(self, request: dict[str, Any]) -> list[tuple[list[int], dict[str, Any]]] | None:
        """Return what is to be submitted, and the indexes in it where it is a part; None if nothing is left to run."""
        from airflow_jobflow.jobs.array import as_plain_job, indexes_of, rerun_requests

        earlier, size = self.attempt, request.get("arrayProperties", {}).get("size", 0)
        whole: list[tuple[list[int], dict[str, Any]]] = [([], as_plain_job(request) if size == 1 else request)]
        if not self.redrive or not size:
            return whole
        if self.resubmits and earlier.parts and earlier.size == size:
            again: list[int] | None = [index for part in earlier.parts for index in indexes_of(part)]
        else:
            again = self._not_succeeded(size)
        if again is None:
            return whole
        if not again:
            return None
        self.log.info("Running the %d of %d children that did not succeed: %s", len(again), size, index_ranges(again))
        return list(rerun_requests(request, again))

    def _submit_one(self, context: Context, request: dict[str, Any], *, look_first: bool = False) -> str:
        """Submit a job, unless an earlier try has, and return its id."""
        from airflow_jobflow.jobs import batch
        from airflow_jobflow.jobs.owner import with_owner_tags
        from airflow_jobflow.jobs.tagging import start_tagged
        from airflow_jobflow.operators.submission import submit_once

        queue, name = request["jobQueue"], request["jobName"]
        tags, _ = with_owner_tags(request.get("tags", {}), self.job_owner(context).tags())

        def find(call: Call) -> str | None:
            return batch.find(call, queue, name)

        def submit(call: Call) -> str:
            return start_tagged(call, batch.submit, request, {**request, "tags": tags})

        if look_first:  # the attempt is repeated: it was begun by an earlier try, which the name says
            prefix = batch.group_prefix(self.attempt.where["job_name"], self.group_of(context, self.attempt))
            end = name.removeprefix(prefix).partition("-")[2]
            if found := self.call(batch.find_of_any_try, queue, prefix, end):
                return found
        self.log.info("Submitting %s to %s: %s", name, queue, request)
        found_by = find if self.durable else None
        return submit_once(self.call, submit, found_by, f"Batch job {name}", origin=self.origin)

    def find_started(self, call: Call, context: Context) -> str | None:
        """Return the job of this attempt, if an earlier submit, which seemed to fail, has started it."""
        from airflow_jobflow.jobs import batch

        where = self.attempt.where
        return batch.find(call, where["queue"], self.attempt_name(context, where["job_name"]))

    def find_group(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:
        """Return all jobs of this task instance in the queue that the last try has used."""
        from airflow_jobflow.jobs import batch

        name = recorded.where.get("job_name", self.job_name)
        prefix = batch.group_prefix(name, self.group_of(context, recorded))
        return batch.find_group(call, recorded.where.get("queue", self.job_queue), prefix)

    def _not_succeeded(self, size: int) -> list[int] | None:
        """Return the indexes that an earlier try of this task has left to run again; None for all there are.

        AWS is asked, because an earlier try may have ended before it knew.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs import batch

        earlier = self.attempt
        if earlier.size != size or len(earlier.job_ids) != max(1, len(earlier.parts)):
            return None
        parts = list(zip(earlier.job_ids, self._parts(earlier), strict=True))
        try:
            left = self.call(batch.not_succeeded, parts)
        except CallError as error:
            raise SubmissionError(
                f"Nothing was started, because it could not be found out which children of {self.job_name} failed "
                f"(asked with {self.origin()}): {error}"
            ) from error
        if left is None:
            self.log.warning("All children run again: the array of the previous try is unknown or still running")
        return left

    @staticmethod
    def _parts(attempt: Attempt) -> list[Sequence[int]]:
        """Return the indexes, in the whole array, of what each job of an attempt runs."""
        from airflow_jobflow.jobs.array import indexes_of

        return [indexes_of(part) for part in attempt.parts] or [range(attempt.size)]

    def build_outcomes(
        self, context: Context, ended: Sequence[Snapshot], tolerance: Tolerance
    ) -> list[tuple[Outcome, JobflowError | None]]:
        """Judge what has ended; several parts of an array as the one array they are of."""
        if self._is_array_of_one():
            return [self.outcome_builder.array_outcome([(job, [0]) for job in ended], 1, tolerance)]
        if not self.attempt.parts:
            return super().build_outcomes(context, ended, tolerance)
        parts = list(zip(ended, self._parts(self.attempt), strict=True))
        return [self.outcome_builder.array_outcome(parts, self.attempt.size, tolerance)]

    def _is_array_of_one(self) -> bool:
        """Return whether the job is a plain one in place of an array. The record of that may be lost."""
        return bool(self.request().get("arrayProperties", {}).get("size") == 1)

    def returns(self, context: Context | None = None) -> str | None:
        """Return what a success returns; the parts of an array are put together on a worker."""
        return None if self.attempt.parts or self._is_array_of_one() else super().returns(context)

    def queue_position(self, seen: Mapping[str, Snapshot]) -> str:
        """Say where in the queue the jobs stand, as a sentence; nothing where that cannot be found out."""
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs import batch

        queues = {snapshot.queue for snapshot in seen.values() if snapshot.queue}
        try:
            places = [self.call(batch.queue_position, queue, list(seen)) for queue in queues]
        except CallError as error:
            self.log.warning("Could not find out the job's place in the queue: %s", error)
            return ""
        return "".join(f"{place} " for place in places)


class BatchMapOperator(MapOperator, BatchJobOperator):
    """Run one Batch job for each item, from one task instance.

    :param items: each may say ``command``, ``environment``, ``vcpus``, ``memory``, ``gpus``, ``parameters``,
        ``container_overrides``, ``attempt_timeout``, ``tags``, ``retry_strategy``, ``share_identifier``,
        ``scheduling_priority_override``.

    The others are those of :class:`airflow_jobflow.operators.map.MapOperator` and of :class:`BatchJobOperator`, but
    for arrays and for jobs of several containers. Jobs are named ``<job_name>-<token>-<index>``.
    """

    ITEM: ClassVar[Mapping[str, params.Check]] = {
        name: CHECKS[name]
        for name in (
            "command",
            "environment",
            "vcpus",
            "memory",
            "gpus",
            "parameters",
            "container_overrides",
            "attempt_timeout",
            "tags",
            "retry_strategy",
            "share_identifier",
            "scheduling_priority_override",
        )
    }
    OF_ARRAYS: ClassVar[Mapping[str, str]] = {}
    NOT_HONOURED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("array_size", "array_properties", *NOT_IN_CONTAINER_OVERRIDES),
        "means nothing on a map, whose items are jobs each",
    )
    template_fields: Sequence[str] = (*BatchJobOperator.template_fields, *MapOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **BatchJobOperator.template_fields_renderers,
        "items": "json",
    }

    def requests(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Build the SubmitJob request of each item, but for its name."""
        from airflow_jobflow.jobs import batch, batch_map, batch_request
        from airflow_jobflow.jobs.environment import variables

        common = params.validated(self, CHECKS, REQUIRED)
        self.check_container(batch.container_names, common["job_definition"])
        result = []
        for index, item in enumerate(items):
            overrides = item.get("container_overrides", {})
            for name in batch_request.duplicates(item, overrides):
                raise params.invalid_parameter(
                    f"items[{index}]", item, f"container_overrides says the {name} too; keep one"
                )
            values = {**common, **item}
            # What the item's overrides say goes before the operator's short forms, except for single variables.
            for name in {"command", *batch_request.RESOURCES}.intersection(
                batch_request.duplicates(common, overrides)
            ) - item.keys():
                values.pop(name)
            environment = common.get("environment", {}) | variables(overrides) | item.get("environment", {})
            values.pop("environment", None)
            result.append(batch_map.item(batch_request.request(values), index, environment))
        return result

    def family(self, context: Context) -> dict[str, Any]:
        """Return what tells the jobs of this attempt's map from all others."""
        from airflow_jobflow.jobs import batch_map

        owner = self.job_owner(context).tags()
        return batch_map.family(self.job_queue, self.attempt_name(context, self.job_name), owner)

    def map_name(self) -> str:
        """Return what a person calls the map."""
        return self.job_name
