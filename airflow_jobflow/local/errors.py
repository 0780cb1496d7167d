"""Errors of AWS services, in the format of each service's protocol."""

from __future__ import annotations

import json
import re
import uuid
from typing import Final
from xml.sax.saxutils import escape

from airflow_jobflow.local.service_models import answers_xml, content_type

NOT_IN_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class AwsError(Exception):
    """An error that a service responds with.

    :param code: the error code.
    :param message: the error message.
    :param status: the HTTP status. Default 400.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status = status

    def answer(self, service: str) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the response.

        :param service: the service that responds.
        """
        request_id = str(uuid.uuid4())
        headers = {"x-amzn-RequestId": request_id, "Content-Type": content_type(service)}
        if answers_xml(service):
            error = f"<Error><Code>{_text(self.code)}</Code><Message>{_text(self.message)}</Message></Error>"
            body = {
                "s3": error,
                "ec2": f"<Response><Errors>{error}</Errors><RequestID>{request_id}</RequestID></Response>",
            }.get(service, f"<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>")
            return headers, body.encode()
        headers["x-amzn-errortype"] = self.code
        return headers, json.dumps({"__type": self.code, "message": self.message}).encode()


class ClientException(AwsError):
    """The error with which Batch rejects a request.

    :param message: the error message.
    """

    def __init__(self, message: str) -> None:
        super().__init__("ClientException", message)


def rejected(why: str) -> ClientException:
    """Return the error in the form that Batch uses for most rejections.

    :param why: the reason.
    """
    return ClientException(f"Error executing request, Exception : {why}, RequestId: {uuid.uuid4()}")


def _text(value: str) -> str:
    """Return a text for XML, without characters that XML does not allow."""
    return escape(NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", value))
