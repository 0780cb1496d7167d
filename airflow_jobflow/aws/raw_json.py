"""Parses the responses of frequent calls as plain JSON.

botocore's parser walks its model for every member of every job, which takes several times as long as parsing the JSON
and was most of the CPU time of a describe call. The result is the JSON as AWS sent it: times are numbers, not
datetimes.
"""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.client import BaseClient

OPERATIONS = {
    "batch": {"DescribeJobs": "jobs"},
    "ecs": {"DescribeTasks": "tasks"},
    "glue": {
        "BatchGetCrawlers": "Crawlers",
        "GetCrawler": "Crawler",
        "GetJobRun": "JobRun",
        "GetJobRuns": "JobRuns",
        "ListCrawls": "Crawls",
    },
    "logs": {"GetLogEvents": "events"},
}
"""The operations, by service, each with a member that every response has: a list or an object."""


def register(client: BaseClient) -> None:
    """Make a client parse the responses of these operations as plain JSON.

    :param client: a boto3 client.
    """
    service = client.meta.service_model.service_id.hyphenize()
    for operation, member in OPERATIONS.get(client.meta.service_model.service_name, {}).items():
        handler = functools.partial(_read, operation, member)
        client.meta.events.register(f"before-parse.{service}.{operation}", handler)


def _read(
    operation: str,
    member: str,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Parse a response. Like botocore's parser, this treats null as absent."""
    if response_dict["status_code"] != HTTPStatus.OK:
        return  # an error, which botocore parses
    try:
        body = response_dict["body"]
        # Most have no nulls, and calling a function for each of thousands of objects is a third of the parsing time.
        answer = json.loads(body, object_hook=_without_nulls if b"null" in body else None)
        len(answer[member])
        customized_response_dict.update(answer)
    except (ValueError, KeyError, TypeError) as error:
        from botocore.parsers import ResponseParserError

        raise ResponseParserError(f"The response of {operation} has no {member}: {error!r}") from error
    response_dict["body"] = b"{}"


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    return (
        {name: value for name, value in members.items() if value is not None} if None in members.values() else members
    )
