"""CancelJob and TerminateJob."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_cancel_does_not_affect_a_running_job(kit: Any, gate: Path) -> None:
    """The response is a success nevertheless."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 4")
    kit.wait(job_id, "RUNNING")
    kit.batch.cancel_job(jobId=job_id, reason="unwanted")
    gate.touch()
    job = kit.wait(job_id)
    assert (job["container"]["exitCode"], job["isCancelled"]) == (4, False)


def test_cancel_ends_a_job_that_has_not_started(kit: Any, disabled_queue: str) -> None:
    """A runnable job fails with the given reason, and has no exit code."""
    job_id = kit.submit(jobQueue=disabled_queue)
    kit.batch.cancel_job(jobId=job_id, reason="unwanted")
    job = kit.look(job_id)
    assert (job["status"], job["statusReason"], job["isCancelled"]) == ("FAILED", "unwanted", True)
    assert "exitCode" not in job["container"]
    assert job["attempts"] == []


def test_cancelled_pending_job_ends_after_its_dependencies(kit: Any, gate: Path) -> None:
    """As AWS documents, a PENDING job is cancelled after its dependencies have completed."""
    first = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    second = kit.submit(dependsOn=[{"jobId": first}])
    kit.batch.cancel_job(jobId=second, reason="unwanted")
    assert kit.look(second)["status"] == "PENDING"
    gate.touch()
    job = kit.wait(second)
    assert (job["status"], job["statusReason"]) == ("FAILED", "unwanted")
    assert kit.look(first)["status"] == "SUCCEEDED"


def test_cancelled_array_lets_running_children_finish(kit: Any, gate: Path) -> None:
    """Waiting children are cancelled; the parent ends after the running ones."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done", arrayProperties={"size": 20})
    kit.wait(f"{job_id}:0", "RUNNING")
    kit.batch.cancel_job(jobId=job_id, reason="unwanted")
    assert kit.look(job_id)["status"] == "PENDING"
    gate.touch()
    parent = kit.wait(job_id)
    assert (parent["status"], parent["statusReason"]) == ("FAILED", "unwanted")
    summary = parent["arrayProperties"]["statusSummary"]
    assert summary["SUCCEEDED"] > 0
    assert summary["FAILED"] > 0


def test_terminate_ends_a_running_job(kit: Any) -> None:
    """It is FAILED with the given reason, and has the exit code of a killed container."""
    job_id = kit.sh("sleep 60 & wait", retryStrategy={"attempts": 3})
    kit.wait(job_id, "RUNNING")
    kit.batch.terminate_job(jobId=job_id, reason="enough")
    job = kit.wait(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)
    assert job["container"]["exitCode"] == 137
    assert len(job["attempts"]) == 1


def test_terminated_job_may_clean_up(kit: Any) -> None:
    """SIGTERM comes first; a job that handles it ends with its own exit code."""
    job_id = kit.sh("trap 'echo bye; exit 9' TERM; echo up; while true; do sleep 0.05; done")
    kit.wait(job_id, "RUNNING")
    stream = kit.look(job_id)["container"]["logStreamName"]
    kit.eventually(lambda: "up" in kit.lines(stream))
    kit.batch.terminate_job(jobId=job_id, reason="enough")
    job = kit.wait(job_id)
    assert (job["statusReason"], job["container"]["exitCode"]) == ("enough", 9)
    assert "bye" in kit.lines(stream)


def test_terminate_ends_a_job_that_has_not_started(kit: Any, disabled_queue: str) -> None:
    """It works in every status, including PENDING."""
    runnable = kit.submit(jobQueue=disabled_queue)
    pending = kit.submit(dependsOn=[{"jobId": runnable}])
    kit.batch.terminate_job(jobId=pending, reason="enough")
    assert (kit.look(pending)["status"], kit.look(pending)["statusReason"]) == ("FAILED", "enough")
    kit.batch.terminate_job(jobId=runnable, reason="also enough")
    assert kit.look(runnable)["statusReason"] == "also enough"


def test_terminating_a_parent_ends_its_children(kit: Any) -> None:
    """Running and waiting children end, and the parent has the given reason."""
    job_id = kit.sh("sleep 60", arrayProperties={"size": 10})
    kit.wait(f"{job_id}:0", "RUNNING")
    kit.batch.terminate_job(jobId=job_id, reason="enough")
    parent = kit.wait(job_id)
    assert (parent["status"], parent["statusReason"], parent["isTerminated"]) == ("FAILED", "enough", True)
    assert {(child["status"], child["statusReason"]) for child in kit.children(job_id, 10)} == {("FAILED", "enough")}


def test_terminating_an_ended_job_changes_nothing(kit: Any) -> None:
    """Its reason does not change."""
    job_id = kit.sh("exit 5")
    before = kit.wait(job_id)
    kit.batch.terminate_job(jobId=job_id, reason="too late")
    after = kit.look(job_id)
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
