"""Answers as AWS sends them: with the content type of the service and a request id."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from airflow_jobflow.local import protocols
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.service_models import content_type

if TYPE_CHECKING:
    from airflow_jobflow.local.faults import CannedResponse


def of_json(value: Any, service: str = "", status: int = 200) -> Response:
    """An answer of a service, or of the server itself."""
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(value), status, headers, content_type=content_type(service))


def of_error(error: AwsError, service: str) -> Response:
    """An error, in the form of a service."""
    headers, content = error.answer(service)
    return Response(content, error.status, headers)


def of_fault(canned: CannedResponse, service: str) -> Response:
    """What a fault answers in place of a service."""
    if canned.code is not None:
        return of_error(AwsError(canned.code, canned.message, canned.status), service)
    return Response(canned.body, canned.status, content_type=canned.content_type)


def of_moto(answer: Response, service: str, action: str, method: str) -> Response:
    """What moto answered, with the headers that AWS sends; a web page becomes an error of the service."""
    is_page = answer.mimetype in ("", "text/html")
    if is_page and answer.status_code >= HTTPStatus.BAD_REQUEST and method != "HEAD":
        if not answer.data.startswith((b"{", b"<?xml", b"<Error")):
            missing = answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
            why = f"moto, which answers {service}.{action} here, rejected this request"
            error = protocols.unknown_operation(service, action) if missing else protocols.invalid(service, why)
            return of_error(error, service)
        answer.content_type = content_type(service)
    elif is_page and service != "s3":  # whose objects may be pages
        answer.content_type = content_type(service)
    if "x-amzn-RequestId" not in answer.headers:
        answer.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return answer
