"""Array jobs and dependencies."""

from __future__ import annotations

import itertools
from typing import Any

import pytest


def test_children_see_their_index_and_the_parent_counts_them(kit: Any) -> None:
    """Every child runs once with its own id; the parent has neither exit code nor log."""
    job_id = kit.sh("echo $AWS_BATCH_JOB_ID $AWS_BATCH_JOB_ARRAY_INDEX", arrayProperties={"size": 5})
    parent = kit.wait(job_id)
    assert parent["status"] == "SUCCEEDED"
    assert parent["arrayProperties"]["size"] == 5
    assert parent["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 5
    assert not {"exitCode", "logStreamName"} & set(parent["container"])
    assert [kit.output(f"{job_id}:{index}") for index in range(5)] == [[f"{job_id}:{n} {n}"] for n in range(5)]
    assert [child["arrayProperties"]["index"] for child in kit.children(job_id, 5)] == list(range(5))


def test_parent_is_pending_while_children_run_and_fails_when_all_have_ended(kit: Any) -> None:
    """One failed child fails the parent, with AWS's message, after the last child has ended."""
    job_id = kit.sh(
        "case $AWS_BATCH_JOB_ARRAY_INDEX in 0) exit 3 ;; 1) sleep 60 ;; esac",
        arrayProperties={"size": 3},
    )
    kit.wait(f"{job_id}:0", "FAILED")
    kit.wait(f"{job_id}:1", "RUNNING")
    assert kit.look(job_id)["status"] == "PENDING"
    kit.batch.terminate_job(jobId=f"{job_id}:1", reason="enough")
    parent = kit.wait(job_id)
    assert (parent["status"], parent["statusReason"]) == ("FAILED", "Array Child Job failed")
    assert parent["arrayProperties"]["statusSummary"]["FAILED"] == 2


def test_only_the_failed_child_is_retried(kit: Any) -> None:
    """The retry strategy applies to each child."""
    job_id = kit.sh(
        'test "$AWS_BATCH_JOB_ARRAY_INDEX$AWS_BATCH_JOB_ATTEMPT" != 11',
        arrayProperties={"size": 2},
        retryStrategy={"attempts": 2},
    )
    assert kit.wait(job_id)["status"] == "SUCCEEDED"
    assert [len(child["attempts"]) for child in kit.children(job_id, 2)] == [1, 2]


def test_timeout_ends_a_child_and_not_its_parent(kit: Any) -> None:
    """The parent fails because a child failed."""
    job_id = kit.sh(
        "test $AWS_BATCH_JOB_ARRAY_INDEX = 0 || sleep 60",
        arrayProperties={"size": 2},
        timeout={"attemptDurationSeconds": 60},
    )
    assert kit.wait(job_id)["statusReason"] == "Array Child Job failed"
    assert [child["status"] for child in kit.children(job_id, 2)] == ["SUCCEEDED", "FAILED"]


def test_sequential_children_run_one_after_the_other(kit: Any) -> None:
    """A child is PENDING until the previous one has succeeded."""
    job_id = kit.sh("true", arrayProperties={"size": 4}, dependsOn=[{"type": "SEQUENTIAL"}])
    assert kit.wait(job_id)["status"] == "SUCCEEDED"
    children = kit.children(job_id, 4)
    for before, after in itertools.pairwise(children):
        assert before["stoppedAt"] <= after["startedAt"]


def test_failure_of_a_sequential_child_fails_all_after_it(kit: Any) -> None:
    """The number of children does not matter, because there is no recursion."""
    job_id = kit.sh(
        "test $AWS_BATCH_JOB_ARRAY_INDEX = 0",
        arrayProperties={"size": 3000},
        dependsOn=[{"type": "SEQUENTIAL"}],
    )
    parent = kit.wait(job_id)
    assert parent["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 1
    assert kit.look(f"{job_id}:2999")["statusReason"] == "Dependent Job failed"


def test_n_to_n_waits_for_the_same_index_only(kit: Any) -> None:
    """A child runs when the child with the same index has ended, while others still run."""
    first = kit.sh("test $AWS_BATCH_JOB_ARRAY_INDEX = 0 || sleep 60", arrayProperties={"size": 2})
    second = kit.sh("true", arrayProperties={"size": 2}, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
    assert kit.wait(f"{second}:0")["status"] == "SUCCEEDED"
    assert kit.look(f"{second}:1")["status"] == "PENDING"
    kit.batch.terminate_job(jobId=first, reason="enough")
    assert kit.wait(f"{second}:1")["statusReason"] == "Dependent Job failed"
    assert kit.wait(second)["status"] == "FAILED"


def test_n_to_n_needs_arrays_of_one_size(kit: Any) -> None:
    """A dependency on an array of another size is rejected."""
    first = kit.submit(arrayProperties={"size": 2})
    with pytest.raises(kit.batch.exceptions.ClientException, match="N_TO_N"):
        kit.submit(arrayProperties={"size": 3}, dependsOn=[{"jobId": first, "type": "N_TO_N"}])


def test_job_waits_for_its_dependencies(kit: Any) -> None:
    """It is PENDING until the other job has succeeded."""
    first = kit.sh("sleep 60")
    second = kit.submit(dependsOn=[{"jobId": first}])
    assert kit.look(second)["status"] == "PENDING"
    kit.batch.terminate_job(jobId=first, reason="enough")
    job = kit.wait(second)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Dependent Job failed")


def test_job_runs_after_its_dependencies(kit: Any) -> None:
    """A dependency may be an array, or may have ended before."""
    first = kit.submit(arrayProperties={"size": 2})
    second = kit.submit(dependsOn=[{"jobId": first}])
    assert kit.wait(second)["status"] == "SUCCEEDED"
    third = kit.submit(dependsOn=[{"jobId": first}, {"jobId": second}])
    assert kit.wait(third)["status"] == "SUCCEEDED"


def test_array_waits_for_its_dependencies(kit: Any) -> None:
    """An array whose dependency fails never runs, and its status reason says so."""
    first = kit.sh("exit 1")
    second = kit.submit(arrayProperties={"size": 2}, dependsOn=[{"jobId": first}])
    job = kit.wait(second)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Dependent Job failed")
