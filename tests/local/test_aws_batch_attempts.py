"""Batch attempts: the environment of a process, its end, and retries."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_jobflow.local.samples import ON_FARGATE

if TYPE_CHECKING:
    from pathlib import Path


def test_output_is_in_the_log_stream_of_the_job(kit: Any) -> None:
    """Both outputs of a process are in the log; its exit code and times are in DescribeJobs."""
    job = kit.wait(kit.sh("echo out; echo err >&2; printf last"))
    assert job["status"] == "SUCCEEDED"
    assert job["statusReason"] == "Essential container in task exited"
    assert job["container"]["exitCode"] == 0
    assert kit.lines(job["container"]["logStreamName"]) == ["out", "err", "last"]
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    (attempt,) = job["attempts"]
    assert attempt["container"]["logStreamName"] == job["container"]["logStreamName"]
    assert attempt["statusReason"] == job["statusReason"]


def test_process_has_a_minimal_environment(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the variables of the definition and the overrides, AWS_BATCH_*, and none of the server."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    definition = kit.define(["env"], containerProperties={"environment": [{"name": "A", "value": "1"}]})
    job_id = kit.submit(
        jobDefinition=definition, containerOverrides={"environment": [{"name": "B", "value": "two words"}]}
    )
    seen = dict(line.split("=", 1) for line in kit.output(job_id))
    assert seen["A"] == "1"
    assert seen["B"] == "two words"
    assert seen["AWS_BATCH_JOB_ID"] == job_id
    assert seen["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert seen["AWS_BATCH_JQ_NAME"] == kit.queue
    assert "AWS_BATCH_JOB_ARRAY_INDEX" not in seen
    assert "SECRET_OF_THE_SERVER" not in seen


def test_process_reaches_the_local_aws_with_boto3(kit: Any) -> None:
    """`python` is this interpreter, and boto3 in it calls the server that started it."""
    script = "import boto3, sys; print(boto3.client('sts').get_caller_identity()['Account'], sys.prefix)"
    assert kit.output(kit.submit(["python", "-c", script])) == [f"{kit.aws.account_id} {sys.prefix}"]


def test_working_directory_is_temporary(kit: Any) -> None:
    """A process starts in its own empty directory, which is its home and is removed afterwards."""
    (directory, home) = kit.output(kit.sh("pwd; echo $HOME; touch file; ls > /dev/null"))
    assert directory == home
    assert kit.output(kit.sh(f"ls -d {directory} 2>/dev/null || echo gone")) == ["gone"]


def test_parameters_are_substituted(kit: Any) -> None:
    """Parameters of the request override those of the definition."""
    definition = kit.define(["echo", "Ref::a", "Ref::b"], parameters={"a": "1", "b": "2"})
    assert kit.output(kit.submit(jobDefinition=definition, parameters={"b": "3"})) == ["1 3"]


def test_failing_command_fails_the_job(kit: Any) -> None:
    """A non-zero exit code fails the job with AWS's message."""
    job = kit.wait(kit.sh("exit 7"))
    assert (job["status"], job["container"]["exitCode"]) == ("FAILED", 7)
    assert job["statusReason"] == "Essential container in task exited"


def test_job_killed_by_a_signal_has_a_containers_exit_code(kit: Any) -> None:
    """The exit code is 128 plus the number of the signal."""
    assert kit.wait(kit.sh("kill -SEGV $$"))["container"]["exitCode"] == 139


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], "no such file or directory"),
        ([], "no command specified"),
    ],
)
def test_command_that_cannot_start_has_no_exit_code(kit: Any, command: list[str], said: str) -> None:
    """The container's reason explains it; there is no exit code and no log."""
    job = kit.wait(kit.submit(command))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["container"]["reason"].startswith("CannotStartContainerError: Error response from daemon: ")
    assert said in job["container"]["reason"]
    assert not {"exitCode", "logStreamName"} & set(job["container"])


def test_missing_image_cannot_be_pulled(kit: Any) -> None:
    """An image of the repository ``missing/`` does not exist."""
    definition = kit.define(["true"], containerProperties={"image": "missing/image:1"})
    job = kit.wait(kit.submit(jobDefinition=definition))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["container"]["reason"].startswith("CannotPullContainerError: ")


def test_failed_attempt_is_retried_until_it_succeeds(kit: Any) -> None:
    """Every attempt gets its number and has its own log."""
    job = kit.wait(
        kit.sh(
            'echo try $AWS_BATCH_JOB_ATTEMPT; test "$AWS_BATCH_JOB_ATTEMPT" = 3',
            retryStrategy={"attempts": 5},
        )
    )
    assert job["status"] == "SUCCEEDED"
    streams = [attempt["container"]["logStreamName"] for attempt in job["attempts"]]
    assert [kit.lines(stream) for stream in streams] == [["try 1"], ["try 2"], ["try 3"]]
    assert job["container"]["logStreamName"] == streams[-1]


def test_attempts_are_limited(kit: Any) -> None:
    """A job fails when its last attempt has failed."""
    job = kit.wait(kit.sh("exit 1", retryStrategy={"attempts": 2}))
    assert (job["status"], len(job["attempts"])) == ("FAILED", 2)


