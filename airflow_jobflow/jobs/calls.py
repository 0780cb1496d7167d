"""What the functions in ``jobs/`` call AWS with. They never see a boto3 client, so that no call bypasses the limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from airflow_jobflow.faults import CallError, Fault


class Call(Protocol):
    """Makes the API calls of one service, in one region."""

    may_tag: bool
    """Whether jobs are started with tags: for a while not, once AWS has denied it."""

    @property
    def region(self) -> str:
        """The region that is called."""

    @property
    def partition(self) -> str:
        """The AWS partition of the region."""

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call and return its response.

        :param operation: boto3's name of it, such as ``describe_jobs``.
        :param parameters: as boto3 takes them.
        :raises airflow_jobflow.faults.CallError: there was no response, or AWS refused the call.
        """


def member(response: Any, name: str, operation: str) -> Any:
    """Return what every response of an operation has, such as the id of the job that was started.

    :raises CallError: it is not there, as in an empty response. The request may have been executed.
    """
    try:
        return response[name]
    except (KeyError, TypeError) as error:
        message = f"{operation}: the response has no {name}"
        raise CallError(Fault.TRANSIENT, message, operation=operation) from error


def pages(call: Call, operation: str, token: str = "nextToken", **parameters: Any) -> Iterator[Any]:  # noqa: S107 -- no secret
    """Return the responses of an operation, page by page, for as long as there is another page.

    :param call: makes the calls.
    :param operation: boto3's name of it.
    :param token: the member of request and response that names the next page. Default ``nextToken``.
    :param parameters: as boto3 takes them.
    """
    while True:
        page = call(operation, **parameters)
        yield page
        if not page.get(token):
            return
        parameters = {**parameters, token: page[token]}
