"""The results of jobs: read when the jobs have succeeded, and added to the outcome of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.exceptions import JobFailed
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.causes import NO_RESULT, RESULT_NOT_READ
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.results import MAX_CALLS, MAX_LISTED
from airflow_jobflow.jobs.wording import named

if TYPE_CHECKING:
    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.model import ArrayOutcome, Outcome, Snapshot
    from airflow_jobflow.jobs.results import Part
    from airflow_jobflow.maps.previous_results import PreviousResults
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec, MapSpec
    from airflow_jobflow.results import Result
    from airflow_jobflow.waiting.wait import JobOutcomes


FUNCTION_PATIENCE: Final = 5
"""How many times longer the value of a function is awaited than another result: without it, the next try would call the
function a second time, although it has succeeded. A function always writes one, unless it exits."""


def kind_in_triggerer(execution: Execution[JobSpec]) -> str | None:
    """Return what a task that ends in the triggerer returns: one of the constants of ``triggers.ending``.

    :param execution: the execution of the operator.
    :return: None if the outcome is not that of one job, or has a result that takes more than one call to read.
    """
    spec, record = execution.spec, execution.record
    reads_many = spec.is_array and record.inputs.result is not None
    needs_outcome = record.inputs.required and not execution.report.is_shown  # without one, the trigger reads nothing
    if not spec.is_one_job or record.attempt.parts or reads_many or needs_outcome:
        return None
    if spec.function and not spec.function.returns_json:
        return None
    return ("result" if spec.function else "outcome") if execution.report.is_shown else "nothing"


def with_results(execution: Execution[JobSpec], ended: Sequence[Snapshot], built: JobOutcomes) -> JobOutcomes:
    """Return the outcome of a job or an array with what it returned, if it succeeded.

    :param execution: the execution of the operator.
    :param ended: the last snapshots of the jobs.
    :param built: the outcome, and the exception if it failed.
    """
    kind = execution.record.inputs.result
    return built if kind is None else [_with_result(execution, kind, ended, *each) for each in built]


def _with_result(
    execution: Execution[JobSpec], kind: str, ended: Sequence[Snapshot], outcome: Outcome, error: JobflowError | None
) -> tuple[Outcome, JobflowError | None]:
    from airflow_jobflow import results

    function, access, service = execution.spec.function, execution.jobs.access, execution.jobs.service
    if error and function:
        return outcome, function.failure(access, service, ended[0], outcome, error)
    if error or outcome.state is not JobState.SUCCEEDED:
        return outcome, error
    if outcome.array:
        result = _of_array(execution, ended, outcome.array)
    else:
        arrival = FUNCTION_PATIENCE * results.ARRIVAL if function else None
        result = results.of_job(access, service, kind, ended[0], arrival=arrival)
    outcome = replace(outcome, **result.to_dict())
    called = f"{execution.jobs.display_name} {named(outcome.job_id, outcome.name)}"
    return outcome, _failure(execution, called, result, outcome.to_dict())


def _of_array(execution: Execution[JobSpec], ended: Sequence[Snapshot], array: ArrayOutcome) -> Result:
    """Return what the children of an array returned, including children that ran in earlier tries."""
    from airflow_jobflow import results
    from airflow_jobflow.jobs.array import indexes_of
    from airflow_jobflow.jobs.results import Part

    written = execution.record.attempt.results or {
        job.result_uri: f"0-{array.size - 1}" for job in ended if job.result_uri
    }
    parts = [Part(uri, dict(enumerate(indexes_of(ranges)))) for uri, ranges in written.items()]
    if not parts:
        return results.Result(error="the array was started without an address for its results")
    succeeded = sorted(set(range(array.size)) - set(array.failed_indexes))
    after = _previous_attempts(execution, ended, parts) if array.size <= map_statuses.IN_FULL else {}
    return results.of_many(execution.jobs.access, parts, array.size, succeeded, after)


def _previous_attempts(
    execution: Execution[JobSpec], ended: Sequence[Snapshot], parts: Sequence[Part]
) -> dict[int, str | None]:
    """Return when AWS's previous attempt at each child ended; one call per 100 children, if AWS retries them."""
    from airflow_jobflow.faults import CallError
    from airflow_jobflow.jobs import batch

    found: dict[int, str | None] = {}
    by_uri = {part.uri: list(part.indexes.values()) for part in parts}
    for job in ended:
        indexes = by_uri.get(job.result_uri or "", [])
        if job.max_attempts == 1 or not job.array:
            found |= dict.fromkeys(indexes, job.previous_attempt_ended_at)
            continue
        for start in range(0, len(indexes), batch.BATCH_SIZE):
            numbers = range(start, min(start + batch.BATCH_SIZE, len(indexes)))
            try:
                children = execution.jobs.call(batch.children, job.job_id, numbers)
            except CallError as error:
                execution.log.warning(
                    "Could not check whether the results are from the last attempts of the children: %s", error
                )
                return found
            found |= {indexes[child.index]: child.snapshot.previous_attempt_ended_at for child in children}
    return found


def of_map(
    execution: Execution[MapSpec], called: str, ended: PreviousResults, outcome: dict[str, Any]
) -> dict[str, Any]:
    """Return the outcome of a map that succeeded, with what its items returned.

    :param execution: the execution of the operator.
    :param called: how messages call the map.
    :param ended: how its items ended.
    :param outcome: the outcome.
    :raises JobFailed: a result is required, and missing or not usable.
    """
    if execution.record.inputs.result is None:
        return outcome
    from airflow_jobflow import results
    from airflow_jobflow.jobs.array import indexes_of
    from airflow_jobflow.jobs.results import Part
    from airflow_jobflow.maps.result import snapshot

    size = len(ended.statuses)
    succeeded = [index for index, status in enumerate(ended.statuses) if status == map_statuses.SUCCEEDED]
    parts = [Part(uri, {index: index for index in indexes_of(ranges)}) for uri, ranges in ended.results.items()]
    after = {index: snapshot(line).previous_attempt_ended_at for index, line in ended.lines.items()}
    if parts:
        most = MAX_CALLS if execution.spec.function else MAX_LISTED
        result = results.of_many(execution.jobs.access, parts, size, succeeded, after, most=most)
    else:
        result = results.Result(value=[None] * size)
    outcome = outcome | result.to_dict()
    failure = _failure(execution, called, result, outcome)
    if failure and execution.given["raise_on_failure"]:
        raise failure
    return outcome


def _failure(execution: Execution[Any], called: str, result: Result, outcome: Mapping[str, Any]) -> JobFailed | None:
    """Return the exception if a required result is missing or unusable; otherwise log what is wrong."""
    if result.error is None:
        return None
    if not execution.record.inputs.required:
        execution.log.warning("%s has no usable result: %s", called, result.error)
        return None
    diagnosis = RESULT_NOT_READ if result.is_unread else NO_RESULT
    if not result.is_unread:  # otherwise the next try reads it again
        execution.record.abandon()
    message = f"{called} succeeded, but its result cannot be used: {result.error}. {diagnosis.advice}"
    return JobFailed(message, outcome=dict(outcome), diagnosis=diagnosis)
