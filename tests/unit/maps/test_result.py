"""The error of a failed map."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobflow.airflow_compat.retry_policy import RetryAction
from airflow_jobflow.aws import Access
from airflow_jobflow.exceptions import JobFailed, JobStopped
from airflow_jobflow.jobs import batch, ecs
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.maps import result
from airflow_jobflow.maps.previous_results import PreviousResults
from airflow_jobflow.outcomes import OutcomeBuilder
from airflow_jobflow.retry_policy import JobRetryPolicy

SPOT: dict[str, Any] = {"code": "SpotInterruption", "reason": "Your Spot Task was interrupted."}
BUG: dict[str, Any] = {
    "code": "EssentialContainerExited",
    "reason": "Essential container in task exited",
    "exit_code": 1,
}
MEMORY: dict[str, Any] = {**BUG, "container_reason": "OutOfMemoryError: Container killed", "exit_code": 137}
STOPPED: dict[str, Any] = {"code": "UserInitiated", "reason": "enough", "stopped_by_request": True}


def outcome_builder(service: str = "ecs") -> OutcomeBuilder:
    """Return an outcome builder for Fargate or Batch that reads no logs."""
    return OutcomeBuilder(service, {"ecs": ecs, "batch": batch}[service], Access(None), log_lines=0)


def ended(*items: dict[str, Any], statuses: str = "") -> PreviousResults:
    """Return the results of a map whose items failed with the given details."""
    snapshots = [Snapshot(f"job-{index}", JobState.FAILED, "STOPPED", **item) for index, item in enumerate(items)]
    lines = {index: json.dumps([index, each.to_dict()]) for index, each in enumerate(snapshots)}
    return PreviousResults(statuses or "F" * len(items), lines)


def failure(results: PreviousResults, by: OutcomeBuilder | None = None) -> JobFailed | JobStopped:
    """Return the error of a map."""
    by = by or outcome_builder()
    return result.failure(by, "etl", results, result.result(by, "etl", results, Tolerance()))


@pytest.mark.parametrize(
    ("items", "cause", "action"),
    [
        ([SPOT] * 40 + [BUG], "command_failed", RetryAction.DEFAULT),
        ([SPOT] * 40 + [MEMORY], "out_of_memory", RetryAction.FAIL),
        ([BUG] * 3 + [MEMORY], "out_of_memory", RetryAction.FAIL),
        ([SPOT] * 3, "spot_reclaimed", RetryAction.RETRY),
        ([STOPPED, SPOT], "stopped", RetryAction.DEFAULT),
        ([{"reason": "Something new"}, SPOT], "unknown", RetryAction.DEFAULT),
    ],
)
def test_the_diagnosis_considers_all_failed_items(items: list[dict[str, Any]], cause: str, action: RetryAction) -> None:
    """A retry of lost capacity does not help if one item has a bug. The retry policy follows the diagnosis."""
    error = failure(ended(*items))
    assert error.diagnosis
    assert error.diagnosis.cause == cause
    assert JobRetryPolicy().evaluate(error, 1, 5).action is action


def test_the_message_starts_with_the_decisive_failure() -> None:
    """The bug is in the last item; the counts show that another cause was more frequent."""
    text = str(failure(ended(*[SPOT] * 40, BUG)))
    assert "Why: The command itself ended with an error." in text
    assert "By cause: 40 spot_reclaimed, 1 command_failed\n  [40] with exit code 1" in text
    assert len([line for line in text.splitlines() if line.startswith("  [")]) == 3


def test_the_links_lead_to_the_decisive_item() -> None:
    """The console page of an interrupted task shows no bug."""
    results = ended(SPOT, BUG)
    snapshot = result.most_significant(results, result.result(outcome_builder(), "etl", results, Tolerance()))
    assert snapshot
    assert snapshot.job_id == "job-1"


def test_the_advice_fits_the_service() -> None:
    """A Fargate task has no job definition."""
    assert "the job definition sets it" not in str(failure(ended(MEMORY)))
    assert "the job definition sets it" in str(failure(ended(MEMORY), outcome_builder("batch")))


def test_items_without_a_result_line_have_no_diagnosis() -> None:
    """An earlier version, or a worker that died, may have saved none."""
    error = failure(PreviousResults("FF-"))
    assert type(error) is JobFailed
    assert error.diagnosis is None
    assert "Why:" not in str(error)


def test_a_map_is_stopped_if_all_failed_items_were_stopped() -> None:
    """All items must have been stopped on request, and not by the map itself."""
    assert type(failure(ended(STOPPED, STOPPED))) is JobStopped
    assert type(failure(ended(STOPPED, SPOT))) is JobFailed
