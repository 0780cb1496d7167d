"""HTTP responses as AWS sends them: with the content type of the service and a request id."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from airflow_jobflow.local import protocols
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.faults import HTML
from airflow_jobflow.local.service_models import content_type

if TYPE_CHECKING:
    from airflow_jobflow.local.faults import CannedResponse


def of_json(value: Any, service: str = "", status: int = 200) -> Response:
    """Return a JSON response.

    :param value: the content.
    :param service: the service that responds. Default: the server itself.
    :param status: the HTTP status. Default 200.
    """
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(value), status, headers, content_type=content_type(service))


def of_error(error: AwsError, service: str) -> Response:
    """Return an error in the format of a service.

    :param error: the error.
    :param service: the service that responds.
    """
    headers, content = error.answer(service)
    return Response(content, error.status, headers)


def of_fault(canned: CannedResponse, service: str) -> Response:
    """Return the response of a fault.

    :param canned: the response.
    :param service: the service that it replaces.
    """
    if canned.code is not None:
        return of_error(AwsError(canned.code, canned.message, canned.status), service)
    return Response(canned.body, canned.status, content_type=canned.content_type)


def of_moto(answer: Response, service: str, action: str, method: str) -> Response:
    """Return a response of moto with the headers that AWS sends. An HTML page or a text becomes an AWS error.

    :param answer: moto's response.
    :param service: the service that responds.
    :param action: the action that was called.
    :param method: the HTTP method of the request.
    """
    if answer.status_code >= HTTPStatus.BAD_REQUEST and method != "HEAD" and not _is_error(answer.data):
        if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return of_error(protocols.unknown_operation(service, action), service)
        why = answer.data.decode("utf-8", "replace") if answer.mimetype != HTML else "no details"
        error = protocols.invalid(
            service, f"moto, which implements {service}.{action} here, rejected this request: {why}"
        )
        return of_error(AwsError(error.code, error.message, answer.status_code), service)
    kind = answer.mimetype or ""
    has_no_type = "/" not in kind or kind == HTML  # moto's default, or "text"
    if has_no_type and (service != "s3" or answer.status_code >= HTTPStatus.BAD_REQUEST):
        answer.content_type = content_type(service)  # objects in S3 keep theirs
    if "x-amzn-RequestId" not in answer.headers:
        answer.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return answer


def _is_error(content: bytes) -> bool:
    """Return whether the content of a response is an error in the format of a service."""
    return content.startswith((b"{", b"<")) and not content[:9].lower().startswith((b"<!doctype", b"<html"))
