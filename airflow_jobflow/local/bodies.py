"""Read the bodies of requests, including truncated, compressed and chunked ones, and those with an invalid length.

Invariants: a body is read completely or rejected. The depth of a returned JSON value is limited, so that recursive
functions can process it.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LARGEST: Final = 128 * 1024 * 1024
"""Maximum size of a body in bytes; only S3 accepts more."""
DEEPEST: Final = 200
"""Maximum depth of a JSON value."""
PIECE: Final = 64 * 1024
"""Bytes that are read at a time."""
CONTAINER: Final = (dict, list)


class UnreadableBody(Exception):
    """A body that cannot be read.

    :param what: the message.
    :param status: the HTTP status of the response. Default 400.
    """

    def __init__(self, what: str, status: int = 400) -> None:
        super().__init__(what)
        self.status = status


def read(environ: WSGIEnvironment) -> bytes:
    """Read and decompress the body of a request, and put the decompressed one into `environ`.

    :param environ: the request.
    :raises UnreadableBody: the body is truncated or too large, or its headers are invalid.
    """
    try:
        body = _chunked(environ) if environ.get("wsgi.input_terminated") else _sized(environ)
    except TimeoutError:
        raise UnreadableBody("The body did not arrive within the time allowed", 408) from None
    if len(body) > LARGEST:
        raise UnreadableBody(f"The body is larger than {LARGEST} bytes", 413)
    if environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() == "gzip":
        body = _decompressed(body)
        del environ["HTTP_CONTENT_ENCODING"]
    replace(environ, body)
    return body


def replace(environ: WSGIEnvironment, body: bytes) -> None:
    """Replace the body of a request.

    :param environ: the request, which is changed.
    :param body: the new body.
    """
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)


def parsed(body: bytes) -> Any:
    """Return the JSON value of a body; an empty body is an empty object.

    :param body: the body.
    :raises UnreadableBody: it is not valid JSON in UTF-8, or nested too deeply.
    """
    try:
        value = json.loads(body.decode() or "{}", parse_constant=_not_a_number)
    except UnicodeDecodeError:
        raise UnreadableBody("The body is not valid UTF-8") from None
    except ValueError as error:
        raise UnreadableBody(f"The body is not valid JSON: {error}") from None
    except RecursionError:
        raise UnreadableBody(f"The body is nested deeper than {DEEPEST} levels") from None
    if body.count(b"{") + body.count(b"[") > DEEPEST and _is_deep(value):
        raise UnreadableBody(f"The body is nested deeper than {DEEPEST} levels")
    return value


def _sized(environ: WSGIEnvironment) -> bytes:
    length_header = environ.get("CONTENT_LENGTH") or "0"
    if not (length_header.isascii() and length_header.isdigit()):
        raise UnreadableBody(f"Content-Length is {length_header!r}, which is not a number")
    length = int(length_header[:20])
    if length > LARGEST:
        raise UnreadableBody(f"The body is larger than {LARGEST} bytes", 413)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    if len(body) < length:
        raise UnreadableBody(f"The body ended after {len(body)} bytes, but Content-Length is {length}")
    return body


def _chunked(environ: WSGIEnvironment) -> bytes:
    body = bytearray()
    try:
        while len(body) <= LARGEST and (piece := environ["wsgi.input"].read(PIECE)):
            body += piece
    except TimeoutError:
        raise
    except OSError as error:
        raise UnreadableBody(f"The chunks of the body are malformed or cut off: {error}") from None
    return bytes(body)


def _decompressed(body: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableBody(f"The body is not valid gzip: {error}") from None
    if len(content) > LARGEST:
        raise UnreadableBody(f"The body is larger than {LARGEST} bytes", 413)
    return content


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _is_deep(value: Any) -> bool:
    """Return whether a value is nested deeper than `DEEPEST` levels, without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [
            each.values() if isinstance(each, dict) else each for each in level if isinstance(each, CONTAINER)
        ]
        level = [each for container in containers for each in container]
        if not level:
            return False
    return True
