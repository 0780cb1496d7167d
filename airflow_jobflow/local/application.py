"""The WSGI application in front of moto's: names each call, counts it, has it meet its faults, and hands
it to the service of this package that answers it.

Invariants:

- A call is either answered by a service of this package, whole, or passed to moto with the account added; or a fault
  answers it. Before that it is checked against the shape of its operation, and loses members that AWS ignores.
- Every answer has the content type of its service and a request id; an exception never reaches the web server.
- ``/jobflow-local/…`` and the pages under ``/jobflow-console/…`` are the server's own, which no fault but an outage
  concerns; ``/jobflow-metadata/…`` issues credentials.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote

from moto.core.request import Request as MotoRequest
from moto.core.routing import get_service_router
from moto.moto_server.werkzeug_app import (
    UNSIGNED_ACTIONS,
    UNSIGNED_REQUESTS,
    DomainDispatcherApplication,
    create_backend_app,
)
from moto.s3.models import FakeKey, s3_backends
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from airflow_jobflow.local import answers, bodies, protocols
from airflow_jobflow.local.call import Call
from airflow_jobflow.local.console.html import PREFIX as PAGES
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.fault_box import METADATA, ConnectionDropped, FaultBox
from airflow_jobflow.local.metadata import PREFIX, Metadata
from airflow_jobflow.local.moto_backends import events_lock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from airflow_jobflow.local.console.app import Console
    from airflow_jobflow.local.service import Service

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any], int], Mapping[str, Any] | None]
"""Answers a call, given its members and the length of its body; None leaves it to moto."""

CONTROL: Final = "/jobflow-local/"
MOTO_CONTROL: Final = "/moto-api"
CREDENTIAL: Final = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/")
"""In the header of a signed request, or in a signed URL."""
CHANGES: Final = frozenset({"batch.UpdateComputeEnvironment", "batch.UpdateJobQueue"})
"""Calls of moto's that may let a job run which waits."""
NO_ACTION: Final = "?"
"""Name of a form that says nothing of an action, such as a file that is sent with the content type of a form."""
DEFAULT_REGION: Final = "us-east-1"
PARTITION: Final = "aws"
NO_MOTO_CONTROL: Final = (
    "The local AWS does not offer moto's own API: a reset would forget queues, definitions and logs, but not the jobs "
    "that use them. Start another local AWS in place of a reset"
)

_buckets_lock = threading.Lock()
"""Held while moto knows the names of one account's buckets only."""


