"""Scripted AWS for the functions in ``jobs/``: a client with a method for each operation."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from airflow_jobflow.faults import CallError


class ScriptedClient:
    """Base class of scripted clients. It is also their ``Call``, and raises errors as calls to AWS do."""

    region, partition = "eu-west-1", "aws"
    may_tag = True
    valid_until = float("inf")

    @property
    def memory(self) -> dict[Any, Any]:
        """Nothing is remembered."""
        return {}

    def wait_for_turn(self) -> None:
        """No rate is limited."""

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Call the method of an operation."""
        try:
            return getattr(self, operation)(**parameters)
        except ClientError as error:
            raise CallError.from_error(error) from error


def refused(code: str, operation: str, message: str = "m", status: int = 400) -> ClientError:
    """Return the error of a rejected call."""
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)
