"""The fast parser of JSON responses: what it reads, and what it leaves to botocore."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.parsers import ResponseParserError

from airflow_jobflow.aws import raw_json


def answered(body: bytes, status: int = 200) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is left for botocore's parser, and what was read before."""
    response, read = {"status_code": status, "body": body}, dict[str, Any]()
    raw_json._read("DescribeJobs", "jobs", response_dict=response, customized_response_dict=read, operation_model=None)
    return response, read


def test_nulls_are_removed_from_a_response() -> None:
    """Nulls are removed as by botocore's parser, which is several times slower."""
    response, read = answered(b'{"jobs": [{"jobId": "a", "attempts": null, "container": {"exitCode": null}}]}')
    assert read == {"jobs": [{"jobId": "a", "container": {}}]}
    assert response["body"] == b"{}"


def test_an_error_is_left_to_botocore() -> None:
    """Botocore parses errors, because it knows their format."""
    assert answered(b'{"message": "no"}', 429) == ({"status_code": 429, "body": b'{"message": "no"}'}, {})


def test_an_object_is_read_like_a_list() -> None:
    """GetJobRun responds with an object."""
    response, read = {"status_code": 200, "body": b'{"JobRun": {"Id": "a"}}'}, dict[str, Any]()
    raw_json._read("GetJobRun", "JobRun", response_dict=response, customized_response_dict=read, operation_model=None)
    assert read == {"JobRun": {"Id": "a"}}


class Raw(io.BytesIO):
    """The body of a response, with the interface of urllib3."""

    def stream(self) -> Iterator[bytes]:
        """Return the whole body as one chunk."""
        yield self.read()


def test_a_client_uses_the_fast_parser() -> None:
    """Times are numbers, not datetimes."""
    client: Any = boto3.client("glue", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    raw_json.register(client)
    headers: Any = {"content-type": "application/x-amz-json-1.1"}
    raw: Any = Raw(b'{"JobRuns": [{"Id": "a", "StartedOn": 1.5}]}')
    sent = AWSResponse("http://glue", 200, headers, raw)
    client.meta.events.register("before-send.glue.GetJobRuns", lambda **_: sent)
    assert client.get_job_runs(JobName="j")["JobRuns"] == [{"Id": "a", "StartedOn": 1.5}]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b"null", b""])
def test_a_body_without_a_list_of_jobs_is_an_error(body: bytes) -> None:
    """Otherwise an HTML page of a proxy would make every job unknown."""
    with pytest.raises(ResponseParserError):
        answered(body)


def test_the_times_of_log_events_are_numbers() -> None:
    """As botocore reads them, too: what GetLogEvents returns does not depend on who parses it."""
    response, read = {"status_code": 200, "body": b'{"events": [{"timestamp": 5, "message": "a"}]}'}, dict[str, Any]()
    raw_json._read(
        "GetLogEvents", "events", response_dict=response, customized_response_dict=read, operation_model=None
    )
    assert read == {"events": [{"timestamp": 5, "message": "a"}]}
