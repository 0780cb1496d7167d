"""Answers as AWS sends them: with the content type of the service and a request id."""

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
    """What moto answered, with the headers that AWS sends; a page or a text becomes an error of the service."""
    if answer.status_code >= HTTPStatus.BAD_REQUEST and method != "HEAD" and not _is_error(answer.data):
        if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return of_error(protocols.unknown_operation(service, action), service)
        why = answer.data.decode("utf-8", "replace") if answer.mimetype != HTML else "it says no more"
        error = protocols.invalid(service, f"moto, which answers {service}.{action} here, rejected this request: {why}")
        return of_error(AwsError(error.code, error.message, answer.status_code), service)
    has_no_type = "/" not in answer.mimetype or answer.mimetype == HTML  # moto names none, its framework's, or "text"
    if has_no_type and (service != "s3" or answer.status_code >= HTTPStatus.BAD_REQUEST):
        answer.content_type = content_type(service)  # not of an object in S3, which may be a page
    if "x-amzn-RequestId" not in answer.headers:
        answer.headers["x-amzn-RequestId"] = str(uuid.uuid4())
    return answer


def _is_error(content: bytes) -> bool:
    """Return whether the content of an answer is an error as a service writes it."""
    return content.startswith((b"{", b"<")) and not content[:9].lower().startswith((b"<!doctype", b"<html"))
