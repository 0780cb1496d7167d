"""The protocols of AWS services: parse and check operations and members, and build errors, by botocore's models.

Requests for a service without a model are passed on to moto unchanged.

Invariants: parsing any request either returns its operation and members, or raises the error with which AWS responds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request as MotoRequest
from moto.core.routing import get_service_router
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header

from airflow_jobflow.local import bodies, validation
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.service_models import MODELS, answers_xml, content_type, model_of, protocols_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

FORM: Final = "application/x-www-form-urlencoded"
SQS_PATH: Final = re.compile(r"/(\d+/[^/]+/?)?")
"""The path of a queue's URL, which SQS accepts as well as ``/``."""
IN_HTTP: Final = frozenset({"uri", "querystring", "header", "headers"})
"""The locations of members that are not in the body."""

VALIDATION: Final[Mapping[str, str]] = {
    "batch": "ClientException",
    "ec2": "InvalidParameterValue",
    "ecs": "InvalidParameterException",
    "logs": "InvalidParameterException",
    "s3": "InvalidRequest",
    "sns": "InvalidParameter",
    "sqs": "InvalidParameterValue",
}
"""The error code for values that violate constraints, if it is not ValidationException or ValidationError."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The operation of a request.

    :param model: botocore's model of the operation.
    :param protocol: the protocol of the request: ``json``, ``rest-json``, ``query``, ``ec2`` or ``rest-xml``.
    :param labels: the members in the path of the URL.
    """

    model: Any
    protocol: str
    labels: Mapping[str, str]


def operation_of(service: str, environ: WSGIEnvironment, body: bytes) -> Operation | None:
    """Return the operation of a request, and set the content type in `environ` to that of the protocol.

    :param service: the service in the signature.
    :param environ: the request, which is changed.
    :param body: its body.
    :return: None if the service has no model, or its protocol is not supported here.
    :raises AwsError: the service does not have the operation.
    """
    model = model_of(service)
    if model is None or service == "s3":
        return None
    protocol = _protocol(model, environ)
    if protocol in ("json", "rest-json"):  # moto compares the exact text
        environ["CONTENT_TYPE"] = content_type(service)
    if protocol in ("rest-json", "rest-xml"):
        return _rest_operation(model, protocol, environ)
    if protocol == "json":
        return _json_operation(model, environ)
    if protocol in ("query", "ec2"):
        return _query_operation(model, protocol, environ, body)
    if protocol is None:
        raise unknown_operation(service)
    return None


def checked(service: str, operation: Operation, environ: WSGIEnvironment, body: bytes) -> tuple[Any, bytes]:
    """Check a request against the shape of its operation.

    :param service: the service in the signature.
    :param operation: the operation.
    :param environ: the request.
    :param body: its body.
    :return: the members in the body (all members of a form) without unknown ones and nulls, and a body with only these.
    :raises AwsError: the request is malformed, or violates constraints.
    """
    shape = operation.model.input_shape
    if shape is None or operation.protocol == "rest-xml":
        return {}, body
    name = MODELS.get(service, service)
    try:
        if operation.protocol in ("query", "ec2"):
            return validation.validated(name, shape, _form(operation, environ, body), as_sent=False), body
        if operation.protocol == "json":
            return _json_body(name, shape, body)
        return _rest(name, shape, operation, environ, body)
    except (validation.WrongType, bodies.UnreadableBody) as error:
        raise malformed(service, str(error), getattr(error, "status", 400)) from None
    except validation.Violations as error:
        raise invalid(service, str(error)) from None


def malformed(service: str, why: str, status: int = 400) -> AwsError:
    """Return the error for a request that cannot be parsed.

    :param service: the service in the signature.
    :param why: the reason.
    :param status: the HTTP status. Default 400.
    """
    return AwsError("MalformedInput" if answers_xml(service) else "SerializationException", why, status)


def invalid(service: str, why: str) -> AwsError:
    """Return the error for a request whose values violate constraints.

    :param service: the service in the signature.
    :param why: the reason.
    """
    usual = "ValidationError" if answers_xml(service) else "ValidationException"
    return AwsError(VALIDATION.get(service, usual), why)


