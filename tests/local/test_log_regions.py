"""Logs in another region than the job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_jobflow.aws import Access
from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.model import JobState, LogStream, Outcome, Snapshot
from airflow_jobflow.links import JobLogLink, pages
from airflow_jobflow.outcomes import OutcomeBuilder

ELSEWHERE = "eu-central-1"


@pytest.fixture
def failed(aws: Any, here: Callable[[Any], None]) -> Snapshot:
    """A failed job in us-east-1 with a line in its log in eu-central-1."""
    here(aws)
    log = LogStream(f"/mine/{uuid.uuid4().hex}", "s", ELSEWHERE)
    logs = aws.client("logs", region_name=ELSEWHERE)
    logs.create_log_group(logGroupName=log.group)
    logs.create_log_stream(logGroupName=log.group, logStreamName=log.stream)
    event = {"timestamp": int(time.time() * 1000), "message": "over here"}
    logs.put_log_events(logGroupName=log.group, logStreamName=log.stream, logEvents=[event])
    return Snapshot("j", JobState.FAILED, "FAILED", "etl", region="us-east-1", exit_code=1, log=log)


def test_a_log_is_read_in_its_region(failed: Snapshot) -> None:
    """The job's own region has no such stream, which the error would say."""
    judge = OutcomeBuilder(service="batch", module=batch, access=Access(None), log_lines=5)
    assert failed.log
    assert judge.last_lines(failed) == ["over here"]
    in_own = replace(failed, log=replace(failed.log, region=None))
    (line,) = judge.last_lines(in_own)
    assert line.startswith(f"(no lines in stream s of log group {failed.log.group}: ")


def test_the_region_of_a_log_reaches_the_link_and_the_outcome(failed: Snapshot) -> None:
    """The button must lead there, and a downstream task must know where to read."""
    key = JobLogLink().xcom_key
    assert f"region={ELSEWHERE}#logsV2" in pages("batch", failed)[key]
    assert failed.log
    assert Snapshot.from_dict(failed.to_dict()) == failed
    outcome: Outcome = OutcomeBuilder(service="batch", module=batch, access=Access(None), log_lines=0).outcome(failed)
    assert outcome.to_dict()["log"] == {"group": failed.log.group, "stream": "s", "region": ELSEWHERE}
    assert "region" not in replace(outcome, log=LogStream("g", "s")).to_dict()["log"]
