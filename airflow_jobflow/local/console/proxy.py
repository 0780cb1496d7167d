"""``python -m airflow_jobflow.local.console.proxy``: serve only the console pages of a local AWS, on another port.

The local AWS runs any command that it receives. So docker-compose.yaml does not publish its port. This proxy forwards
only requests for its pages, which are read-only.
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
"""Seconds to wait for the local AWS."""
HEADERS: Final = ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options", "Cache-Control")
"""The headers of a response that are forwarded."""


class Handler(BaseHTTPRequestHandler):
    """Handles one request."""

    upstream = ""
    """The URL of the local AWS."""

    def do_GET(self) -> None:
        """Respond with a page of the local AWS."""
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
            self.send_error(HTTPStatus.BAD_GATEWAY, f"The local AWS does not respond: {error}")
            return
        with answer:
            self.send_response(answer.status)
            for name in HEADERS:
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: an open page is reloaded every few seconds."""


def server(upstream: str, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server for the pages of a local AWS. It is listening; call ``serve_forever`` to serve.

    :param upstream: the URL of the local AWS.
    :param host: the address to listen on.
    :param port: the port; 0 for a free one.
    """
    handler = type("Handler", (Handler,), {"upstream": upstream.rstrip("/")})
    return ThreadingHTTPServer((host, port), handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is killed.

    :param arguments: the command line. Default: this process's.
    :return: the exit code.
    """
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local.console.proxy", description="Serve the console pages of a local AWS."
    )
    parser.add_argument("--upstream", required=True, help="URL of the local AWS")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    given = parser.parse_args(arguments)
    server(given.upstream, given.host, given.port).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
