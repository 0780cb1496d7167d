"""Scripted AWS: real boto3 clients whose requests are answered by a function, without a network."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSResponse

from airflow_jobflow.aws import Access

Answer = dict[str, Any] | tuple[int, str, str] | Exception
"""The members of a response; or HTTP status, content type and body; or an error of the connection."""


class Raw(io.BytesIO):
    """The body of a response, with the interface of urllib3."""

    def stream(self) -> Iterator[bytes]:
        """Return the whole body as one chunk."""
        yield self.read()


@dataclass
class Script:
    """Answers requests, and records them.

    :param answer: returns the answer to an operation, given its name and the request's body.
    """

    answer: Callable[[str, Any], Answer] = lambda operation, body: {}  # noqa: ARG005 -- the name is for readers
    requests: list[tuple[str, Any]] = field(default_factory=list)
    builds: int = 0
    building: Callable[[], object] = lambda: None
    """Called before a client is built; may raise an error or wait."""

    def access(self, aws_conn_id: str | None = None, region_name: str = "eu-west-1", **more: Any) -> Access:
        """Return an access whose requests are answered by this script."""
        script = self

        class Scripted(Access):
            """An access without an Airflow connection."""

            def client(self, name: str, *, timeout: float = 20.0) -> Any:
                script.builds += 1
                script.building()
                real = Access(None, self.region_name, self.verify, self.botocore_config)
                client = real.client(name, timeout=timeout)
                client.meta.events.register(f"before-send.{name}.*", script.send)
                return client

        return Scripted(aws_conn_id, region_name, **more)

    def send(self, request: Any, event_name: str, **_: Any) -> Any:
        """Answer a request."""
        operation = event_name.rpartition(".")[2]
        body = json.loads(request.body or b"{}")
        self.requests.append((operation, body))
        answer = self.answer(operation, body)
        if isinstance(answer, Exception):
            raise answer
        status, kind, text = answer if isinstance(answer, tuple) else (200, "application/json", json.dumps(answer))
        headers: Any = {"content-type": kind}
        raw: Any = Raw(text.encode())
        return AWSResponse(request.url, status, headers, raw)


def refusal(code: str, status: int = 400, message: str = "scripted") -> tuple[int, str, str]:
    """Return an error response of a JSON protocol."""
    return status, "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
