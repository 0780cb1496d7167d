"""Errors as AWS's services answer them, in the form the service's protocol wants."""

from __future__ import annotations

import json
import uuid
from typing import Final
from xml.sax.saxutils import escape

JSON_TYPE: Final = "application/x-amz-json-1.1"
XML_SERVICES: Final = frozenset(
    {"s3", "iam", "sts", "ec2", "sns", "cloudformation", "autoscaling", "elasticloadbalancing"}
)
"""Services that answer XML; all others this package is about answer JSON."""


class AwsError(Exception):
    """An error a service answers with: its code, what it says, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status = status

    def answer(self, service: str) -> tuple[dict[str, str], bytes]:
        """Headers and body of the answer in the protocol of `service`."""
        request_id = str(uuid.uuid4())
        headers = {"x-amzn-RequestId": request_id}
        if service in XML_SERVICES:
            error = f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message></Error>"
            body = {
                "s3": error,
                "ec2": f"<Response><Errors>{error}</Errors><RequestID>{request_id}</RequestID></Response>",
            }.get(service, f"<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>")
            return {**headers, "Content-Type": "text/xml"}, body.encode()
        headers |= {"Content-Type": JSON_TYPE, "x-amzn-errortype": self.code}
        return headers, json.dumps({"__type": self.code, "message": self.message}).encode()


class ClientException(AwsError):
    """What Batch answers to a request it refuses."""

    def __init__(self, message: str) -> None:
        super().__init__("ClientException", message)


def refused(why: str) -> ClientException:
    """A refusal in the form Batch gives most of them."""
    return ClientException(f"Error executing request, Exception : {why}, RequestId: {uuid.uuid4()}")
