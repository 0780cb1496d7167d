"""The result of a map that has ended, or the error to raise for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import JobFailed, JobflowError, JobStopped
from airflow_jobflow.jobs import map_statuses, report
from airflow_jobflow.jobs.diagnosis import decisive, diagnoses
from airflow_jobflow.jobs.model import ChildFailure, Outcome, Snapshot
from airflow_jobflow.jobs.packing import unpack
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.wait_failures import WAIT_FAILURES

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.causes import Diagnosis
    from airflow_jobflow.maps.previous_results import PreviousResults
    from airflow_jobflow.outcomes import OutcomeBuilder


def result(outcome_builder: OutcomeBuilder, name: str, ended: PreviousResults, tolerance: Tolerance) -> dict[str, Any]:
    """Return the operator's return value.

    :param outcome_builder: builds the outcomes of items.
    :param name: the map's name.
    :param ended: how its items ended.
    :param tolerance: how many items may fail.
    """
    state, reason, array = map_statuses.summary(ended.statuses, tolerance)
    more = {index: details(line) for index, line in sorted(ended.lines.items())}
    outcomes = {
        index: {"index": index, **outcome_builder.outcome(snapshot(line)).to_dict(), **more[index]}
        for index, line in ended.lines.items()
    }
    created, started, stopped = ended.times
    outcome = Outcome(
        service=outcome_builder.service,
        job_id="",
        name=name,
        state=state,
        status=state.value,
        reason=reason,
        created_at=created,
        started_at=started,
        stopped_at=stopped,
        array=array,
    )
    size = len(ended.statuses)
    return {
        **outcome.to_dict(),
        "statuses": ended.statuses,
        "changes": [{"index": index, **change} for index, each in more.items() for change in each["changes"] or ()]
        or None,
        "failed": [outcomes[index] for index in array.failed_indexes if index in outcomes],
        "outcomes": [outcomes.get(index) for index in range(size)] if size <= map_statuses.IN_FULL else None,
    }


def failure(
    outcome_builder: OutcomeBuilder, name: str, ended: PreviousResults, outcome: dict[str, Any]
) -> JobFailed | JobStopped:
    """Return the error of a map that failed.

    :param outcome_builder: as in ``result``.
    :param name: the map's name.
    :param ended: how its items ended.
    :param outcome: what ``result`` returned.
    :return: ``JobStopped`` if all failed items were stopped on request, else ``JobFailed``.
    """
    children, diagnosis = _explain(ended)
    diagnosis = diagnosis and diagnosis.on(outcome_builder.service)
    lines = outcome_builder.last_lines(children[0].snapshot) if children else []
    is_copied = bool(children) and children[0].snapshot.job_id in outcome_builder.copied
    message = report.map_failure(
        outcome_builder.module.DISPLAY_NAME,
        name,
        outcome["reason"],
        diagnosis,
        failed=outcome["array"]["failed_indexes"],
        children=children,
        log_lines=lines,
        log_is_copied=is_copied,
    )
    stopped = bool(children) and all(child.snapshot.stopped_by_request for child in children)
    stopped = stopped and len(children) == ended.statuses.count(map_statuses.FAILED)
    error = JobStopped if stopped else JobFailed
    return error(message, outcome=outcome, diagnosis=diagnosis, log_lines=lines if is_copied else ())


def _explain(ended: PreviousResults) -> tuple[list[ChildFailure], Diagnosis | None]:
    """Return the failed items, the most significant first, and the diagnosis that decides for the map."""
    failed = [
        ChildFailure(index, snapshot(ended.lines[index]), details(ended.lines[index])["not_started_again"])
        for index, status in enumerate(ended.statuses)
        if status in (map_statuses.FAILED, map_statuses.NOT_DESCRIBED) and index in ended.lines
    ]
    diagnosis = decisive(diagnoses(child.snapshot for child in failed))
    return report.most_significant(failed, diagnosis), diagnosis


def could_not_continue(
    outcome_builder: OutcomeBuilder, name: str, event: Mapping[str, Any], jobs_note: str
) -> JobflowError:
    """Return the error of a map that its trigger could not continue.

    :param outcome_builder: as in ``result``.
    :param name: the map's name.
    :param event: the trigger's event, which has an ``error``.
    :param jobs_note: a sentence about what was done with running jobs; may be empty.
    """
    error, statuses = event["error"], event["statuses"]
    failure = WAIT_FAILURES[error["kind"]]
    how_far = "Nothing was started."
    if statuses.strip(map_statuses.NOT_STARTED):
        how_far = sentence(progress(event))
    asked = "" if error["kind"] in ("killed", "failed") else f" (connection: {outcome_builder.origin})"
    text = f"Map {name} of {outcome_builder.module.DISPLAY_NAME}s {failure.of_map}{asked}: {sentence(error['message'])}"
    return failure.error(" ".join(filter(None, [text, how_far, jobs_note, failure.advice])))


def progress(event: Mapping[str, Any]) -> str:
    """Return the progress of a map, for people.

    :param event: its trigger's event.
    """
    if not event["statuses"]:
        return "its progress is not known"
    return map_statuses.progress(event["statuses"], (event["unstopped"] or {}).get("count", 0))


def first_unfinished(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return a job that had not ended when the map did.

    :param event: the map's trigger's event.
    :return: the job's id, and the name of its item for messages; None if all jobs had ended.
    """
    stopped = (json.loads(each) for each in unpack(event["lines"]))
    for index, last, *_ in stopped:
        if event["statuses"][index] == map_statuses.STOPPED and last["job_id"]:
            return last["job_id"], f"[{index}]"
    return next(((job_id, job_id) for job_id in unpack(event["running"])), None)


def most_significant(ended: PreviousResults, outcome: Mapping[str, Any]) -> Snapshot | None:
    """Return the last snapshot of the item that explains the failure, or of the first item that has one.

    :param ended: how the items ended.
    :param outcome: what ``result`` returned.
    :return: None if no item has a snapshot.
    """
    if failed := _explain(ended)[0]:
        return failed[0].snapshot
    known = [index for index in outcome["array"]["failed_indexes"] if index in ended.lines]
    index = next(iter(known), min(ended.lines, default=None))
    return None if index is None else snapshot(ended.lines[index])


def snapshot(line: str) -> Snapshot:
    """Return the snapshot of a result line.

    :param line: see ``tracker.result_line``.
    """
    return Snapshot.from_dict(json.loads(line)[1])


def details(line: str) -> dict[str, Any]:
    """Return what a result line says of the attempts at its item: ``changes`` and ``not_started_again``.

    :param line: see ``tracker.result_line``.
    """
    more: dict[str, Any] = {"changes": None, "not_started_again": None}
    return more | next(iter(json.loads(line)[2:]), {})
