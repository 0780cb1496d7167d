"""Payloads of state change events, and the filters on them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.execution_time.comms import _new_encoder
from airflow.triggers.base import TriggerEvent

from airflow_jobflow.events.eventbridge import EVENT_TYPES, parse_event, parse_message
from airflow_jobflow.events.filters import EVENT_STATUSES, Filter
from airflow_jobflow.events.state_change import MAX_TEXT, job_payload
from airflow_jobflow.jobs.batch import STATES as BATCH_STATES
from airflow_jobflow.jobs.ecs_snapshot import STATES as ECS_STATES
from airflow_jobflow.jobs.glue_run import STATES as GLUE_RUN_STATES

BATCH_ARN = "arn:aws:batch:us-east-1:123456789012"
ECS_ARN = "arn:aws:ecs:us-east-1:123456789012"


def event(source: str, detail_type: str, **detail: Any) -> dict[str, Any]:
    """An event as EventBridge delivers it."""
    return {
        "version": "0",
        "id": "c8f9c4b5-76e5-d76a-f980-7011e206042b",
        "detail-type": detail_type,
        "source": source,
        "account": "123456789012",
        "time": "2026-11-22T03:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": detail,
    }


def batch(status: Any = "SUCCEEDED", **more: Any) -> dict[str, Any]:
    """Return an event of a Batch job."""
    detail = {
        "jobArn": f"{BATCH_ARN}:job/4c7599ae",
        "jobId": "4c7599ae",
        "jobName": "print-color-7f2a",
        "jobQueue": f"{BATCH_ARN}:job-queue/print-color-queue",
        "jobDefinition": f"{BATCH_ARN}:job-definition/print-color:3",
        "status": status,
        "createdAt": 1508781340401,
        **more,
    }
    return event("aws.batch", "Batch Job State Change", **detail)


PARENT: dict[str, Any] = {"arrayProperties": {"size": 7, "statusSummary": {"SUCCEEDED": 6, "FAILED": 1}}}
CHILD: dict[str, Any] = {"jobId": "4c7599ae:3", "arrayProperties": {"size": 7, "index": 3}}


def ecs(status: str = "STOPPED", exit_code: int = 0) -> dict[str, Any]:
    """Return an event of an ECS task."""
    return event(
        "aws.ecs",
        "ECS Task State Change",
        taskArn=f"{ECS_ARN}:task/jobflow/abc",
        clusterArn=f"{ECS_ARN}:cluster/jobflow",
        taskDefinitionArn=f"{ECS_ARN}:task-definition/process-item:1",
        lastStatus=status,
        stopCode="EssentialContainerExited",
        stoppedAt="2026-11-22T03:00:00.250Z",
        containers=[{"name": "main", "exitCode": exit_code}],
    )


def glue_run(state: str = "SUCCEEDED") -> dict[str, Any]:
    """Return an event of a Glue job run."""
    return event("aws.glue", "Glue Job State Change", jobName="se2_job0", jobRunId="jr_1", state=state, message="M")


def crawl(state: str = "Succeeded") -> dict[str, Any]:
    """Return an event of a Glue crawl."""
    return event("aws.glue", "Glue Crawler State Change", crawlerName="se2_in0", state=state, message="M")


def job(of: dict[str, Any]) -> dict[str, Any]:
    """Return the payload of an event about a job."""
    event = parse_event(of)
    assert event is not None
    found = job_payload(event)
    assert found is not None
    return found


def parse(body: str) -> dict[str, Any] | None:
    """Return the payload of a message; None if it is not a state change."""
    event = parse_message(body)
    return job_payload(event) if event else None


def test_the_payload_of_an_array_has_all_details_for_a_notification() -> None:
    """The payload of an asset event is public: renaming a key breaks DAGs."""
    assert job(batch("FAILED", **PARENT, statusReason="Array Child Job failed", stoppedAt=1508781345401)) == {
        "key": "batch/4c7599ae/FAILED",
        "service": "batch",
        "job_id": "4c7599ae",
        "name": "print-color-7f2a",
        "state": "FAILED",
        "status": "FAILED",
        "reason": "Array Child Job failed",
        "exit_code": None,
        "created_at": "2017-10-23T17:55:40.401000+00:00",
        "started_at": None,
        "stopped_at": "2017-10-23T17:55:45.401000+00:00",
        "array": {"size": 7, "succeeded": 6, "failed": 1},
        "definition": f"{BATCH_ARN}:job-definition/print-color:3",
        "queue": f"{BATCH_ARN}:job-queue/print-color-queue",
        "account": "123456789012",
        "region": "us-east-1",
        "time": "2026-11-22T03:00:00Z",
        "event_id": "c8f9c4b5-76e5-d76a-f980-7011e206042b",
    }


def test_the_payloads_of_all_services_have_the_same_keys() -> None:
    """DAGs read the payloads of all services in the same way."""
    told = [job(each) for each in (batch(), batch(**CHILD), ecs(), glue_run(), crawl())]
    assert len({tuple(sorted(each)) for each in told}) == 1
    assert [each["state"] for each in told] == ["SUCCEEDED"] * 5
    assert told[1]["array"] == {"parent": "4c7599ae", "index": 3}
    assert told[2]["stopped_at"] == "2026-11-22T03:00:00.250000+00:00"
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("of", "state"),
    [
        (ecs("RUNNING"), "RUNNING"),
        (ecs("STOPPED", 3), "FAILED"),
        (glue_run("TIMEOUT"), "FAILED"),
        (glue_run("NEWLY_INVENTED"), "RUNNING"),
        (batch("RUNNABLE"), "SUBMITTED"),
        (crawl("Started"), "RUNNING"),
        (crawl("Failed"), "FAILED"),
    ],
)
def test_the_payload_says_whether_an_end_is_a_success_or_a_failure(of: dict[str, Any], state: str) -> None:
    """ECS itself uses STOPPED for both."""
    assert job(of)["state"] == state


def test_an_end_has_the_same_key_in_repeated_events() -> None:
    """A repeated event with another id has the same key; for changes that can happen twice, the key contains the
    event's id.
    """
    assert job({**batch(), "id": "other"})["key"] == job(batch())["key"] == "batch/4c7599ae/SUCCEEDED"
    assert job({**batch("RUNNING"), "id": "other"})["key"] == "other"
    assert job({**crawl(), "id": "other"})["key"] == "other"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[" * 200_000,
        "null",
        "7",
        '"text"',
        "[]",
        "{}",
        json.dumps({"source": "aws.batch"}),
        json.dumps(event("aws.ec2", "EC2 Instance State-change Notification", state="running")),
        json.dumps(event("aws.batch", "Batch Job State Change")),
        json.dumps({**batch(), "detail": "text"}),
        json.dumps({**batch(), "detail": None}),
        json.dumps({**batch(), "id": None}),
        json.dumps(batch(jobId=7)),
        json.dumps(batch(status=["SUCCEEDED"])),
        json.dumps(batch(arrayProperties=7)),
        json.dumps(batch(createdAt=1e300)),
        json.dumps(batch(createdAt=float("nan"))),
        json.dumps(ecs()).replace("2026-11-22T03:00:00.250Z", "yesterday"),
        "x" * 262_144,
    ],
)
def test_messages_about_no_job_are_parsed_as_none(body: str) -> None:
    """Anyone may send messages to the queue; none may end the stream."""
    assert parse(body) is None


def test_a_payload_can_always_be_stored() -> None:
    """Text that is not valid Unicode, or a huge number, would end Airflow's triggerer."""
    hostile = batch(
        jobName="name\0\ud800",
        statusReason="x" * 262_144,
        jobQueue={"a": 1},
        container={"exitCode": 10**30},
        arrayProperties={"size": 10**30, "statusSummary": {"SUCCEEDED": "many"}},
        unknownField={"deep": [{"er": None}]},
    )
    told = parse(json.dumps({**hostile, "alsoUnknown": 1, "time": ["now"]}))
    assert told is not None
    assert told["name"] == "name?"
    assert len(told["reason"]) == MAX_TEXT
    assert (told["queue"], told["exit_code"], told["array"]["size"], told["time"]) == (None, None, None, None)
    assert _new_encoder().encode(TriggerEvent({"jobs": [told]}))  # type: ignore[no-untyped-call]
    assert len(json.dumps(told)) < 4 * MAX_TEXT
    assert not Filter(job_queue=("q",)).matches(told)


