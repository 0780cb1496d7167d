"""Faults of the local AWS, in boto3."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from airflow_jobflow.local import Faults, LocalAwsClient

UNKNOWN = "00000000-0000-0000-0000-000000000000"


def outcome(kit: Any) -> str:
    """Return ``ok``, or the code with which a DescribeJobs call was rejected."""
    try:
        kit.batch.describe_jobs(jobs=[UNKNOWN])
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except ConnectionClosedError:
        return "dropped"
    return "ok"


def test_calls_over_the_rate_are_throttled(own_kit: Any) -> None:
    """Batch responds with TooManyRequestsException and status 429."""
    own_kit.aws.set_faults(Faults(calls_per_second=0.001))
    assert outcome(own_kit) == "ok"
    with pytest.raises(ClientError) as caught:
        own_kit.batch.describe_jobs(jobs=[UNKNOWN])
    assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


def test_every_nth_call_is_a_server_error(own_kit: Any) -> None:
    """The other calls are handled."""
    own_kit.aws.set_faults(Faults(error_every=3))
    assert [outcome(own_kit) for _ in range(6)] == ["ok", "ok", "ServerException"] * 2
    own_kit.aws.set_faults(Faults())
    assert [outcome(own_kit) for _ in range(3)] == ["ok"] * 3


def test_every_nth_connection_is_dropped(own_kit: Any) -> None:
    """The caller gets no response."""
    own_kit.aws.set_faults(Faults(drop_every=2))
    assert [outcome(own_kit) for _ in range(4)] == ["ok", "dropped"] * 2


def test_faults_apply_to_the_named_actions(own_kit: Any) -> None:
    """Other calls are handled."""
    own_kit.aws.set_faults(Faults(actions=("batch.DescribeJobs",), error_every=1))
    own_kit.batch.describe_job_queues()
    own_kit.aws.client("s3").list_buckets()
    assert outcome(own_kit) == "ServerException"
    own_kit.aws.set_faults(Faults(actions=("s3.*",), error_every=1))
    assert outcome(own_kit) == "ok"
    with pytest.raises(ClientError, match="InternalFailure"):
        own_kit.aws.client("s3", config=Config(retries={"total_max_attempts": 1})).list_buckets()


def test_hanging_call_is_released_when_the_faults_change(own_kit: Any) -> None:
    """It is then handled; a caller with a shorter timeout gives up before."""
    own_kit.aws.set_faults(Faults(actions=("DescribeJobs",), hang=600))
    impatient = own_kit.aws.client("batch", config=Config(read_timeout=0.2, retries={"total_max_attempts": 1}))
    with pytest.raises(ReadTimeoutError):
        impatient.describe_jobs(jobs=[UNKNOWN])
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(outcome(own_kit)))
    caller.start()
    own_kit.eventually(lambda: own_kit.aws.calls["batch.DescribeJobs"] == 2)
    own_kit.aws.set_faults(Faults())
    caller.join(30)
    assert answers == ["ok"]


def test_call_with_a_lost_response_takes_effect(own_kit: Any) -> None:
    """The job exists, and a caller that repeats the call has two."""
    definition = own_kit.define()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), lose_answers=1))
    with pytest.raises(ConnectionClosedError):
        own_kit.submit(jobDefinition=definition, jobName="lost")
    own_kit.submit(jobDefinition=definition, jobName="lost")
    found = own_kit.batch.list_jobs(jobQueue=own_kit.queue, filters=[{"name": "JOB_NAME", "values": ["lost"]}])
    assert len(found["jobSummaryList"]) == 2


def test_new_ids_are_visible_after_a_delay_only(own_kit: Any) -> None:
    """They are neither described nor listed, but run."""
    own_kit.aws.set_faults(Faults(visible_after=600))
    job_id = own_kit.submit()
    assert own_kit.batch.describe_jobs(jobs=[job_id])["jobs"] == []
    every = [{"name": "JOB_NAME", "values": ["*"]}]
    assert own_kit.batch.list_jobs(jobQueue=own_kit.queue, filters=every)["jobSummaryList"] == []
    own_kit.aws.set_faults(Faults())
    assert own_kit.wait(job_id)["status"] == "SUCCEEDED"


def test_one_job_may_be_missing(own_kit: Any) -> None:
    """It is neither described nor listed at any age; others are."""
    job_id, other = own_kit.submit(jobName="job"), own_kit.submit(jobName="job")
    own_kit.wait(job_id)
    own_kit.aws.set_faults(Faults(missing=(job_id,)))
    assert [job["jobId"] for job in own_kit.batch.describe_jobs(jobs=[job_id, other])["jobs"]] == [other]
    every = [{"name": "JOB_NAME", "values": ["*"]}]
    listed = own_kit.batch.list_jobs(jobQueue=own_kit.queue, filters=every)["jobSummaryList"]
    assert [job["jobId"] for job in listed] == [other]


def test_expired_credentials_are_rejected(own_kit: Any) -> None:
    """The next calls are rejected, or all calls with one access key."""
    own_kit.aws.set_faults(Faults(expired_calls=1))
    assert [outcome(own_kit) for _ in range(2)] == ["ExpiredTokenException", "ok"]
    own_kit.aws.set_faults(Faults(expired_access_key="OLD"))
    old = own_kit.aws.client("batch", aws_access_key_id="OLD", aws_secret_access_key="x")
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        old.describe_jobs(jobs=[UNKNOWN])
    assert outcome(own_kit) == "ok"


def test_denial_names_the_role_and_the_action(own_kit: Any) -> None:
    """Other actions are allowed."""
    own_kit.aws.set_faults(Faults(denied=("batch.DescribeJobs",)))
    with pytest.raises(ClientError, match="not authorized to perform: batch:DescribeJobs"):
        own_kit.batch.describe_jobs(jobs=[UNKNOWN])
    own_kit.batch.describe_job_queues()


def test_calls_are_counted_including_rejected_ones(own_kit: Any) -> None:
    """They are counted by service and action, in every protocol."""
    own_kit.aws.set_faults(Faults(actions=("DescribeJobs",), error_every=1))
    before = own_kit.aws.calls
    outcome(own_kit)
    own_kit.aws.client("s3").create_bucket(Bucket="counted")
    own_kit.aws.client("sqs").list_queues()
    own_kit.aws.client("iam").list_users()
    counted = own_kit.aws.calls - before
    assert counted == {
        "batch.DescribeJobs": 1,
        "s3.CreateBucket": 1,
        "sqs.ListQueues": 1,
        "iam.ListUsers": 1,
    }


def test_faults_calls_and_interrupts_work_over_http(own_kit: Any) -> None:
    """A client of a server in another process can use them."""
    remote = LocalAwsClient(own_kit.aws.endpoint_url)
    remote.set_faults(Faults(actions=("DescribeJobs",), error_every=1))
    assert outcome(own_kit) == "ServerException"
    remote.set_faults(Faults())
    assert remote.calls == own_kit.aws.calls
    job_id = own_kit.sh("sleep 60")
    own_kit.wait(job_id, "RUNNING")
    remote.interrupt(job_id, status_reason="Host EC2 (instance i-0abc) terminated.")
    assert own_kit.wait(job_id)["statusReason"].startswith("Host EC2")
    with pytest.raises(ValueError, match="nothing to interrupt"):
        remote.interrupt(job_id, status_reason="again")
    assert remote.health()["status"] == "ok"


def test_unknown_fault_is_rejected() -> None:
    """A misspelled fault must not be ignored."""
    with pytest.raises(ValueError, match="Unknown fault: trottling"):
        Faults.from_json({"trottling": 1})


def test_faults_survive_json() -> None:
    """Faults are the same after being set over HTTP."""
    faults = Faults(actions=("a", "b"), calls_per_second=1.5, denied=("c",), lose_answers=2)
    assert Faults.from_json(faults.to_json()) == faults
