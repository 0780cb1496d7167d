"""What the error of an AWS call means: one table for every call that this package makes.

``classify`` is pure: it reads an error's type, code, HTTP status and message, and imports neither boto3 nor Airflow.
The rows are tried in order; the first that matches decides. Messages count as much as codes, because ECS wraps the
throttling of other services in ``InvalidParameterException`` and ``ClientException``.

Invariants:

- An error that no row knows is never taken for a fault of the job. Unknown 4xx responses are ``REJECTED``, which ends
  nothing by itself; everything else is ``TRANSIENT``.
- A fault says what happened to the request. What follows for a job or a wait is decided by the caller.
"""

from __future__ import annotations


from enum import Enum


class Fault(Enum):
    """What the error of a call means."""

    THROTTLED = "throttled"
    """Too many calls: slow down and repeat."""
    TRANSIENT = "transient"
    """5xx, timeout, lost connection, unreadable response: repeat after a pause."""
    CREDENTIALS = "credentials"
    """Credentials are missing or have expired, or the Airflow connection could not be read: rebuild the client and
    repeat."""
    DENIED = "denied"
    """The credentials do not permit the call. Policies change, so this may pass."""
    REJECTED = "rejected"
    """AWS does not accept the request as it is."""
    SCOPE_NOT_FOUND = "scope_not_found"
    """The ECS cluster, the Glue job or crawler that the request names does not exist."""
    NO_CAPACITY = "no_capacity"
    """AWS has no capacity for another job at the moment, or a quota is reached. Nothing was started."""


class CallError(Exception):
    """A call that failed: what it means, and AWS's message.

    :param fault: what the error means.
    :param message: AWS's message, or the exception's.
    :param code: AWS's error code; empty where there is none.
    :param operation: boto3's name of the call, such as ``list_jobs``.
    """

    def __init__(self, fault: Fault, message: str, code: str = "", operation: str = "") -> None:
        super().__init__(fault, message, code, operation)
        self.fault, self.message, self.code, self.operation = fault, message, code, operation

    def __str__(self) -> str:
        return self.message