def unknown_operation(service: str, name: str | None = None) -> AwsError:
    """Return the error for an operation that a service does not have.

    :param service: the service in the signature.
    :param name: the operation. Default: the request names none.
    """
    if not answers_xml(service):
        return AwsError(
            "UnknownOperationException", f"{service} has no operation {name or '(the request names none)'}", 404
        )
    if service == "s3":
        return AwsError("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
    if not name:
        return AwsError("MissingAction", "The request must contain the parameter Action")
    return AwsError("InvalidAction", f"Could not find operation {name}")


def _protocol(model: Any, environ: WSGIEnvironment) -> str | None:
    """Return the protocol of a request; None if its content type belongs to no protocol of the service."""
    accepted = protocols_of(model)
    protocol: str = model.protocol
    if protocol.startswith("rest-"):
        return protocol
    kind = parse_options_header(environ.get("CONTENT_TYPE"))[0].lower()
    form = next((each for each in ("ec2", "query") if each in accepted), None)
    if kind == FORM or (not kind and form and "Action=" in environ.get("QUERY_STRING", "")):
        return form
    if kind.startswith("application/x-amz-json-") or kind == "application/json":
        return "json" if "json" in accepted else None
    return protocol if not kind or kind == "application/cbor" else None


def _rest_operation(model: Any, protocol: str, environ: WSGIEnvironment) -> Operation:
    try:
        found, labels = get_service_router(model.service_name).match(MotoRequest(environ))
    except (HTTPException, NotImplementedError):
        raise unknown_operation(model.service_name, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}") from None
    return Operation(found, protocol, labels)


def _json_operation(model: Any, environ: WSGIEnvironment) -> Operation:
    target, service = environ.get("HTTP_X_AMZ_TARGET", ""), model.service_name
    prefix, _, name = target.rpartition(".")
    path = environ["PATH_INFO"]
    right_path = SQS_PATH.fullmatch(path) if service == "sqs" else path == "/"
    if environ["REQUEST_METHOD"] != "POST" or not right_path:
        raise unknown_operation(service, f"{environ['REQUEST_METHOD']} {path}")
    if prefix != model.metadata.get("targetPrefix") or name not in model.operation_names:
        raise unknown_operation(service, target)
    return Operation(model.operation_model(name), "json", {})


def _query_operation(model: Any, protocol: str, environ: WSGIEnvironment, body: bytes) -> Operation:
    values = _values(environ, body)
    name = values.get("Action")
    if environ["REQUEST_METHOD"] not in ("GET", "POST") or name not in model.operation_names:
        raise unknown_operation(model.service_name, name)
    return Operation(model.operation_model(name), protocol, {})


def _values(environ: WSGIEnvironment, body: bytes) -> MultiDict[str, str]:
    """Return the parameters of a form in the URL and in the body."""
    text = f"{environ.get('QUERY_STRING', '')}&{body.decode('utf-8', 'replace')}"
    return MultiDict(parse_qsl(text, keep_blank_values=True))


def _form(operation: Operation, environ: WSGIEnvironment, body: bytes) -> Any:
    try:
        body.decode()
        parser = PROTOCOL_PARSERS[operation.protocol](operation.model)
        request: Any = {"values": _values(environ, body)}
        return parser.parse(request)
    except (ValueError, TypeError, OverflowError) as error:
        raise validation.WrongType(f"A parameter cannot be parsed: {error}") from None


def _json_body(service: str, shape: Any, body: bytes) -> tuple[Any, bytes]:
    given = bodies.parsed(body)
    members = validation.validated(service, shape, given)
    return members, body if members == given and body else json.dumps(members).encode()


def _rest(service: str, shape: Any, operation: Operation, environ: WSGIEnvironment, body: bytes) -> tuple[Any, bytes]:
    """Check the members of a request in its URL, headers and body."""
    outside = _outside(shape, operation, environ)
    if payload := shape.serialization.get("payload"):
        member = shape.members[payload]
        if body and member.type_name == "structure":
            validation.validated(service, member, bodies.parsed(body))
        return {}, body
    given = bodies.parsed(body)
    if not isinstance(given, Mapping):
        raise validation.WrongType("Unexpected value: a structure was expected")
    inside = {name: value for name, value in given.items() if name not in outside}
    fitted = validation.validated(service, shape, {**inside, **outside})
    sent = {
        member.serialization.get("name", name)
        for name, member in shape.members.items()
        if member.serialization.get("location") not in IN_HTTP
    }
    members = {name: value for name, value in fitted.items() if name in sent}
    if not body and not members:
        return members, body
    return members, body if members == given else json.dumps(members).encode()


def _outside(shape: Any, operation: Operation, environ: WSGIEnvironment) -> dict[str, Any]:
    """Return the members in the URL and in the headers, by the names they have there."""
    query = MultiDict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.type_name == "map":
            continue
        sent, location = member.serialization.get("name", name), member.serialization.get("location")
        if location == "uri" and sent in operation.labels:
            found[sent] = _from_text(member, operation.labels[sent])
        elif location == "querystring" and sent in query:
            given = query.getlist(sent)
            is_list = member.type_name == "list"
            values = [_from_text(member.member if is_list else member, each) for each in given]
            found[sent] = values if is_list else values[0]
        elif location == "header" and (text := environ.get(f"HTTP_{sent.upper().replace('-', '_')}")) is not None:
            found[sent] = _from_text(member, text)
    return found


def _from_text(shape: Any, text: str) -> Any:
    """Return the value of a text in a URL or header; the text itself if it cannot be converted."""
    try:
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name in ("float", "double"):
            return float(text)
        if shape.type_name == "boolean" and text in ("true", "false"):
            return text == "true"
        if shape.type_name == "list":
            return text.split(",")
    except ValueError:
        pass
    return text
