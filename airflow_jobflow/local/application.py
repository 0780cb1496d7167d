"""The WSGI application in front of moto's: identifies and counts each call, applies faults, and passes the call to the
service of this package that handles it, or to moto.

Invariants:

- Exactly one of a service of this package, moto and a fault responds to a call. Before a service or moto does, the call
  is validated against the shape of its operation, and members that AWS ignores are removed.
- Every response has the content type of its service and a request id. An exception never reaches the web server.
- ``/jobflow-local/…`` is the control API and ``/jobflow-console/…`` are pages. No fault except an outage affects them.
  ``/jobflow-metadata/…`` issues credentials.
"""

from __future__ import annotations

import contextlib
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
from airflow_jobflow.local.moto_backends import definitions_lock, events_lock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from airflow_jobflow.local.console.app import Console
    from airflow_jobflow.local.service import Service

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any], int], Mapping[str, Any] | None]
"""Handles a call, given its members and the length of its body. None passes it on to moto."""

CONTROL: Final = "/jobflow-local/"
MOTO_CONTROL: Final = "/moto-api"
CREDENTIAL: Final = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/")
"""The credential in the header of a signed request, or in a signed URL."""
UNBLOCKING: Final = frozenset({"batch.UpdateComputeEnvironment", "batch.UpdateJobQueue"})
"""Calls to moto after which waiting jobs may be able to run."""
LOCKS: Final[Mapping[str, threading.Lock]] = {
    "events": events_lock,
    "ecs.RegisterTaskDefinition": definitions_lock,
}
"""The lock that is held while moto handles a call, by service or name of the call."""
NO_ACTION: Final = "?"
"""Name of the action of a form without one, such as a file that is sent with the content type of a form."""
DEFAULT_REGION: Final = "us-east-1"
PARTITION: Final = "aws"
NO_MOTO_CONTROL: Final = (
    "The local AWS does not offer moto's own API: a reset would drop queues, definitions and logs, but not the jobs "
    "that use them. Start another local AWS instead of a reset"
)

_buckets_lock = threading.Lock()
"""Held while moto sees only the bucket names of one account."""


