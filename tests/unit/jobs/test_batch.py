"""The Batch module against botocore's own models, and the reading of what DescribeJobs says."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from airflow_jobflow.jobs import batch, batch_request
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot


@pytest.fixture(scope="module")
def model() -> Any:
    """The model of Batch in botocore."""
    return botocore.session.get_session().get_service_model("batch")


def job(**fields: Any) -> Any:
    """A job as DescribeJobs gives it."""
    arn = "arn:aws:batch:eu-west-1:123456789012:job/abc"
    return {"jobId": "abc", "jobName": "hello", "jobArn": arn, "status": "RUNNING", **fields}


def test_every_status_of_botocore_is_in_the_table(model: Any) -> None:
    """A status that the table forgets would be taken for a job that never ends."""
    assert list(batch.STATES) == model.shape_for("JobStatus").enum


def test_everything_submit_job_takes_can_be_said(model: Any) -> None:
    """A member without a parameter could not be said at all."""
    assert set(batch_request.REQUEST_FIELDS.values()) == set(model.operation_model("SubmitJob").input_shape.members)


def test_a_status_no_table_knows_is_still_going() -> None:
    """A new status of AWS's must not end a wait."""
    assert batch.snapshot(job(status="PONDERING")).state is JobState.RUNNING


def test_only_what_was_given_is_sent() -> None:
    """An explicit default would replace the job definition's own."""
    given = {"job_name": "a", "job_queue": "q", "job_definition": "d", "tags": None, "retry_strategy": None}
    assert batch_request.request(given) == {"jobName": "a", "jobQueue": "q", "jobDefinition": "d"}


def test_short_forms_become_parts_of_the_long_ones() -> None:
    """The command, the array's size and the time-out are said in AWS's own shape."""
    given = {
        "container_overrides": {"environment": [{"name": "A", "value": "1"}]},
        "command": ["echo", "hi"],
        "array_size": 7,
        "attempt_timeout": 90,
    }
    assert batch_request.request(given) == {
        "containerOverrides": {"environment": [{"name": "A", "value": "1"}], "command": ["echo", "hi"]},
        "arrayProperties": {"size": 7},
        "timeout": {"attemptDurationSeconds": 90},
    }


def test_a_snapshot_survives_the_way_through_a_trigger_event() -> None:
    """What the trigger saw must reach the operator whole."""
    seen = batch.snapshot(
        job(
            status="FAILED",
            arrayProperties={"size": 3, "statusSummary": {"SUCCEEDED": 2, "FAILED": 1}},
            container={"exitCode": 1, "reason": "why", "logStreamName": "s"},
            createdAt=1_700_000_000_000,
        )
    )
    assert Snapshot.from_dict(seen.to_dict()) == seen
    assert type(seen.to_dict()["state"]) is str


def test_the_log_is_where_the_definition_says() -> None:
    """A job that logs to a group of its own must not be looked for in the default one."""
    container = {
        "logStreamName": "s",
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/mine"}},
    }
    assert batch.snapshot(job(container=container)).log == LogStream("/mine", "s")
    assert batch.snapshot(job(container={"logStreamName": "s"})).log == LogStream("/aws/batch/job", "s")
    assert batch.snapshot(job(container={})).log is None


def test_a_parent_is_an_array_and_a_child_is_none() -> None:
    """A child carries size and index; taken for a parent, its children would be asked for."""
    parent = batch.snapshot(job(arrayProperties={"size": 7, "statusSummary": {"RUNNING": 2, "SUCCEEDED": 1}}))
    assert parent.array
    assert (parent.array.size, parent.array.running, parent.array.done) == (7, 2, 1)
    assert batch.snapshot(job(arrayProperties={"size": 7, "index": 0})).array is None


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"status": "RUNNABLE"}, False),
        ({"status": "STARTING"}, True),
        ({"status": "RUNNING"}, True),
        ({"status": "RUNNABLE", "attempts": [{"container": {"exitCode": 1}}]}, True),
        ({"status": "PENDING", "arrayProperties": {"size": 2, "statusSummary": {"RUNNABLE": 2}}}, False),
        ({"status": "PENDING", "arrayProperties": {"size": 2, "statusSummary": {"STARTING": 1}}}, True),
    ],
)
def test_a_job_that_waits_for_its_second_attempt_is_not_stuck(fields: dict[str, Any], left: bool) -> None:
    """queued_timeout is for jobs that were never taken out of the queue."""
    assert batch.snapshot(job(**fields)).left_queue is left


def test_which_attempt_is_meant() -> None:
    """The message says on which attempt a job failed."""
    ended = {"container": {"exitCode": 1}}
    assert batch.snapshot(job(status="RUNNABLE")).attempt == 0
    assert batch.snapshot(job(status="RUNNING", attempts=[ended])).attempt == 2
    assert batch.snapshot(job(status="FAILED", attempts=[ended, ended])).attempt == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"container": {"exitCode": 3}},
        {"attempts": [{"container": {"exitCode": 3}}]},
        {"ecsProperties": {"taskProperties": [{"containers": [{"exitCode": 0}, {"exitCode": 3}]}]}},
        {"attempts": [{"taskProperties": [{"containers": [{"exitCode": 3}]}]}]},
        {"eksProperties": {"podProperties": {"containers": [{"exitCode": 3}]}}},
    ],
)
def test_the_exit_code_is_found_wherever_a_kind_of_job_keeps_it(fields: dict[str, Any]) -> None:
    """Jobs of several containers, and those on EKS, keep theirs further down."""
    assert batch.snapshot(job(status="FAILED", **fields)).exit_code == 3


def test_a_child_in_china_knows_its_partition() -> None:
    """The console's address depends on it."""
    seen = batch.snapshot(job(jobArn="arn:aws-cn:batch:cn-north-1:1:job/abc:3"))
    assert (seen.partition, seen.region) == ("aws-cn", "cn-north-1")