def test_evaluate_on_exit_stops_the_retries(kit: Any) -> None:
    """A rule that says EXIT ends the job at once."""
    rules = [{"onExitCode": "4*", "action": "EXIT"}]
    job = kit.wait(kit.sh("exit 42", retryStrategy={"attempts": 5, "evaluateOnExit": rules}))
    assert len(job["attempts"]) == 1


def test_request_overrides_retry_strategy_and_timeout_of_the_definition(kit: Any) -> None:
    """Without them in the request, those of the definition apply."""
    definition = kit.define(["false"], retryStrategy={"attempts": 2}, timeout={"attemptDurationSeconds": 77})
    job = kit.wait(kit.submit(jobDefinition=definition))
    assert len(job["attempts"]) == 2
    assert job["timeout"] == {"attemptDurationSeconds": 77}
    job = kit.wait(kit.submit(jobDefinition=definition, retryStrategy={"attempts": 1}))
    assert len(job["attempts"]) == 1


def test_attempt_that_times_out_is_not_retried(kit: Any) -> None:
    """The timeout applies per attempt; it ends the job even if attempts are left."""
    job = kit.wait(kit.sh("sleep 60", timeout={"attemptDurationSeconds": 60}, retryStrategy={"attempts": 3}))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert len(job["attempts"]) == 1
    assert job["container"]["exitCode"] == 137


def test_spot_interruption_is_retried_if_the_strategy_says_so(kit: Any) -> None:
    """An interrupted attempt has AWS's message and no exit code, and the next one completes."""
    rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    job_id = kit.sh(
        'test "$AWS_BATCH_JOB_ATTEMPT" = 2 || sleep 60',
        retryStrategy={"attempts": 2, "evaluateOnExit": rules},
    )
    kit.wait(job_id, "RUNNING")
    reason = "Host EC2 (instance i-0abc) terminated."
    kit.aws.interrupt(job_id, status_reason=reason)
    job = kit.wait(job_id)
    assert job["status"] == "SUCCEEDED"
    assert job["attempts"][0]["statusReason"] == reason
    assert "exitCode" not in job["attempts"][0]["container"]


def test_out_of_memory_is_a_reason_of_the_container(kit: Any) -> None:
    """Reason and exit code are the given ones."""
    job_id = kit.sh("sleep 60")
    kit.wait(job_id, "RUNNING")
    reason = "OutOfMemoryError: Container killed due to memory usage"
    kit.aws.interrupt(
        job_id, status_reason="Essential container in task exited", container_reason=reason, exit_code=137
    )
    job = kit.wait(job_id)
    assert (job["status"], job["container"]["reason"], job["container"]["exitCode"]) == (
        "FAILED",
        reason,
        137,
    )


def test_interrupting_an_ended_job_is_an_error(kit: Any) -> None:
    """A job that has ended cannot be interrupted."""
    job_id = kit.submit()
    kit.wait(job_id)
    with pytest.raises(ValueError, match="nothing to interrupt"):
        kit.aws.interrupt(job_id, status_reason="Host EC2 (instance i-0abc) terminated.")


def test_fargate_jobs_have_no_container_instance(kit: Any) -> None:
    """Jobs on EC2 have one."""
    definition = kit.define(["true"], platformCapabilities=["FARGATE"], containerProperties=ON_FARGATE)
    assert "containerInstanceArn" not in kit.wait(kit.submit(jobDefinition=definition))["container"]
    assert "containerInstanceArn" in kit.wait(kit.submit())["container"]


def test_job_runs_although_its_definition_was_deregistered(kit: Any, gate: Path) -> None:
    """A job keeps the definition from the time of its submission."""
    definition = kit.define(["echo", "kept"])
    first = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    job_id = kit.submit(jobDefinition=definition, dependsOn=[{"jobId": first}])
    kit.batch.deregister_job_definition(jobDefinition=definition)
    gate.touch()
    assert kit.output(job_id) == ["kept"]


def test_log_group_and_prefix_of_the_definition_are_used(kit: Any) -> None:
    """The log configuration sets another group and prefix."""
    options = {"awslogs-group": "/my/group", "awslogs-stream-prefix": "mine"}
    definition = kit.define(
        ["echo", "x"], containerProperties={"logConfiguration": {"logDriver": "awslogs", "options": options}}
    )
    stream = kit.wait(kit.submit(jobDefinition=definition))["container"]["logStreamName"]
    assert stream.startswith("mine/default/")
    assert kit.lines(stream, "/my/group") == ["x"]


def test_overrides_too_long_for_ecs_fail_the_job_and_not_the_submit(kit: Any) -> None:
    """AWS accepts such a job and fails it at its start."""
    environment = [{"name": "LONG", "value": "x" * 8192}]
    job = kit.wait(kit.submit(containerOverrides={"environment": environment}))
    assert (job["status"], job["statusReason"]) == (
        "FAILED",
        "Container Overrides length must be at most 8192",
    )
    assert job["attempts"] == []
