"""Reads answers of AWS's JSON services plainly, for looks at thousands of jobs.

botocore's parser walks its model for every member of every job and takes several times as long as reading the JSON
does: it was most of what a look cost. What is read here is the JSON as it came: times are numbers, not datetimes.
"""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from botocore.client import BaseClient


def read_plainly(client: BaseClient, operation: str, member: str) -> None:
    """Have a client read the answers to an operation plainly from now on. Saying so again changes nothing.

    :param operation: such as ``DescribeJobs``.
    :param member: what every answer has, a list or an object; one without it counts as unreadable.
    """
    service = client.meta.service_model.service_id.hyphenize()
    handler = functools.partial(_read, operation, member)
    client.meta.events.register(f"before-parse.{service}.{operation}", handler, unique_id=f"jobflow-{operation}")


def _read(
    operation: str,
    member: str,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Take an answer as it came. Like the parser, this takes null for absent."""
    if response_dict["status_code"] != HTTPStatus.OK or customized_response_dict:
        return  # an error, or read already: two threads may both have found the client without a handler
    try:
        answer = json.loads(response_dict["body"], object_hook=_without_nulls)
        len(answer[member])
        customized_response_dict.update(answer)
    except (ValueError, KeyError, TypeError) as error:
        raise ResponseParserError(f"{operation} answered what holds no {member}: {error!r}") from error
    response_dict["body"] = b"{}"


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    return (
        {name: value for name, value in members.items() if value is not None} if None in members.values() else members
    )