class Application:
    """A local AWS as a WSGI application.

    :param services: finds the service of this package that a call is for; None if moto has it alone.
    :param control: the server's own calls, by the last part of their path.
    :param console: answers requests for pages.
    """

    def __init__(
        self,
        account: str,
        faults: FaultBox,
        services: Callable[[Call], Service | None],
        control: Mapping[str, Callable[[dict[str, Any]], Any]],
        *,
        console: Console,
    ) -> None:
        self._account = account
        self._faults = faults
        self._services = services
        self._control = control
        self._console = console
        self._metadata = Metadata(lambda: faults.faults.credentials_lifetime)
        self._moto: WSGIApplication = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL):
            return self._answer_control(path.removeprefix(CONTROL), Request(environ))(environ, start_response)
        if path.startswith(PAGES):
            return self._console.answer(path.removeprefix(PAGES), Request(environ))(environ, start_response)
        if path.startswith(MOTO_CONTROL):
            return answers.of_json({"error": NO_MOTO_CONTROL}, status=HTTPStatus.NOT_FOUND)(environ, start_response)
        service = _service_of(environ)
        try:
            return self._answer(self._call(path, environ), environ, start_response)
        except AwsError as error:
            return answers.of_error(error, service)(environ, start_response)
        except ConnectionDropped:
            _close(environ)
            raise ConnectionAbortedError("A fault of the local AWS dropped this connection") from None
        except ConnectionError:  # the client is gone
            raise
        except Exception as error:
            log.exception("%s could not be answered", path)
            failed = AwsError("InternalFailure", f"A bug in the local AWS: {error!r}. Its log has more", 500)
            return answers.of_error(failed, service)(environ, start_response)

    def _answer(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a call, unless a fault does."""
        canned = self._faults.before(call, self._account)
        if canned is None or canned.takes_effect:
            answer = self._served(call, environ, start_response if canned is None else _discard)
        if self._faults.loses_answer(call):
            raise ConnectionDropped
        return answer if canned is None else answers.of_fault(canned, call.service)(environ, start_response)

    def _call(self, path: str, environ: WSGIEnvironment) -> Call:
        """What a request asks for."""
        if path.startswith(PREFIX):
            return self._metadata.call(environ["REQUEST_METHOD"], path.removeprefix(PREFIX))
        access_key, region, service = _scope(environ)
        body = b""
        if service != "s3":  # whose bodies are data, and may be large
            try:
                body = bodies.read(environ)
            except bodies.UnreadableBody as error:
                raise protocols.malformed(service, str(error), error.status) from None
        try:
            operation = protocols.operation_of(service, environ, body)
        except AwsError:  # raised again when the call is served, after its faults
            operation = None
        action = _action(service, body, environ) if operation is None else operation.model.name
        has_expired = self._metadata.has_expired(access_key)
        return Call(service, action, access_key, has_expired, region, path, body, operation)

    def _served(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """What a call is answered without a fault."""
        if call.service == METADATA:
            return self._metadata.answer(call)(environ, start_response)
        if not call.service:
            _check_unsigned(call, environ)
        operation = call.operation or protocols.operation_of(call.service, environ, call.body)
        members: Any = {}
        if operation is not None:
            members, body = protocols.checked(call.service, operation, environ, call.body)
            bodies.replace(environ, body)
        service = self._services(call)
        if service is None:
            return self._passed_on(call, environ)(environ, start_response)
        handler = service.actions.get(call.action)
        answered = None if handler is None else handler(members, len(call.body))
        if answered is not None:
            return answers.of_json(answered, call.service)(environ, start_response)
        if check := service.checks.get(call.action):
            check(members)
        answer = self._passed_on(call, environ)
        if call.name in CHANGES:
            service.reconsider()
        return answer(environ, start_response)

    def _passed_on(self, call: Call, environ: WSGIEnvironment) -> Response:
        """Have moto answer a call.

        :raises AwsError: moto does not have the operation, or cannot handle the request.
        """
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account
        try:
            if call.name == "s3.CreateBucket":
                answer = self._create_bucket(environ)
            elif call.service == "events":
                with events_lock:
                    answer = self._asked_of_moto(environ)
            else:
                answer = self._asked_of_moto(environ)
        except ConnectionError:
            raise
        except NotImplementedError:
            raise protocols.unknown_operation(call.service, call.action) from None
        except Exception as error:
            log.exception("moto could not answer %s", call.name)
            why = f"moto, which answers {call.name} here, cannot handle this request: {error!r}"
            raise protocols.invalid(call.service or "s3", why) from None
        return answers.of_moto(answer, call.service or "s3", call.action, environ["REQUEST_METHOD"])

    def _asked_of_moto(self, environ: WSGIEnvironment) -> Response:
        """What moto answers."""
        return Response.from_app(self._moto, environ)

    def _create_bucket(self, environ: WSGIEnvironment) -> Response:
        """Have moto create a bucket whose name may be taken in another account: that is another server's here."""
        with _buckets_lock:
            mine = s3_backends[self._account][PARTITION].buckets
            s3_backends.bucket_accounts = dict.fromkeys(mine, (PARTITION, self._account))
            answer = self._asked_of_moto(environ)
            s3_backends.bucket_accounts = {}
            return answer

    def _answer_control(self, name: str, request: Request) -> Response:
        handler = self._control.get(name)
        if handler is None:
            return answers.of_json(
                {"error": f"There are: {', '.join(CONTROL + each for each in self._control)}"}, status=404
            )
        try:
            body = bodies.parsed(bodies.read(request.environ))
            if not isinstance(body, dict):
                raise TypeError(f"A JSON object is wanted, not {body!r}")
            return answers.of_json(handler(body))
        except bodies.UnreadableBody as error:
            return answers.of_json({"error": str(error)}, status=error.status)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            return answers.of_json({"error": str(error)}, status=400)


def forget_buckets(account: str) -> None:
    """Drop the buckets of an account; moto's own way would empty the objects of every account."""
    for backend in (s3_backends.pop(account, None) or {}).values():
        for bucket in backend.buckets.values():
            for key in bucket.keys.values():
                if isinstance(key, FakeKey):
                    key.dispose()


def _discard(_status: str, _headers: list[tuple[str, str]], _error: Any = None, /) -> Callable[[bytes], object]:
    """A start_response for an answer that nobody gets."""
    return lambda _: None


def _service_of(environ: WSGIEnvironment) -> str:
    """The service that a request is for; if it is not signed: S3, or nothing if it is written for a JSON service."""
    if environ.get("PATH_INFO", "").startswith(PREFIX):
        return METADATA
    return _scope(environ)[2] or ("" if "HTTP_X_AMZ_TARGET" in environ else "s3")


def _scope(environ: WSGIEnvironment) -> tuple[str, str, str]:
    """Access key, region and service that a request is signed with; the default region alone if it is not signed."""
    signed = environ.get("HTTP_AUTHORIZATION") or unquote(environ.get("QUERY_STRING", ""))
    found = CREDENTIAL.search(signed)
    if found is None and "AWSAccessKeyId=" in signed:  # a URL signed in the way that only S3 still takes
        return "", DEFAULT_REGION, "s3"
    return (found[1], found[2], found[3]) if found else ("", DEFAULT_REGION, "")


def _action(service: str, body: bytes, environ: WSGIEnvironment) -> str:
    """What a call is named whose operation is not known, or is S3's."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith(protocols.FORM):
        return parse_qs(body.decode("utf-8", "replace")).get("Action", [NO_ACTION])[0]
    if service != "s3":
        return str(environ["PATH_INFO"] if service in ("", "batch") else environ["REQUEST_METHOD"])
    try:
        operation, _ = get_service_router(service).match(MotoRequest(environ))
    except HTTPException:
        return str(environ["REQUEST_METHOD"])
    return str(operation.name)


def _check_unsigned(call: Call, environ: WSGIEnvironment) -> None:
    """Reject a call without a signature that needs one, or with half of one."""
    suffix = "Exception" if "HTTP_X_AMZ_TARGET" in environ else ""  # as the services with JSON write it
    if environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4-"):
        raise AwsError(
            f"IncompleteSignature{suffix}", "Authorization header requires a Credential with a region and a service"
        )
    target = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")[0]
    is_form = environ.get("CONTENT_TYPE", "").startswith(protocols.FORM)
    if (target and target not in UNSIGNED_REQUESTS) or (is_form and call.action not in {NO_ACTION, *UNSIGNED_ACTIONS}):
        raise AwsError(f"MissingAuthenticationToken{suffix}", "The request has no valid AWS Signature Version 4", 403)


def _close(environ: WSGIEnvironment) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
