"""What the operators for AWS Batch start: a job, or an array of jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import CapacityUnavailable, JobflowError, SubmissionError
from airflow_jobflow.jobs import batch_request
from airflow_jobflow.jobs.array import index_ranges
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.batch_parameters import PARAMETERS, changes_of, reject_contradictions
from airflow_jobflow.operators.batch_redrive import Part, entries, left_to_run, parts_of
from airflow_jobflow.operators.changes import values_of
from airflow_jobflow.operators.inputs import NOT_IN_CONTAINER_OVERRIDES, log_left_out
from airflow_jobflow.operators.spec import JobSpec

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.outcomes import OutcomeBuilder
    from airflow_jobflow.waiting.remote import RemoteJobs


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
        self.changes = changes_of(values)
        self.changes_children = redrive and self.is_array

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Submit the job, or the part of an array that runs again; see the base."""
        self._definition.check_containers(jobs)
        earlier, is_repeated, inputs = record.attempt, record.is_repeated, record.inputs
        runs = self._runs(record, jobs)
        if runs is None:
            return earlier.job_ids
        parts = [part for part, _ in runs if part.indexes]
        changes = [list(part.changes) for part in parts]
        record.new_attempt(
            job_name=self.request["jobName"],
            queue=runs[0][1]["jobQueue"],
            size=self.array_size,
            parts=[index_ranges(part.indexes) for part in parts],
            part_changes=changes if any(changes) else [],
            changes=[*earlier.changes, *(entries(parts) if not is_repeated else ())],
        )
        record.attempt.results = dict(earlier.results) if parts else {}
        job_ids: list[str] = []
        try:
            definition = self._definition.resolve(jobs, f"Batch job {self.name}")
            for number, (name, (part, request)) in enumerate(zip(self._names(record, len(runs)), runs, strict=True)):
                uri = inputs.result_uri(record, number if parts else None)
                if uri and self.array_size and self._redrive:
                    record.attempt.results[uri] = index_ranges(part.indexes or range(self.array_size))
                one = {**with_result(request, uri), "jobName": name, "jobDefinition": definition}
                job_ids.append(self._submit_one(record, jobs, one, look_first=is_repeated and bool(parts)))
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

    def _runs(self, record: AttemptRecord, jobs: RemoteJobs) -> list[tuple[Part, dict[str, Any]]] | None:
        """Return the requests to submit, and what each runs of an array that is redriven; None if nothing is left."""
        from airflow_jobflow.jobs.array import as_plain_job, rerun_requests

        earlier, size = record.attempt, self.array_size
        if self._redrive and size:
            if record.is_repeated and earlier.parts and earlier.size == size:
                again: list[Part] | None = parts_of(earlier)
            else:
                again = self._left_to_run(earlier, jobs)
            if again is not None:
                uri = record.inputs.longest_uri(record)
                return [
                    (replace(part, indexes=indexes), request)
                    for part in again
                    for indexes, request in rerun_requests(with_result(self._request(part.changes), uri), part.indexes)
                ] or None
        request = self._request(earlier.changes)
        return [(Part([]), as_plain_job(request) if size == 1 else request)]

    def _request(self, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the SubmitJob request of an attempt.

        :param changes: what it changes, see ``Attempt.changes``.
        """
        changed = values_of(changes, self.values)
        return batch_request.request({**self.values, **changed}, PARAMETERS.members) if changed else self.request

    def _left_to_run(self, earlier: Attempt, jobs: RemoteJobs) -> list[Part] | None:
        """Return the children that an earlier try left to run again; None for all."""
        if earlier.size != self.array_size or len(earlier.job_ids) != max(1, len(earlier.parts)):
            return None
        left = left_to_run(self.changes, earlier, jobs, self.name)
        if left is None:
            jobs.log.warning("All children run again: the array of the previous try is unknown or still running")
        elif left:
            again = [index for part in left for index in part.indexes]
            jobs.log.info(
                "Running the %d of %d children that did not succeed: %s", len(again), earlier.size, index_ranges(again)
            )
        for entry in entries(left or ()):
            jobs.log.info("Children %s: %s", entry["indexes"], entry["text"])
        return left

    def _submit_one(
        self, record: AttemptRecord, jobs: RemoteJobs, request: dict[str, Any], *, look_first: bool = False
    ) -> str:
        """Submit a job, unless an earlier try has, and return its id."""
        from airflow_jobflow.jobs import batch, batch_search
        from airflow_jobflow.jobs.array import without_index_of_one
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
            plain = {**full, "containerOverrides": without_index_of_one(request.get("containerOverrides"))}
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
        parts = [(job, part.indexes) for job, part in zip(ended, parts_of(attempt), strict=True)]
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


def find_group(call: Call, queue: str, name: str, group: str, recorded: Attempt) -> list[Found]:
    """Return all jobs of a task instance in the queue that the last try used.

    :param call: makes the API calls.
    :param queue: the queue that this try uses, if none is recorded.
    :param name: the user's name for the job, if none is recorded.
    :param group: of the task instance.
    :param recorded: the last attempt. Parts of an array may be in other queues, which its changes name.
    """
    from airflow_jobflow.jobs import batch_search

    prefix = batch_search.group_prefix(recorded.job_name or name, group)
    used = [values_of(changes, {}).get("job_queue", queue) for changes in recorded.part_changes]
    queues = dict.fromkeys([recorded.queue or queue, *used])
    return [each for queue in queues for each in batch_search.find_group(call, queue, prefix)]
