"""Why a job failed: a sentence of AWS's for each cause, and the sentence a person reads."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.jobs.diagnosis import REASONS, Blame, Diagnosis, diagnose
from airflow_jobflow.jobs.model import ArrayProgress, ChildFailure, JobState, Snapshot
from airflow_jobflow.jobs.report import failure


def failed(**fields: Any) -> Snapshot:
    """A job that has failed."""
    defaults: dict[str, Any] = {"job_id": "abc", "name": "hello", "state": JobState.FAILED, "status": "FAILED"}
    return Snapshot(**{**defaults, **fields})


ENDED = "Essential container in task exited"


@pytest.mark.parametrize(
    ("cause", "fields"),
    [
        (
            "out_of_memory",
            {"container_reason": "OutOfMemoryError: Container killed due to memory usage", "exit_code": 137},
        ),
        ("image_not_pulled", {"container_reason": "CannotPullContainerError: manifest unknown"}),
        (
            "command_not_found",
            {"container_reason": 'CannotStartContainerError: exec: "x": executable file not found in $PATH: unknown'},
        ),
        (
            "resources_not_ready",
            {"reason": "ResourceInitializationError: unable to pull secrets or registry auth"},
        ),
        ("not_started", {"reason": "Task failed to start"}),
        ("spot_reclaimed", {"reason": "Host EC2 (instance i-0abc) terminated."}),
        ("attempt_timed_out", {"reason": "Job attempt duration exceeded timeout", "exit_code": 137}),
        ("dependency_failed", {"reason": "Dependent Job failed"}),
        ("misconfigured", {"reason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too many vCPUs"}),
        ("stopped", {"reason": "enough", "stopped_by_request": True, "exit_code": 137}),
        ("children_failed", {"reason": "Array Child Job failed", "array": ArrayProgress(7, failed=1)}),
        ("command_not_run", {"reason": ENDED, "exit_code": 127}),
        ("killed", {"reason": ENDED, "exit_code": 137}),
        ("crashed", {"reason": ENDED, "exit_code": 139}),
        ("command_failed", {"reason": ENDED, "exit_code": 1}),
        (
            "permission_missing",
            {"reason": "Service Principal: glue.amazonaws.com is not authorized to perform: s3:Get"},
        ),
        ("permission_missing", {"reason": "Insufficient Lake Formation permission(s) on se2"}),
        ("permission_missing", {"reason": "Access Denied (Service: Amazon S3; Status Code: 403)"}),
        ("not_there", {"reason": "Database se2 not found."}),
        ("not_there", {"reason": "The specified bucket does not exist"}),
        ("not_there", {"reason": "NoSuchKey: The specified key does not exist"}),
        ("host_lost", {"reason": "Internal Service Exception"}),
        ("host_lost", {"reason": "Internal service error", "code": "ERROR"}),
        ("host_lost", {"code": "InfrastructureHealth"}),
        ("attempt_timed_out", {"code": "TIMEOUT", "reason": "Job run timed out"}),
        ("queue_expired", {"code": "EXPIRED"}),
        ("stopped", {"code": "STOPPED", "stopped_by_request": True}),
        ("command_failed", {"code": "FAILED", "reason": "ValueError: no such column"}),
        ("command_failed", {"code": "FAILED", "reason": "Command failed with exit code 10"}),
        ("unknown", {"reason": "Something new"}),
        ("unknown", {}),
    ],
)
def test_aws_words_lead_to_the_cause(cause: str, fields: dict[str, Any]) -> None:
    """A wrong cause sends a person, or a retry policy, the wrong way."""
    diagnosis = diagnose(failed(**fields))
    assert diagnosis
    assert diagnosis.cause == cause


def test_a_job_that_has_not_failed_has_no_diagnosis() -> None:
    """Success needs no excuse."""
    assert diagnose(failed(state=JobState.SUCCEEDED, status="SUCCEEDED", exit_code=0)) is None


def test_every_diagnosis_says_what_to_do() -> None:
    """A cause without advice leaves the reader where he was."""
    for _, diagnosis in REASONS:
        assert diagnosis.summary
        assert diagnosis.advice.endswith(".")


def test_the_message_of_a_failed_job() -> None:
    """The whole text a person reads, to the letter."""
    snapshot = failed(reason=ENDED, exit_code=3, attempt=2, max_attempts=2)
    diagnosis = diagnose(snapshot)
    assert diagnosis
    text = failure("Batch job", snapshot, diagnosis, log_lines=["no such file"], console_url="https://console")
    assert text == (
        "Batch job hello (abc) failed on attempt 2 of 2 with exit code 3.\n"
        "Why: The command itself ended with an error. The last log lines are where to look first.\n"
        "AWS says: Essential container in task exited\n"
        "Last lines of the log:\n"
        "  | no such file\n"
        "Console: https://console"
    )


def test_the_message_of_a_failed_array() -> None:
    """Which indexes failed, and why the first ones did."""
    snapshot = failed(reason="Array Child Job failed", array=ArrayProgress(7, failed=3))
    diagnosis = diagnose(snapshot)
    assert diagnosis
    child = failed(job_id="abc:3", reason=ENDED, exit_code=1, attempt=1)
    text = failure("Batch job", snapshot, diagnosis, failed=[3, 5, 6], children=[ChildFailure(3, child)])
    assert text == (
        "Batch job hello (abc) failed.\n"
        "Why: Children of the array failed, more than are tolerated. "
        "Their own reasons follow; tolerated_failure_count and tolerated_failure_percentage say how many may fail.\n"
        "AWS says: Array Child Job failed\n"
        "Failed children: 3 of 7: 3,5-6\n"
        "  [3] on attempt 1 of 1 with exit code 1: The command itself ended with an error: "
        "Essential container in task exited"
    )


def test_a_stopped_job_is_said_to_have_been_stopped() -> None:
    """Who stopped a job should not read that it failed."""
    snapshot = failed(reason="not needed any more", stopped_by_request=True)
    text = failure("Batch job", snapshot, Diagnosis("stopped", Blame.PERSON, "S", "A."))
    assert text.startswith("Batch job hello (abc) was stopped.")
    assert "AWS says: not needed any more" in text