@pytest.mark.parametrize(
    ("wanted", "of", "wants"),
    [
        ({}, batch(), True),
        ({"array": "parents"}, batch(**PARENT), True),
        ({"array": "parents"}, batch(**CHILD), False),
        ({"array": "parents"}, batch(), False),
        ({"array": "children"}, batch(**CHILD), True),
        ({"array": "children"}, batch(**PARENT), False),
        ({"array": "all"}, batch(**CHILD), True),
        ({"job_definition": ["print-color"]}, batch(), True),
        ({"job_definition": ["print-color:3"]}, batch(), True),
        ({"job_definition": ["print-color:4"]}, batch(), False),
        ({"job_definition": ["print"]}, batch(), False),
        ({"job_definition": ["print*"]}, batch(), True),
        ({"job_definition": [f"{BATCH_ARN}:job-definition/print-color"]}, batch(), True),
        ({"job_definition": [f"{BATCH_ARN}:job-definition/print-color:3"]}, batch(), True),
        ({"job_definition": [f"{BATCH_ARN}:job-definition/print-color:33"]}, batch(), False),
        ({"job_definition": ["process-item"]}, ecs(), True),
        ({"job_definition": ["process-item"]}, batch(), False),
        ({"job_queue": ["other", "print-color-queue"]}, batch(), True),
        ({"job_queue": [f"{BATCH_ARN}:job-queue/print-color-queue"]}, batch(), True),
        ({"job_queue": ["color-queue"]}, batch(), False),
        ({"job_queue": ["jobflow"]}, ecs(), True),
        ({"job_name": ["print-color"]}, batch(), False),
        ({"job_name": ["print-color-*"]}, batch(), True),
        ({"job_name": ["se2_*"]}, crawl(), True),
        ({"job_name": ["*"]}, glue_run(), True),
        ({"service": ["ecs"]}, ecs(), True),
        ({"service": ["ecs"]}, batch(), False),
        ({"status": ["FAILED"]}, batch("FAILED"), True),
        ({"status": ["failed"]}, batch("FAILED"), True),
        ({"status": ["FAILED"]}, batch(), False),
        ({"status": ["FAILED"]}, ecs("STOPPED", 1), True),
        ({"status": ["FAILED"]}, glue_run("TIMEOUT"), True),
        ({"status": ["TIMEOUT"]}, glue_run("FAILED"), False),
        ({"status": ["STOPPED"]}, ecs(), True),
        ({"status": ["Started"]}, crawl("Started"), True),
    ],
)
def test_a_filter_matches_as_documented(wanted: dict[str, Any], of: dict[str, Any], wants: bool) -> None:
    """All given conditions must match; of each condition, any one value."""
    assert Filter(**wanted).matches(job(of)) is wants


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"status": ["SUCCEDED"]}, "status='SUCCEDED': no event would ever match"),
        ({"status": ["SUBMITTED"]}, "status='SUBMITTED'"),
        ({"service": ["batch"], "status": ["STOPPED"]}, "the statuses of batch are FAILED, PENDING"),
        ({"array": "parents", "status": ["TIMEOUT"]}, "status='TIMEOUT'"),
        ({"array": "parents", "service": ["ecs"]}, "array='parents': no event would ever match"),
        ({"array": "parents", "service": ["batch", "ecs"]}, "array='parents'"),
        ({"array": "parent"}, "must be one of all, parents, children"),
        ({"service": ["lambda"]}, "must be one of batch, ecs, glue_run, glue_crawl"),
        ({"service": ["glue_run"], "job_queue": ["q"]}, "job_queue=['q']: no event would ever match"),
        ({"service": ["ecs"], "job_name": ["n"]}, "job_name=['n']"),
        ({"job_name": ["*-color"]}, "'*' may only stand at the end"),
        ({"job_definition": [""]}, "job_definition=''"),
    ],
)
def test_a_filter_that_can_never_match_is_rejected(wanted: dict[str, Any], words: str) -> None:
    """It would wait forever without an error."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the message is asserted
        Filter(**wanted)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "states"), [("batch", BATCH_STATES), ("ecs", ECS_STATES), ("glue_run", GLUE_RUN_STATES)]
)
def test_the_statuses_are_those_that_the_services_have(name: str, states: dict[str, Any]) -> None:
    """A status that AWS adds must not be rejected."""
    beside = {"batch": ({"SUBMITTED"}, set()), "ecs": (set(), {"STOPPED"})}
    missing, more = beside.get(name, (set(), set()))
    assert set(EVENT_STATUSES[name]) == (set(states) - missing) | more


@pytest.mark.parametrize(("source", "detail_type"), EVENT_TYPES)
def test_an_event_that_ends_a_wait_is_also_reported_as_an_end(source: str, detail_type: str) -> None:
    """Waits and asset watchers use the same events."""
    kind = EVENT_TYPES[source, detail_type]
    assert {word.upper() for word in kind.ended} <= set(EVENT_STATUSES[kind.service])
    for of in (batch(), ecs(), glue_run(), crawl()):
        if (of["source"], of["detail-type"]) == (source, detail_type):
            told = [job({**of, "detail": {**of["detail"], kind.status: word}}) for word in kind.ended]
            assert {each["state"] for each in told} <= {"SUCCEEDED", "FAILED"}
