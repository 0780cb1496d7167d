"""What the operators for AWS Batch start: a job, or an array of jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import CapacityUnavailable, JobflowError, SubmissionError, invalid_parameter
from airflow_jobflow.jobs import batch_request
from airflow_jobflow.jobs.array import index_ranges
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.inputs import NOT_IN_CONTAINER_OVERRIDES, log_left_out
from airflow_jobflow.operators.spec import JobSpec
from airflow_jobflow.params import Parameter, ParameterTable

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.outcomes import OutcomeBuilder
    from airflow_jobflow.waiting.remote import RemoteJobs


def _shape(member: str) -> params_json.AwsShape:
    return params_json.AwsShape("batch", "SubmitJob", member)


PARAMETERS: Final = ParameterTable(
    {
        "job_name": Parameter("jobName", params.job_name, required=True),
        "job_queue": Parameter("jobQueue", params.non_empty_string, required=True),
        **definitions.BATCH_PARAMETERS,
        "command": Parameter("", params_json.string_list, in_item=True),
        "environment": Parameter("", params_json.string_map, in_item=True),
        "vcpus": Parameter("", partial(params.number, least=0, above=True), in_item=True),
        "memory": Parameter("", partial(params.integer, least=4, unit="MiB"), in_item=True),
        "gpus": Parameter("", partial(params.integer, least=1), in_item=True),
        "container_overrides": Parameter("containerOverrides", _shape("containerOverrides"), in_item=True),
        "array_size": Parameter("", partial(params.integer, least=1, most=10_000)),
        "array_properties": Parameter("arrayProperties", _shape("arrayProperties")),
        "parameters": Parameter("parameters", params_json.string_map, in_item=True),
        "depends_on": Parameter("dependsOn", _shape("dependsOn")),
        "retry_strategy": Parameter("retryStrategy", _shape("retryStrategy"), in_item=True),
        "attempt_timeout": Parameter("timeout", partial(params.integer, least=60), in_item=True),
        "tags": Parameter("tags", params_json.string_map, in_item=True),
        "propagate_tags": Parameter("propagateTags", params.boolean),
        "share_identifier": Parameter("shareIdentifier", params.non_empty_string, in_item=True),
        "scheduling_priority_override": Parameter(
            "schedulingPriorityOverride",
            partial(params.integer, least=0, most=9999),
            in_item=True,
        ),
        "node_overrides": Parameter("nodeOverrides", _shape("nodeOverrides")),
        "ecs_properties_override": Parameter("ecsPropertiesOverride", _shape("ecsPropertiesOverride")),
        "eks_properties_override": Parameter("eksPropertiesOverride", _shape("eksPropertiesOverride")),
        "consumable_resource_properties_override": Parameter(
            "consumableResourcePropertiesOverride", _shape("consumableResourcePropertiesOverride")
        ),
        "container_name": Parameter("", params.non_empty_string),
    }
)
"""The parameters of SubmitJob, those that make a job definition, and ``container_name``, which is not sent."""


def reject_contradictions(values: Mapping[str, Any], *, redrive: bool) -> None:
    """Reject parameters that contradict each other.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :param redrive: whether a retry runs only the children of an array that did not succeed.
    :raises InvalidParameter: two of them do.
    """
    overrides, array = values.get("container_overrides", {}), values.get("array_properties", {})
    for name in batch_request.duplicates(values, overrides) if overrides else ():
        raise invalid_parameter(name, values[name], "is also set in container_overrides; set it in one place only")
    if "size" in array:
        if "array_size" in values:
            rule = "the size is also set in array_properties; set it in one place only"
            raise invalid_parameter("array_size", values["array_size"], rule)
        PARAMETERS["array_size"].check("array_properties['size']", array["size"])
    elsewhere = next((name for name in NOT_IN_CONTAINER_OVERRIDES if name in values), None)
    for name in batch_request.SHORT_FORMS if elsewhere else ():
        if name in values:
            rule = f"is short for a part of container_overrides, which does not apply with {elsewhere}; set it there"
            raise invalid_parameter(name, values[name], rule)
    if redrive and elsewhere:
        rule = "cannot be combined with redrive, which passes each child its index in container_overrides"
        raise invalid_parameter(elsewhere, values[elsewhere], rule)


def attempt_name(record: AttemptRecord, name: str) -> str:
    """Return the name of the job of an attempt, which no other job has.

    :param record: the attempt.
    :param name: the user's name for the job.
    """
    from airflow_jobflow.jobs import batch_search

    return batch_search.attempt_name(
        name, record.attempt.group or record.owner.group, record.this_try, record.attempt.token
    )


def with_result(request: dict[str, Any], uri: str | None) -> dict[str, Any]:
    """Return a request with the variable that says where the job writes its result.

    :param request: the SubmitJob request.
    :param uri: the address; None for none.
    """
    from airflow_jobflow.jobs.environment import RESULT_URI, with_variables

    if uri is None:
        return request
    return {**request, "containerOverrides": with_variables(request.get("containerOverrides", {}), {RESULT_URI: uri})}


def _with_context_variables(record: AttemptRecord, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the variables that name the job's task, if it has ``containerOverrides``."""
    from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH, with_context

    context = record.inputs.context(record)
    if not context or any(PARAMETERS.members[name] in request for name in NOT_IN_CONTAINER_OVERRIDES):
        return request
    overrides = request.get("containerOverrides", {})
    own, left_out = with_context(overrides, context, MAX_BATCH_OVERRIDES_LENGTH - len(json.dumps(overrides)))
    log_left_out(left_out)
    return {**request, "containerOverrides": own}


