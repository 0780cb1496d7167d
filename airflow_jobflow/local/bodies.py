"""Reads the bodies of requests, whatever arrives: cut off, compressed, in chunks, without a usable length.

Invariants: a body is read whole or rejected; a JSON value that is returned nests so little that it can be walked over
recursively.
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
"""Bytes of a body; no service but S3 takes more."""
DEEPEST: Final = 200
"""How deep a JSON value may nest."""
PIECE: Final = 64 * 1024
CONTAINER: Final = (dict, list)


class UnreadableBody(Exception):
    """A body that cannot be read.

    :param what: what is wrong with it.
    :param status: HTTP status of the answer.
    """

    def __init__(self, what: str, status: int = 400) -> None:
        super().__init__(what)
        self.status = status


def read(environ: WSGIEnvironment) -> bytes:
    """Return the body of a request, decompressed, and have `environ` say so.

    :raises UnreadableBody: it is cut off, too large, or its headers are wrong.
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
    """Have a request carry another body."""
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)


def parsed(body: bytes) -> Any:
    """Return the JSON value that a body is; no body is an empty object.

    :raises UnreadableBody: it is not valid JSON in UTF-8, or nests too deep.
    """
    try:
        value = json.loads(body.decode() or "{}", parse_constant=_not_a_number)
    except UnicodeDecodeError:
        raise UnreadableBody("The body is not valid UTF-8") from None
    except ValueError as error:
        raise UnreadableBody(f"The body is not valid JSON: {error}") from None
    except RecursionError:
        raise UnreadableBody(f"The body nests deeper than {DEEPEST} levels") from None
    if body.count(b"{") + body.count(b"[") > DEEPEST and _is_deep(value):
        raise UnreadableBody(f"The body nests deeper than {DEEPEST} levels")
    return value


def _sized(environ: WSGIEnvironment) -> bytes:
    told = environ.get("CONTENT_LENGTH") or "0"
    if not (told.isascii() and told.isdigit()):
        raise UnreadableBody(f"Content-Length is {told!r}, which is not a length")
    length = int(told[:20])
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
    """Return whether a value nests deeper than `DEEPEST` levels, without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [
            each.values() if isinstance(each, dict) else each for each in level if isinstance(each, CONTAINER)
        ]
        level = [each for container in containers for each in container]
        if not level:
            return False
    return True