class Application:
    """A local AWS as a WSGI application.

    :param account: the account of this AWS.
    :param faults: the faults.
    :param services: returns the service of this package for a call; None if the service is only moto's.
    :param control: the handlers of the control API, by the last part of their path.
    :param console: serves the pages.
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
        """Respond to a request.

        :param environ: the request.
        :param start_response: starts the response.
        """
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
            log.exception("Unexpected error while handling %s", path)
            failed = AwsError("InternalFailure", f"A bug in the local AWS: {error!r}. See its log for details", 500)
            return answers.of_error(failed, service)(environ, start_response)

    def _answer(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a call, or have a fault respond."""
        canned = self._faults.before(call, self._account)
        if canned is None or canned.takes_effect:
            answer = self._served(call, environ, start_response if canned is None else _discard)
        if self._faults.loses_answer(call):
            raise ConnectionDropped
        return answer if canned is None else answers.of_fault(canned, call.service)(environ, start_response)

    def _call(self, path: str, environ: WSGIEnvironment) -> Call:
        """Return the call for a request."""
        if path.startswith(PREFIX):
            return self._metadata.call(environ["REQUEST_METHOD"], path.removeprefix(PREFIX))
        access_key, region, service = _scope(environ)
        body = b""
        if service != "s3":  # bodies are data, and may be large
            try:
                body = bodies.read(environ)
            except bodies.UnreadableBody as error:
                raise protocols.malformed(service, str(error), error.status) from None
        try:
            operation = protocols.operation_of(service, environ, body)
        except AwsError:  # raised again when the call is served, after the faults
            operation = None
        action = _action(service, body, environ) if operation is None else operation.model.name
        has_expired = self._metadata.has_expired(access_key)
        return Call(service, action, access_key, has_expired, region, path, body, operation)

    def _served(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a call without faults."""
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
        if call.name in UNBLOCKING:
            service.reconsider()
        return answer(environ, start_response)

    def _passed_on(self, call: Call, environ: WSGIEnvironment) -> Response:
        """Pass a call on to moto, and return its response.

        :raises AwsError: moto does not support the operation, or cannot handle the request.
        """
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account
        try:
            if call.name == "s3.CreateBucket":
                answer = self._create_bucket(environ)
            else:
                with LOCKS.get(call.service) or LOCKS.get(call.name) or contextlib.nullcontext():
                    answer = self._response_of_moto(environ)
        except ConnectionError:
            raise
        except NotImplementedError:
            raise protocols.unknown_operation(call.service, call.action) from None
        except Exception as error:
            log.exception("moto could not handle %s", call.name)
            why = f"moto, which implements {call.name} here, cannot handle this request: {error!r}"
            raise protocols.invalid(call.service or "s3", why) from None
        return answers.of_moto(answer, call.service or "s3", call.action, environ["REQUEST_METHOD"])

    def _response_of_moto(self, environ: WSGIEnvironment) -> Response:
        """Return moto's response."""
        return Response.from_app(self._moto, environ)

    def _create_bucket(self, environ: WSGIEnvironment) -> Response:
        """Create a bucket in moto, even if its name is used in another account: here that belongs to another server."""
        with _buckets_lock:
            mine = s3_backends[self._account][PARTITION].buckets
            s3_backends.bucket_accounts = dict.fromkeys(mine, (PARTITION, self._account))
            answer = self._response_of_moto(environ)
            s3_backends.bucket_accounts = {}
            return answer

    def _answer_control(self, name: str, request: Request) -> Response:
        handler = self._control.get(name)
        if handler is None:
            return answers.of_json(
                {"error": f"No such path. The control API has: {', '.join(CONTROL + each for each in self._control)}"},
                status=404,
            )
        try:
            body = bodies.parsed(bodies.read(request.environ))
            if not isinstance(body, dict):
                raise TypeError(f"The body must be a JSON object, not {body!r}")
            return answers.of_json(handler(body))
        except bodies.UnreadableBody as error:
            return answers.of_json({"error": str(error)}, status=error.status)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            return answers.of_json({"error": str(error)}, status=400)


def forget_buckets(account: str) -> None:
    """Drop the buckets of an account. moto's own function would drop the objects of all accounts.

    :param account: the account.
    """
    for backend in (s3_backends.pop(account, None) or {}).values():
        for bucket in backend.buckets.values():
            for key in bucket.keys.values():
                if isinstance(key, FakeKey):
                    key.dispose()


def _discard(_status: str, _headers: list[tuple[str, str]], _error: Any = None, /) -> Callable[[bytes], object]:
    """A start_response that discards the response."""
    return lambda _: None


def _service_of(environ: WSGIEnvironment) -> str:
    """Return the service of a request; if it is not signed, S3, or an empty string for a request in JSON."""
    if environ.get("PATH_INFO", "").startswith(PREFIX):
        return METADATA
    return _scope(environ)[2] or ("" if "HTTP_X_AMZ_TARGET" in environ else "s3")


def _scope(environ: WSGIEnvironment) -> tuple[str, str, str]:
    """Return the access key, region and service in the signature; without one, only the default region."""
    signed = environ.get("HTTP_AUTHORIZATION") or unquote(environ.get("QUERY_STRING", ""))
    found = CREDENTIAL.search(signed)
    if found is None and "AWSAccessKeyId=" in signed:  # signature version 2, which only S3 still accepts
        return "", DEFAULT_REGION, "s3"
    return (found[1], found[2], found[3]) if found else ("", DEFAULT_REGION, "")


def _action(service: str, body: bytes, environ: WSGIEnvironment) -> str:
    """Return the name of a call whose operation is not known, or is one of S3."""
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
    """Reject a call whose required signature is missing or incomplete."""
    suffix = "Exception" if "HTTP_X_AMZ_TARGET" in environ else ""  # services with JSON protocols use this suffix
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