class BatchJobSpec(JobSpec):
    """A Batch job, or an array of jobs.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :param redrive: whether a retry runs only the children of an array that did not succeed.
    :raises InvalidParameter: two of them contradict each other.
    """

    def __init__(self, values: Mapping[str, Any], *, redrive: bool = False) -> None:
        reject_contradictions(values, redrive=redrive)
        self.values = values
        self.name: str = values["job_name"]
        self.container: str | None = values.get("container_name")
        self.request = batch_request.request(values, PARAMETERS.members)
        """The SubmitJob request, with the user's name of the job."""
        self.is_array = "arrayProperties" in self.request
        self.array_size = int(self.request.get("arrayProperties", {}).get("size", 0))
        """How many children the array has; 0 if it is none."""
        self.is_one_job = self.array_size != 1
        self._queue: str = values["job_queue"]
        self._definition = definitions.of_batch(values)
        self._redrive = redrive

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Submit the job, or the part of an array that runs again; see the base."""
        request = self.request
        self._definition.check_containers(jobs)
        earlier, is_repeated, inputs = record.attempt, record.is_repeated, record.inputs
        runs = self._runs(record, jobs)
        if runs is None:
            return earlier.job_ids
        record.new_attempt(
            job_name=request["jobName"],
            queue=request["jobQueue"],
            size=self.array_size,
            parts=[index_ranges(indexes) for indexes, _ in runs if indexes],
        )
        is_redriven = any(indexes for indexes, _ in runs)
        record.attempt.results = dict(earlier.results) if is_redriven else {}
        job_ids: list[str] = []
        try:
            definition = self._definition.resolve(jobs, f"Batch job {self.name}")
            for number, (name, (indexes, part)) in enumerate(zip(self._names(record, len(runs)), runs, strict=True)):
                uri = inputs.result_uri(record, number if is_redriven else None)
                if uri and self.array_size and self._redrive:
                    record.attempt.results[uri] = index_ranges(indexes or range(self.array_size))
                one = {**with_result(part, uri), "jobName": name, "jobDefinition": definition}
                job_ids.append(self._submit_one(record, jobs, one, look_first=is_repeated and len(runs) > 1))
        except JobflowError as error:
            jobs.try_to_stop(job_ids, "Airflow: another part of the array could not be submitted")
            if job_ids:  # a later try must not wait for what was stopped
                record.attempt = earlier
                record.save_if_possible()
            if self._redrive and isinstance(error, CapacityUnavailable):  # the next try finds out what has to run again
                raise SubmissionError(str(error)) from error
            raise
        if self._redrive:  # which job runs which part cannot be computed
            record.attempt.job_ids = job_ids
            record.save_if_possible()
        return job_ids

    def _names(self, record: AttemptRecord, count: int) -> list[str]:
        """Return the names of the jobs; of a durable task, names that no other job has."""
        if not record.durable:
            return [self.request["jobName"]] * count
        name = attempt_name(record, self.request["jobName"])
        return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]

    def _runs(self, record: AttemptRecord, jobs: RemoteJobs) -> list[tuple[list[int], dict[str, Any]]] | None:
        """Return the requests to submit, and the indexes in each that is a part; None if nothing is left to run."""
        from airflow_jobflow.jobs.array import as_plain_job, indexes_of, rerun_requests

        request, earlier, size = self.request, record.attempt, self.array_size
        whole: list[tuple[list[int], dict[str, Any]]] = [([], as_plain_job(request) if size == 1 else request)]
        if not self._redrive or not size:
            return whole
        if record.is_repeated and earlier.parts and earlier.size == size:
            again: list[int] | None = [index for part in earlier.parts for index in indexes_of(part)]
        else:
            again = self._not_succeeded(earlier, jobs)
        if again is None:
            return whole
        if not again:
            return None
        jobs.log.info("Running the %d of %d children that did not succeed: %s", len(again), size, index_ranges(again))
        return list(rerun_requests(with_result(request, record.inputs.longest_uri(record)), again))

    def _not_succeeded(self, earlier: Attempt, jobs: RemoteJobs) -> list[int] | None:
        """Return the indexes that an earlier try left to run again; None for all.

        AWS is queried, because an earlier try may have ended before it knew.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs import batch

        if earlier.size != self.array_size or len(earlier.job_ids) != max(1, len(earlier.parts)):
            return None
        parts = list(zip(earlier.job_ids, _indexes_of_parts(earlier), strict=True))
        try:
            left = jobs.call(batch.not_succeeded, parts)
        except CallError as error:
            raise SubmissionError(
                f"Nothing was started, because the failed children of {self.name} could not be determined "
                f"(connection: {jobs.origin}): {error}"
            ) from error
        if left is None:
            jobs.log.warning("All children run again: the array of the previous try is unknown or still running")
        return left

    def _submit_one(
        self, record: AttemptRecord, jobs: RemoteJobs, request: dict[str, Any], *, look_first: bool = False
    ) -> str:
        """Submit a job, unless an earlier try has, and return its id."""
        from airflow_jobflow.jobs import batch, batch_search
        from airflow_jobflow.jobs.environment import start_without_if_rejected
        from airflow_jobflow.jobs.owner import with_owner_tags
        from airflow_jobflow.jobs.starting import start_tagged
        from airflow_jobflow.operators import submission

        queue, name = request["jobQueue"], request["jobName"]
        tags, _ = with_owner_tags(request.get("tags", {}), record.owner.tags())

        def find(call: Call) -> str | None:
            return batch_search.find(call, queue, name)

        with_variables = _with_context_variables(record, request)

        def submit(call: Call) -> str:
            found = record.before_submit(call)
            return found or start_tagged(call, start, with_variables, {**with_variables, "tags": tags})

        def start(call: Call, full: Mapping[str, Any]) -> str:
            plain = {**full, "containerOverrides": request.get("containerOverrides")}
            plain = {name: value for name, value in plain.items() if value is not None}
            return start_without_if_rejected(call, batch.submit, full, plain)

        if look_first:  # an earlier try began the attempt, and the name says which
            prefix = batch_search.group_prefix(record.attempt.job_name, record.group)
            end = name.removeprefix(prefix).partition("-")[2]
            if found := jobs.call(batch_search.find_of_any_try, queue, prefix, end):
                return found
        jobs.log.info("Submitting %s to %s: %s", name, queue, batch_request.shortened(with_variables))
        found_by = find if record.durable else None
        return submission.submit_once(jobs.call, submit, found_by, f"Batch job {name}", origin=lambda: jobs.origin)

    @property
    def listing(self) -> tuple[str, str]:
        """The queue, and the name prefix of the jobs."""
        from airflow_jobflow.jobs import batch_search

        return self._queue, batch_search.name_prefix(self.name)

    def list_attempts(self, call: Call, since: float) -> Mapping[str, str]:
        """Return the jobs with this name prefix; see the base."""
        from airflow_jobflow.jobs import batch_search

        return batch_search.list_attempts(call, *self.listing, since)

    def find_started(self, call: Call, record: AttemptRecord) -> str | None:
        """Return the job of this attempt, if an earlier submit, which seemed to fail, has started it."""
        from airflow_jobflow.jobs import batch_search

        return batch_search.find(call, record.attempt.queue, attempt_name(record, record.attempt.job_name))

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:
        """Return all jobs of this task instance in the queue that the last try used."""
        return find_group(call, self._queue, self.name, group, recorded)

    def outcomes(
        self, builder: OutcomeBuilder, ended: Sequence[Snapshot], attempt: Attempt, tolerance: Tolerance
    ) -> Sequence[tuple[Outcome, JobflowError | None]]:
        """Return the outcome; of several parts of an array, that of the whole array."""
        if self.array_size == 1:
            return [builder.array_outcome([(job, [0]) for job in ended], 1, tolerance)]
        if not attempt.parts:
            return super().outcomes(builder, ended, attempt, tolerance)
        parts = list(zip(ended, _indexes_of_parts(attempt), strict=True))
        return [builder.array_outcome(parts, attempt.size, tolerance)]

    def queue_position(self, jobs: RemoteJobs, seen: Mapping[str, Snapshot]) -> str:
        """Return a sentence with the position of the jobs in their queue; empty if it is not known."""
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs import batch

        queues = {snapshot.queue for snapshot in seen.values() if snapshot.queue}
        try:
            positions = [jobs.call(batch.queue_position, queue, list(seen)) for queue in queues]
        except CallError as error:
            jobs.log.warning("Could not get the job's position in the queue: %s", error)
            return ""
        return "".join(f"{each} " for each in positions)


def _indexes_of_parts(attempt: Attempt) -> list[Sequence[int]]:
    """Return the indexes, in the whole array, of what each job of an attempt runs."""
    from airflow_jobflow.jobs.array import indexes_of

    return [indexes_of(part) for part in attempt.parts] or [range(attempt.size)]


def find_group(call: Call, queue: str, name: str, group: str, recorded: Attempt) -> list[Found]:
    """Return all jobs of a task instance in the queue that the last try used.

    :param call: makes the API calls.
    :param queue: the queue that this try uses, if none is recorded.
    :param name: the user's name for the job, if none is recorded.
    :param group: of the task instance.
    :param recorded: the last attempt.
    """
    from airflow_jobflow.jobs import batch_search

    prefix = batch_search.group_prefix(recorded.job_name or name, group)
    return batch_search.find_group(call, recorded.queue or queue, prefix)
