"""The WSGI application in front of moto's: names each call, counts it, has it meet its faults, and hands
it to the service of this package that answers it.

Invariants:

- A call is either answered by a service of this package, whole, or passed to moto as it came, with only the account
  added; or a fault answers it.
- ``/jobflow-local/…`` and the pages under ``/jobflow-console/…`` are the server's own, which no fault but an outage
  concerns; ``/jobflow-metadata/…`` issues credentials.
"""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import botocore.session
from moto.core.request import Request as MotoRequest
from moto.core.routing import get_service_router
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import FakeKey, s3_backends
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from airflow_jobflow.local.call import Call
from airflow_jobflow.local.console_html import PREFIX as PAGES
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.fault_box import METADATA, ConnectionDropped, FaultBox
from airflow_jobflow.local.faults import CannedResponse
from airflow_jobflow.local.metadata import PREFIX, Metadata
from airflow_jobflow.local.moto_backends import events_lock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from airflow_jobflow.local.console import Console

Handler = Callable[[dict[str, Any], int], Mapping[str, Any]]

CONTROL: Final = "/jobflow-local/"
CREDENTIAL: Final = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/")
CHANGES: Final = frozenset({"batch.UpdateComputeEnvironment", "batch.UpdateJobQueue"})
"""Calls of moto's that may let a job run which waits."""
DEFAULT_REGION: Final = "us-east-1"
PARTITION: Final = "aws"

_buckets_lock = threading.Lock()
"""Held while moto knows the names of one account's buckets only."""


class Application:
    """A local AWS as a WSGI application.

    :param handlers: finds the handler of a call in its region, for calls that are not moto's.
    :param control: the server's own calls, by the last part of their path.
    :param changed: called after moto answered one of `CHANGES`.
    :param console: answers requests for pages.
    """

    def __init__(
        self,
        account: str,
        faults: FaultBox,
        handlers: Callable[[Call], Handler | None],
        control: Mapping[str, Callable[[dict[str, Any]], Any]],
        changed: Callable[[Call], None],
        *,
        console: Console,
    ) -> None:
        self._account = account
        self._faults = faults
        self._handlers = handlers
        self._control = control
        self._changed = changed
        self._console = console
        self._metadata = Metadata(lambda: faults.faults.credentials_lifetime)
        self._moto: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        self._batch_actions = _actions_by_path()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL):
            return self._answer_control(path.removeprefix(CONTROL), Request(environ))(environ, start_response)
        if path.startswith(PAGES):
            return self._console.answer(path.removeprefix(PAGES), Request(environ))(environ, start_response)
        call = self._call(path, environ)
        try:
            canned = self._faults.before(call, self._account)
            if canned is None or canned.takes_effect:
                answer = self._served(call, environ, start_response if canned is None else _discard)
            if self._faults.loses_answer(call):
                raise ConnectionDropped
            return answer if canned is None else _canned(canned, call.service)(environ, start_response)
        except AwsError as error:
            return _error(error, call.service)(environ, start_response)
        except ConnectionDropped:
            _close(environ)
            raise ConnectionAbortedError("A fault of the local AWS dropped this connection") from None

    def _call(self, path: str, environ: WSGIEnvironment) -> Call:
        """What a request asks for."""
        if path.startswith(PREFIX):
            return self._metadata.call(environ["REQUEST_METHOD"], path.removeprefix(PREFIX))
        found = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        access_key, region, service = found.groups() if found else ("", DEFAULT_REGION, "")
        body = b""
        if service != "s3":  # whose bodies are data, and may be large
            body = _body(environ)
            if body:
                environ["wsgi.input"] = io.BytesIO(body)
        action = self._action(service, body, environ)
        return Call(service, action, access_key, self._metadata.has_expired(access_key), region, path, body)

    def _served(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """What a call is answered without a fault."""
        if call.service == METADATA:
            return self._metadata.answer(call)(environ, start_response)
        handler = self._handlers(call)
        if handler is None:
            return self._passed_on(call, environ, start_response)
        return _json(handler(json.loads(call.body or b"{}"), len(call.body)))(environ, start_response)

    def _action(self, service: str, body: bytes, environ: WSGIEnvironment) -> str:
        """What a call is named in its service's API."""
        if target := environ.get("HTTP_X_AMZ_TARGET"):
            return str(target).rpartition(".")[2]
        if service == "batch":
            path: str = environ["PATH_INFO"]
            return self._batch_actions.get(path, path)
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            return parse_qs(body.decode("utf-8", "replace")).get("Action", ["?"])[0]
        if not service:
            return str(environ["PATH_INFO"])
        try:
            operation, _ = get_service_router(service).match(MotoRequest(environ))
        except HTTPException:
            return str(environ["REQUEST_METHOD"])
        return str(operation.name)

    def _passed_on(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account
        if call.service == "events":
            with events_lock:
                return self._moto(environ, start_response)
        if call.name == "s3.CreateBucket":
            return self._create_bucket(environ, start_response)
        answer = self._moto(environ, start_response)
        if call.name in CHANGES:
            self._changed(call)
        return answer

    def _create_bucket(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Have moto create a bucket whose name may be taken in another account: that is another server's here."""
        with _buckets_lock:
            mine = s3_backends[self._account][PARTITION].buckets
            s3_backends.bucket_accounts = dict.fromkeys(mine, (PARTITION, self._account))
            answer = self._moto(environ, start_response)
            s3_backends.bucket_accounts = {}
            return answer

    def _answer_control(self, name: str, request: Request) -> Response:
        handler = self._control.get(name)
        if handler is None:
            return _json({"error": f"There are: {', '.join(CONTROL + each for each in self._control)}"}, 404)
        try:
            return _json(handler(json.loads(request.get_data() or b"{}")))
        except (ValueError, TypeError, LookupError) as error:
            return _json({"error": str(error)}, 400)


def forget_buckets(account: str) -> None:
    """Drop the buckets of an account; moto's own way would empty the objects of every account."""
    for backend in (s3_backends.pop(account, None) or {}).values():
        for bucket in backend.buckets.values():
            for key in bucket.keys.values():
                if isinstance(key, FakeKey):
                    key.dispose()


def _error(error: AwsError, service: str) -> Response:
    headers, content = error.answer(service)
    return Response(content, error.status, headers)


def _canned(canned: CannedResponse, service: str) -> Response:
    if canned.code is not None:
        return _error(AwsError(canned.code, canned.message, canned.status), service)
    return Response(canned.body, canned.status, content_type=canned.content_type)


def _discard(_status: str, _headers: list[tuple[str, str]], _error: Any = None, /) -> Callable[[bytes], object]:
    """A start_response for an answer that nobody gets."""
    return lambda _: None


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def _body(environ: WSGIEnvironment) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return environ["wsgi.input"].read(length) if length else b""


def _close(environ: WSGIEnvironment) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)


def _actions_by_path() -> dict[str, str]:
    """Batch's actions by the path of their calls."""
    model = botocore.session.get_session().get_service_model("batch")
    return {model.operation_model(name).http["requestUri"]: name for name in model.operation_names}
