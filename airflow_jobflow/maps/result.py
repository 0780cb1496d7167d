"""What an ended map comes to: its result, or the error that a person reads."""

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
from airflow_jobflow.outcomes import WAIT_FAILURES

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.causes import Diagnosis
    from airflow_jobflow.maps.previous_results import PreviousResults
    from airflow_jobflow.outcomes import OutcomeBuilder


def result(outcome_builder: OutcomeBuilder, name: str, ended: PreviousResults, tolerance: Tolerance) -> dict[str, Any]:
    """Build what the operator returns."""
    state, reason, array = map_statuses.summary(ended.statuses, tolerance)
    outcomes = {
        index: {"index": index, **outcome_builder.outcome(snapshot(line)).to_dict()}
        for index, line in ended.lines.items()
    }
    created, started, stopped = ended.times
    whole = Outcome(
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
        **whole.to_dict(),
        "statuses": ended.statuses,
        "failed": [outcomes[index] for index in array.failed_indexes if index in outcomes],
        "outcomes": [outcomes.get(index) for index in range(size)] if size <= map_statuses.IN_FULL else None,
    }


def failure(
    outcome_builder: OutcomeBuilder, name: str, ended: PreviousResults, outcome: dict[str, Any]
) -> JobFailed | JobStopped:
    """Build the error of a map that failed: ``JobStopped`` if every item that failed was stopped by somebody's request.

    :param outcome: what ``result`` returned.
    """
    children, diagnosis = _explained(ended)
    diagnosis = diagnosis and diagnosis.on(outcome_builder.service)
    message = report.map_failure(
        outcome_builder.module.DISPLAY_NAME,
        name,
        outcome["reason"],
        diagnosis,
        failed=outcome["array"]["failed_indexes"],
        children=children,
        log_lines=outcome_builder.last_lines(children[0].snapshot) if children else (),
    )
    stopped = bool(children) and all(child.snapshot.stopped_by_request for child in children)
    stopped = stopped and len(children) == ended.statuses.count(map_statuses.FAILED)
    error = JobStopped if stopped else JobFailed
    return error(message, outcome=outcome, diagnosis=diagnosis)


def _explained(ended: PreviousResults) -> tuple[list[ChildFailure], Diagnosis | None]:
    """Return the items that failed, the most telling first, and what explains the failure of all of them."""
    failed = [
        ChildFailure(index, snapshot(ended.lines[index]))
        for index, status in enumerate(ended.statuses)
        if status == map_statuses.FAILED and index in ended.lines
    ]
    diagnosis = decisive(diagnoses(child.snapshot for child in failed))
    return report.most_significant(failed, diagnosis), diagnosis


def could_not_go_on(outcome_builder: OutcomeBuilder, name: str, event: Mapping[str, Any], said: str) -> JobflowError:
    """Build the error of a map whose trigger says why it could not go on.

    :param said: what became of the jobs that ran.
    """
    error, statuses = event["error"], event["statuses"]
    failure = WAIT_FAILURES[error["kind"]]
    how_far = "Nothing was started."
    if statuses.strip(map_statuses.NOT_STARTED):
        how_far = sentence(progress(event))
    asked = "" if error["kind"] in ("killed", "failed") else f" (asked with {outcome_builder.origin})"
    text = f"Map {name} of {outcome_builder.module.DISPLAY_NAME}s {failure.of_map}{asked}: {sentence(error['message'])}"
    return failure.error(" ".join(filter(None, [text, how_far, said, failure.advice])))


def progress(event: Mapping[str, Any]) -> str:
    """Return how far a map came, as its trigger's event says."""
    if not event["statuses"]:
        return "how far it came is not known"
    return map_statuses.progress(event["statuses"], (event["unstopped"] or {}).get("count", 0))


def one_not_ended(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the id of a job that had not ended when the map did, and what messages call its item; None for none."""
    stopped = (json.loads(each) for each in unpack(event["lines"]))
    for index, last in stopped:
        if event["statuses"][index] == map_statuses.STOPPED and last["job_id"]:
            return last["job_id"], f"[{index}]"
    return next(((job_id, job_id) for job_id in unpack(event["running"])), None)


def most_significant(ended: PreviousResults, outcome: Mapping[str, Any]) -> Snapshot | None:
    """Return the last snapshot of the item that explains the failure, else of the first that is known."""
    if failed := _explained(ended)[0]:
        return failed[0].snapshot
    known = [index for index in outcome["array"]["failed_indexes"] if index in ended.lines]
    index = next(iter(known), min(ended.lines, default=None))
    return None if index is None else snapshot(ended.lines[index])


def snapshot(line: str) -> Snapshot:
    """Read a line of ``[index, snapshot]``."""
    return Snapshot.from_dict(json.loads(line)[1])
