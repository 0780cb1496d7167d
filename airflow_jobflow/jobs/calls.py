"""How the functions in ``jobs/`` call AWS: without a boto3 client, so that no call bypasses the rate limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from airflow_jobflow.faults import CallError, Fault


class Call(Protocol):
    """Makes the API calls of one service, in one region."""

    may_tag: bool
    """Whether jobs are started with tags: not for a while after AWS has denied it."""

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
