"""How the functions in ``jobs/`` call AWS: without a boto3 client, so that no call bypasses the rate limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from typing import Any, Protocol, TypeVar, cast

from airflow_jobflow.faults import CallError, Fault

Result = TypeVar("Result")

START_WITHIN = 10.0
"""Seconds after a check that no other process starts a job within which the job must be started. Less than the time
after which Airflow moves the triggers of a triggerer that does not answer."""

REMEMBERED_FOR = 60.0
"""Seconds for which a value that was read is reused."""

MAX_REMEMBERED = 1000
"""The most values to keep for one client."""


class Call(Protocol):
    """Makes the API calls of one service, in one region."""

    may_tag: bool
    """Whether jobs are started with tags: not for a while after AWS has denied it."""

    valid_until: float
    """When no request may be sent any more, because what was checked before it may have changed, in seconds since the
    epoch. Then the call fails without being sent."""

    @property
    def memory(self) -> MutableMapping[Hashable, tuple[float, Any]]:
        """The values that were read with this client, each with the time when it expires; see ``remembered``."""

    @property
    def region(self) -> str:
        """The region that is called."""

    @property
    def partition(self) -> str:
        """The AWS partition of the region."""

    def wait_for_turn(self) -> None:
        """Wait for the turn of the next call now, so that the call is sent without delay."""

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call and return its response.

        :param operation: boto3's name of the operation, such as ``describe_jobs``.
        :param parameters: those of the boto3 method.
        :raises airflow_jobflow.faults.CallError: there was no response, or AWS refused the call.
        """


def remembered(call: Call, key: Hashable, read: Callable[[], Result]) -> Result:
    """Return a value that was read within the last minute, or read it now: many jobs need the same values.

    :param call: makes the API calls.
    :param key: identifies the value.
    :param read: reads it.
    :raises CallError: as ``read``.
    """
    until, found = call.memory.get(key, (float("-inf"), None))
    if time.monotonic() < until:
        return cast("Result", found)
    read_now = read()
    if len(call.memory) >= MAX_REMEMBERED:
        call.memory.clear()
    call.memory[key] = time.monotonic() + REMEMBERED_FOR, read_now
    return read_now


def member(response: Any, name: str, operation: str) -> Any:
    """Return a member that every response of an operation has, such as the id of the job that was started.

    :param response: of the operation.
    :param name: of the member.
    :param operation: AWS's name of it, for the error.
    :raises CallError: the member is missing, as in an empty response. The request may have been executed.
    """
    try:
        return response[name]
    except (KeyError, TypeError) as error:
        message = f"{operation}: the response has no {name}"
        raise CallError(Fault.TRANSIENT, message, operation=operation) from error


def pages(call: Call, operation: str, token: str = "nextToken", **parameters: Any) -> Iterator[Any]:  # noqa: S107 -- no secret
    """Yield the responses of an operation, page by page.

    :param call: makes the calls.
    :param operation: boto3's name of the operation.
    :param token: the member of request and response that names the next page. Default ``nextToken``.
    :param parameters: those of the boto3 method.
    """
    while True:
        page = call(operation, **parameters)
        yield page
        if not page.get(token):
            return
        parameters = {**parameters, token: page[token]}
