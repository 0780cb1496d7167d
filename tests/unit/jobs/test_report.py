"""The exact messages of failures."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.jobs import causes
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.model import ArrayProgress, ChildFailure, JobState, Snapshot
from airflow_jobflow.jobs.report import failure, map_failure, most_significant

ENDED = "Essential container in task exited"
SPOT = "Your Spot Task was interrupted."


def failed(**fields: Any) -> Snapshot:
    """Return a failed job."""
    defaults: dict[str, Any] = {"job_id": "abc", "name": "hello", "state": JobState.FAILED, "status": "FAILED"}
    return Snapshot(**{**defaults, **fields})


def test_the_message_of_a_failed_job() -> None:
    """It has the job, attempt, exit code, cause, AWS's reason, log and console link."""
    snapshot = failed(reason=ENDED, exit_code=3, attempt=2, max_attempts=2)
    diagnosis = diagnose(snapshot)
    assert diagnosis
    text = failure("Batch job", snapshot, diagnosis, log_lines=["no such file"], console_url="https://console")
    assert text == (
        "Batch job hello (abc) failed on attempt 2 of 2 with exit code 3.\n"
        "Why: The command itself ended with an error. Check the last log lines first.\n"
        "AWS says: Essential container in task exited\n"
        "Last lines of the log:\n"
        "  | no such file\n"
        "Console: https://console"
    )


def test_the_message_of_a_failed_array() -> None:
    """It lists the failed children, counts the causes, and explains the decisive failure."""
    snapshot = failed(reason="Array Child Job failed", array=ArrayProgress(7, failed=3))
    children = [
        ChildFailure(3, failed(job_id="abc:3", reason=SPOT)),
        ChildFailure(5, failed(job_id="abc:5", reason=SPOT)),
        ChildFailure(6, failed(job_id="abc:6", reason=ENDED, exit_code=1, attempt=1)),
    ]
    diagnosis = diagnose(snapshot, children=[child.snapshot for child in children])
    assert diagnosis
    text = failure(
        "Batch job",
        snapshot,
        diagnosis,
        failed=[3, 5, 6],
        children=most_significant(children, diagnosis),
        log_lines=["KeyError: 'day'"],
    )
    assert text == (
        "Batch job hello (abc) failed.\n"
        "Why: The command itself ended with an error. Check the last log lines first.\n"
        "AWS says: Array Child Job failed\n"
        "Failed children (3 of 7): 3,5-6\n"
        "By cause: 2 spot_reclaimed, 1 command_failed\n"
        "  [6] on attempt 1 of 1 with exit code 1: The command itself ended with an error: "
        "Essential container in task exited\n"
        "  [3]: The host under the job was taken away, as happens with Spot capacity: Your Spot Task was interrupted.\n"
        "  [5]: The host under the job was taken away, as happens with Spot capacity: Your Spot Task was interrupted.\n"
        "Last lines of the log of [6]:\n"
        "  | KeyError: 'day'"
    )


def test_the_message_of_a_failed_map() -> None:
    """It is like that of an array, with items."""
    item = ChildFailure(2, failed(reason=SPOT))
    text = map_failure(
        "ECS task", "etl", "2 of 3 items succeeded, 1 failed", causes.SPOT_RECLAIMED, failed=[2], children=[item]
    )
    assert text == (
        "Map etl of ECS tasks failed: 2 of 3 items succeeded, 1 failed.\n"
        "Why: The host under the job was taken away, as happens with Spot capacity. Run it again, or use On-Demand "
        "capacity.\n"
        "Failed items (1): 2\n"
        "  [2]: The host under the job was taken away, as happens with Spot capacity: Your Spot Task was interrupted."
    )


def test_the_most_informative_failures_come_first() -> None:
    """First the failure that explains the whole, then one of each other cause: three lines show three causes."""
    children = [
        ChildFailure(0, failed(reason=SPOT)),
        ChildFailure(1, failed(reason=SPOT)),
        ChildFailure(2, failed(reason=ENDED, exit_code=139)),
        ChildFailure(3, failed(reason="CannotPullContainerError: manifest unknown")),
        ChildFailure(4, failed(reason="CannotPullContainerError: manifest unknown")),
    ]
    assert [child.index for child in most_significant(children, causes.IMAGE_NOT_PULLED)] == [3, 0, 2, 4, 1]
    assert [child.index for child in most_significant(children, None)] == [0, 2, 3, 1, 4]


PULL = "CannotPullContainerError: manifest unknown"


@pytest.mark.parametrize(
    ("container", "job", "said"),
    [
        (PULL, PULL, [PULL]),
        (PULL, f"{PULL}.", [PULL]),
        (PULL, f"Task failed to start: {PULL}", [f"Task failed to start: {PULL}"]),
        (f"{PULL[:30]}...", PULL, [PULL]),
        (PULL, "Task failed to start", [PULL, "Task failed to start"]),
        (None, PULL, [PULL]),
        ("  ", PULL, [PULL]),
        (None, None, []),
    ],
)
def test_a_reason_is_not_printed_twice(container: str | None, job: str | None, said: list[str]) -> None:
    """ECS repeats a container's reason for its task, truncated or with a full stop."""
    text = failure("Batch job", failed(container_reason=container, reason=job), causes.UNKNOWN)
    assert [line.removeprefix("AWS says: ") for line in text.splitlines() if line.startswith("AWS says")] == said


def test_the_message_of_a_stopped_job() -> None:
    """It does not say that the job failed."""
    text = failure("Batch job", failed(reason="not needed any more", stopped_by_request=True), causes.STOPPED)
    assert text.startswith("Batch job hello (abc) was stopped.")
    assert "AWS says: not needed any more" in text
