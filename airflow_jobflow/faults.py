"""What the error of an AWS call means, for all calls of this package.

``classify`` is pure: it reads an error's type, code, HTTP status and message, and imports neither boto3 nor Airflow.
``fault_rules`` is its table.

Invariants:

- An unknown error never counts as a fault of the job. Unknown 4xx responses are ``REJECTED``, which by itself fails no
  wait; all other unknown errors are ``TRANSIENT``.
- A fault says what happened to the request. The caller decides what follows for a job or a wait.
- In doubt, a request counts as sent: looking for a job that was never started is cheap, a second job is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airflow_jobflow.fault_rules import (
    CLIENT_CREATION,
    CREDENTIAL_OPERATIONS,
    RESPONSE,
    RULES,
    RUN_TASK_FAILURE,
    SERVER_ERRORS,
    Facts,
    Fault,
    Rule,
)

__all__ = ["CLIENT_CREATION", "CallError", "Fault", "classify", "classify_failure", "request_sent"]


def classify(error: BaseException, operation: str = "") -> Fault:
    """Return the fault that an error of an AWS call means.

    :param error: what the call raised, of any type.
    :param operation: AWS's name of the operation, or ``CLIENT_CREATION``, if the error does not name it.
        Default none.
    """
    return error.fault if isinstance(error, CallError) else _rule(_facts(error, operation)).fault


def request_sent(error: BaseException, operation: str = "") -> bool:
    """Return whether the request may have been executed.

    False only if it certainly was not: there was no connection, the client could not be built, or AWS refused it.
    Assumes a client without retries of its own; with retries, an earlier attempt may have been executed.

    :param error, operation: as for ``classify``.
    """
    if isinstance(error, CallError):
        return error.sent
    facts = _facts(error, operation)
    if facts.operation in CREDENTIAL_OPERATIONS:
        return False
    if _member(error, "ResponseMetadata").get("RetryAttempts"):
        return True
    rule = _rule(facts)
    if rule.sent is not None:
        return rule.sent
    return rule.fault is Fault.TRANSIENT or facts.status in SERVER_ERRORS


def classify_failure(reason: str, detail: str = "") -> Fault:
    """Return the fault of an entry of ``failures`` in a RunTask response. Unknown reasons are ``TRANSIENT``.

    :param reason: the entry's reason, such as ``RESOURCE:CPU``.
    :param detail: the entry's detail. Default none.
    """
    message = f"{reason}: {detail}" if detail else reason
    return _rule(Facts(frozenset({RESPONSE, RUN_TASK_FAILURE}), message=message)).fault


class CallError(Exception):
    """An AWS call failed.

    :param fault: what the error means.
    :param message: which operation failed and why, for logs and errors.
    :param code: AWS's error code. Default none.
    :param operation: AWS's name of the operation. Default none.
    :param sent: whether the request may have been executed. Default True.
    """

    def __init__(self, fault: Fault, message: str, code: str = "", operation: str = "", sent: bool = True) -> None:
        super().__init__(fault, message, code, operation, sent)
        self.fault = fault
        self.message = message
        self.code = code
        self.operation = operation
        self.sent = sent

    def __str__(self) -> str:
        return self.message

    @property
    def is_from_proxy(self) -> bool:
        """Whether a proxy, not AWS, has most likely refused the request: the response has no AWS error code.

        botocore sets the HTTP status as the code if there is none.
        """
        return self.code.isdigit()

    @classmethod
    def from_error(cls, error: BaseException, operation: str = "") -> CallError:
        """Convert an error to a ``CallError``. A ``CallError`` is returned as it is.

        :param error: what the call raised.
        :param operation: AWS's name of the operation, or ``CLIENT_CREATION``. Default: as the error says.
        """
        if isinstance(error, CallError):
            return error
        operation = operation or str(getattr(error, "operation_name", None) or "")
        return cls(
            classify(error, operation),
            _describe(error, operation),
            code=_text(_member(error, "Error").get("Code")),
            operation=operation,
            sent=request_sent(error, operation),
        )


MESSAGE_LENGTH: Final = 1_000
"""The most characters of a message. The response of a proxy can be a whole page."""

_SELF_EXPLANATORY: Final = frozenset({"BotoCoreError", "AirflowException", "AccessMisconfigured"})
"""Types whose messages are clear without the type's name. The message of a KeyError, "'jobs'", is not."""

_WITHOUT_CAUSE: Final = frozenset({"EndpointConnectionError", "ProxyConnectionError"})
"""Types whose messages omit why there is no connection, such as the response of a proxy."""

_CONNECTION: Final = re.compile(r"^(\S+\(host=.*?\)|<.*?>): (Failed to establish a new connection: )?")
_MAX_RETRIES: Final = re.compile(r" \(reached max retries: \d+\)")
_MARKUP: Final = re.compile(r"<(head|script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_PAGE: Final = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)


def _describe(error: BaseException, operation: str) -> str:
    """Return the message for an error: the operation and the cause."""
    text = _MAX_RETRIES.sub("", str(error)).strip().removesuffix(":")
    if _PAGE.search(text):
        text = " ".join(_MARKUP.sub(" ", text).split())
    if not _response(error) and not _SELF_EXPLANATORY & _type_names(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if _WITHOUT_CAUSE & _type_names(error) and (cause := _CONNECTION.sub("", str(_cause(error)))):
        text = f"{text} ({cause})"
    if operation not in text:
        text = f"{operation}: {text}"
    return text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"


_NAMESPACE: Final = re.compile(r"^.*[#.]|:.*$")
"""Matches the namespace of a code, as in ``com.amazonaws.ecs#ServerException``, ``KMS.Disabled`` or ``ServerException:http://…``."""

_QUOTED_CODE: Final = re.compile(r"\bError ?Code: ([A-Za-z][\w.]*)")


def _rule(facts: Facts) -> Rule:
    return next(rule for rule in RULES if rule.matches(facts))


def _facts(error: BaseException, operation: str) -> Facts:
    response = _response(error)
    operation = str(getattr(error, "operation_name", None) or operation)
    if not response:
        return Facts(types=_type_names(error), operation=operation, message=f"{error} {_cause(error)}")
    member = _member(error, "Error")
    code = _text(member.get("Code"))
    status = _member(error, "ResponseMetadata").get("HTTPStatusCode") or 0
    message = _text(member.get("Message"))
    if code.isdigit():  # botocore sets the status as the code if the body has none
        status, code = status or int(code), ""
    return Facts(
        types=frozenset({RESPONSE}),
        codes=frozenset(_bare(each) for each in [code, *_QUOTED_CODE.findall(message)]),
        status=status or 400,
        operation=operation,
        message=message,
    )


def _cause(error: BaseException) -> Any:
    """Return the cause that an exception of botocore wraps, an exception or a text; empty for other errors."""
    kwargs = getattr(error, "kwargs", None)
    cause = kwargs.get("error", "") if isinstance(kwargs, Mapping) else ""
    return getattr(cause, "original_error", cause)


def _bare(code: str) -> str:
    return _NAMESPACE.sub("", code).removesuffix("Exception")


def _type_names(error: BaseException) -> frozenset[str]:
    return frozenset(cls.__name__ for cls in type(error).__mro__)


def _response(error: BaseException) -> Mapping[str, Any]:
    """Return the response that botocore's ``ClientError`` carries; empty for other errors."""
    response = getattr(error, "response", None)
    return response if isinstance(response, Mapping) else {}


def _member(error: BaseException, name: str) -> Mapping[str, Any]:
    member = _response(error).get(name)
    return member if isinstance(member, Mapping) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
