"""Parsing of EventBridge messages: which job an event is about, and whether it has ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.events import eventbridge
from airflow_jobflow.events.eventbridge import JobEvent, jobs_to_describe, parse_message
from airflow_jobflow.jobs import batch, ecs_snapshot, glue_crawl, glue_run
from airflow_jobflow.local.glue import events as glue_events

BATCH_ID = "4c7599ae-0a82-49aa-ba5a-4727fcce14a8"
TASK = "arn:aws:ecs:us-east-1:123456789012:task/jobs/0123456789abcdef"
RUN = "jr_22e80ef60c3e"
BATCH = ("aws.batch", "Batch Job State Change")
ECS = ("aws.ecs", "ECS Task State Change")
GLUE_RUN = ("aws.glue", "Glue Job State Change")
CRAWL = ("aws.glue", "Glue Crawler State Change")


def message(kind: tuple[str, str], **detail: Any) -> str:
    """An event as EventBridge sends it."""
    envelope = {"version": "0", "id": "1", "account": "123456789012", "region": "us-east-1", "resources": []}
    return json.dumps({**envelope, "source": kind[0], "detail-type": kind[1], "detail": detail})


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (message(BATCH, jobId=BATCH_ID, status="SUCCEEDED"), JobEvent("batch", BATCH_ID, ended=True)),
        (message(BATCH, jobId=BATCH_ID, status="RUNNING"), JobEvent("batch", BATCH_ID, ended=False)),
        (message(ECS, taskArn=TASK, lastStatus="STOPPED"), JobEvent("ecs", TASK, ended=True)),
        (message(ECS, taskArn=TASK, lastStatus="DEPROVISIONING"), JobEvent("ecs", TASK, ended=False)),
        (message(GLUE_RUN, jobName="load", jobRunId=RUN, state="TIMEOUT"), JobEvent("glue_run", RUN, ended=True)),
        (message(CRAWL, crawlerName="se2", state="Started"), JobEvent("glue_crawl", "se2", ended=False)),
        (message(CRAWL, crawlerName="se2", state="Failed"), JobEvent("glue_crawl", "se2", ended=True)),
        (message(BATCH, jobId=BATCH_ID, status="PAUSED"), JobEvent("batch", BATCH_ID, ended=False)),
        (message(BATCH, jobId=BATCH_ID), JobEvent("batch", BATCH_ID, ended=False)),
        (message(BATCH, jobId=BATCH_ID, status=["FAILED"]), JobEvent("batch", BATCH_ID, ended=False)),
        (message(BATCH, jobId=BATCH_ID, more={"x" * 256_000: None}), JobEvent("batch", BATCH_ID, ended=False)),
    ],
)
def test_an_event_is_parsed_despite_unknown_members(body: str, event: JobEvent) -> None:
    """An unknown status does not count as an end."""
    assert parse_message(body) == event


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "null",
        "[]",
        "{}",
        '"detail"',
        "[" * 100_000,
        '{"a":' * 40_000,
        "x" * 256_000,
        json.dumps({"source": BATCH[0], "detail-type": BATCH[1]}),
        json.dumps({"source": BATCH[0], "detail-type": BATCH[1], "detail": [BATCH_ID]}),
        json.dumps({"source": [], "detail-type": {}, "detail": {"jobId": BATCH_ID}}),
        message(BATCH),
        message(BATCH, jobId=""),
        message(BATCH, jobId=7),
        message(BATCH, jobId={"a": 1}),
        message(("aws.s3", "Object Created"), bucket={"name": "b"}),
        message(("aws.batch", "Batch Job Queue Blocked"), jobId=BATCH_ID),
        message(("aws.glue", "Batch Job State Change"), jobId=BATCH_ID, status="FAILED"),
        json.dumps({"Type": "Notification", "Message": message(BATCH, jobId=BATCH_ID, status="FAILED")}),
    ],
    ids=range(20),
)
def test_other_messages_are_parsed_as_none(body: str) -> None:
    """Messages that are not events of jobs raise no error."""
    assert parse_message(body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from(list(eventbridge.EVENT_TYPES)),
    st.dictionaries(st.sampled_from(["jobId", "status", "taskArn", "lastStatus", "state"]), json_values),
)
def test_parsing_never_raises(kind: tuple[str, str], detail: dict[str, Any]) -> None:
    """Any JSON value in place of an id or a status is tolerated."""
    event = parse_message(message(kind, **detail))
    assert event is None or jobs_to_describe(event, event.service, [BATCH_ID]) is not None


@pytest.mark.parametrize(
    ("event", "service", "known", "looks"),
    [
        (JobEvent("batch", BATCH_ID, ended=True), "batch", [BATCH_ID, "another"], {BATCH_ID: True}),
        (JobEvent("batch", BATCH_ID, ended=False), "batch", [BATCH_ID], {BATCH_ID: False}),
        (JobEvent("batch", BATCH_ID, ended=True), "batch", ["another"], {}),
        (JobEvent("batch", BATCH_ID, ended=True), "ecs", [BATCH_ID], {}),
        (JobEvent("batch", f"{BATCH_ID}:7", ended=True), "batch", [BATCH_ID], {BATCH_ID: False}),
        (
            JobEvent("batch", f"{BATCH_ID}:7", ended=True),
            "batch",
            [BATCH_ID, f"{BATCH_ID}:7", f"{BATCH_ID}:77"],
            {f"{BATCH_ID}:7": True, BATCH_ID: False},
        ),
        (JobEvent("batch", BATCH_ID, ended=True), "batch", [f"{BATCH_ID}:7"], {}),
        (JobEvent("ecs", TASK, ended=True), "ecs", [TASK], {TASK: True}),
        (JobEvent("ecs", TASK, ended=True), "ecs", ["0123456789abcdef"], {"0123456789abcdef": True}),
        (JobEvent("glue_run", RUN, ended=True), "glue_run", [RUN], {RUN: True}),
        (
            JobEvent("glue_crawl", "se2", ended=True),
            "glue_crawl",
            ["se2@2026-11-22T03:21:48+00:00#a", "se2@2026-11-22T03:25:48+00:00", "se22@2026-11-22T03:21:48+00:00"],
            {"se2@2026-11-22T03:21:48+00:00#a": True, "se2@2026-11-22T03:25:48+00:00": True},
        ),
    ],
)
def test_an_event_matches_jobs_by_its_names(
    event: JobEvent, service: str, known: list[str], looks: dict[str, bool]
) -> None:
    """An event of a child also matches its array, and one of a crawler matches each of its crawls."""
    assert jobs_to_describe(event, service, known) == looks


def test_final_statuses_are_those_of_the_services() -> None:
    """A final status that a service's table gets must also end waits by events."""
    ends = {kind.service: kind.ended for kind in eventbridge.EVENT_TYPES.values()}
    assert ends["batch"] == {status for status, state in batch.STATES.items() if state.ended}
    assert ends["glue_run"] == {status for status, state in glue_run.STATES.items() if state.ended}
    assert ends["ecs"] == {ecs_snapshot.STOPPED}
    assert {kind.service for kind in eventbridge.EVENT_TYPES.values()} == {"batch", "ecs", "glue_run", "glue_crawl"}


def test_a_crawl_is_matched_by_the_name_of_its_crawler() -> None:
    """The name in the event is built as in the id of a crawl."""
    [key] = [key for key, kind in eventbridge.EVENT_TYPES.items() if kind.service == eventbridge.GLUE_CRAWL]
    assert key == ("aws.glue", glue_events.CRAWLER)
    since = glue_crawl.Since.read("se2_in0@2026-11-22T03:21:48.125000+00:00")
    assert jobs_to_describe(JobEvent("glue_crawl", since.crawler, ended=True), "glue_crawl", [str(since)]) == {
        str(since): True
    }
