"""The plain reading of answers: what it takes, and what it leaves to botocore."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.parsers import ResponseParserError

from airflow_jobflow.jobs import answers


def answered(body: bytes, status: int = 200) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is left for botocore's parser, and what was read before it."""
    response, read = {"status_code": status, "body": body}, dict[str, Any]()
    answers._read("DescribeJobs", "jobs", response_dict=response, customized_response_dict=read, operation_model=None)
    return response, read


def test_an_answer_is_read_without_its_nulls() -> None:
    """As botocore's parser does, which would take several times as long."""
    response, read = answered(b'{"jobs": [{"jobId": "a", "attempts": null, "container": {"exitCode": null}}]}')
    assert read == {"jobs": [{"jobId": "a", "container": {}}]}
    assert response["body"] == b"{}"


def test_an_error_is_left_to_botocore() -> None:
    """It knows what AWS's errors look like."""
    assert answered(b'{"message": "no"}', 429) == ({"status_code": 429, "body": b'{"message": "no"}'}, {})


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b"null", b""])
def test_what_is_no_list_of_jobs_is_no_answer(body: bytes) -> None:
    """A proxy's page taken for an answer would make every job unknown."""
    with pytest.raises(ResponseParserError):
        answered(body)
