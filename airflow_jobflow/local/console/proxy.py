"""``python -m airflow_jobflow.local.console.proxy``: the pages of a local AWS on another port, and nothing else of it.

The local AWS runs whatever commands it is sent. So in docker-compose.yaml nothing outside its network can reach it.
This passes on requests for its pages only, which change nothing.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.console.html import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT: Final = 20.0
"""Seconds for an answer of the local AWS."""
HEADERS: Final = ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options", "Cache-Control")
"""What is passed on of an answer."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    upstream = ""
    """The URL of the local AWS."""

    def do_GET(self) -> None:
        """Answer with a page of the local AWS."""
        if self.path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", PREFIX)
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        if not path.startswith(PREFIX) or "/" in path.removeprefix(PREFIX) or "%" in path:
            self.send_error(HTTPStatus.NOT_FOUND, f"Pages are under {PREFIX}")
            return
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer: Any = direct.open(f"{self.upstream}{path}{'?' if query else ''}{query}", timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            answer = error
        except OSError as error:
            self.send_error(HTTPStatus.BAD_GATEWAY, f"The local AWS does not answer: {error}")
            return
        with answer:
            self.send_response(answer.status)
            for name in HEADERS:
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page that is open is loaded every few seconds."""


def server(upstream: str, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of the pages of a local AWS; it listens, and serves once ``serve_forever`` is called.

    :param upstream: the URL of the local AWS.
    :param port: 0 takes a free one.
    """
    handler = type("Handler", (Handler,), {"upstream": upstream.rstrip("/")})
    return ThreadingHTTPServer((host, port), handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is ended; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local.console.proxy", description="The pages of a local AWS, and nothing else of it."
    )
    parser.add_argument("--upstream", required=True, help="URL of the local AWS")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    given = parser.parse_args(arguments)
    server(given.upstream, given.host, given.port).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
