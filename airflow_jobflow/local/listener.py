"""The port of a local AWS, which can be closed temporarily.

Invariants:

- A closed port refuses connections and stays bound, so that no other process can use it.
- A port that is closed for some time is reopened automatically, unless it was opened or stopped before.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import get_sockaddr, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from werkzeug.serving import BaseWSGIServer

log = logging.getLogger(__name__)

STOP_LATENCY: Final = 0.1
"""Seconds until the server's thread notices that it must stop."""
READ_TIMEOUT: Final = 20.0
"""Seconds to wait for more of a request; S3 waits as long."""


class Listener:
    """Serves an application on a port, in its own thread. Thread-safe.

    :param host: the address.
    :param port: the port; 0 for a free one.
    :param application: the application.
    :raises OSError: the address cannot be bound.
    :raises SystemExit: the port is in use; raised by werkzeug.
    """

    def __init__(self, host: str, port: int, application: WSGIApplication) -> None:
        self._host = host
        self._application = application
        self._lock = threading.Lock()
        self._reserved: socket.socket | None = None
        """Keeps the port while it is closed."""
        self._timer: threading.Timer | None = None
        self._stopped = False
        self._use(self._server(port))

    def start(self) -> None:
        """Start serving, including connections that are already waiting."""
        self._serve()

    @property
    def port(self) -> int:
        """The port, which never changes."""
        return self._port

    def close_for(self, seconds: float) -> None:
        """Refuse connections for some time.

        :param seconds: how long.
        """
        with self._lock:
            if self._stopped:
                return
            self._cancel_timer()
            if self._reserved is None:
                self._stop_serving()
                self._reserved = self._bound()
            timer = threading.Timer(seconds, lambda: self._open(timer))
            timer.daemon = True
            self._timer = timer
            timer.start()

    def open(self) -> None:
        """Accept connections again."""
        self._open(None)

    def stop(self) -> None:
        """Stop serving and release the port."""
        with self._lock:
            self._cancel_timer()
            if self._stopped:
                return
            self._stopped = True
            if self._reserved is None:
                self._stop_serving()
            else:
                self._reserved.close()

    def _open(self, timer: threading.Timer | None) -> None:
        """Accept connections, unless `timer` has been replaced by another one."""
        with self._lock:
            if timer is not None and timer is not self._timer:
                return
            self._cancel_timer()
            reserved = self._reserved
            if reserved is None or self._stopped:
                return
            reserved.listen(self._backlog)
            self._use(self._server(self._port, reserved.fileno()))
            self._serve()
            reserved.close()  # the server uses a duplicate
            self._reserved = None

    def _server(self, port: int, fd: int | None = None) -> BaseWSGIServer:
        return make_server(self._host, port, self._application, threaded=True, request_handler=_RequestHandler, fd=fd)

    def _use(self, server: BaseWSGIServer) -> None:
        self._running = server
        self._port, self._backlog = server.port, server.request_queue_size
        self._family = socket.AddressFamily(server.address_family)

    def _serve(self) -> None:
        self._thread = threading.Thread(
            target=self._running.serve_forever, args=(STOP_LATENCY,), name="local-aws", daemon=True
        )
        self._thread.start()

    def _stop_serving(self) -> None:
        self._running.shutdown()
        self._thread.join()
        self._running.server_close()

    def _bound(self) -> socket.socket:
        """Return a socket that is bound to the port but does not listen, so that connections are refused."""
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(get_sockaddr(self._host, self._port, self._family))
        return bound

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _RequestHandler(MotoRequestHandler):
    """moto's request handler, with a time limit for reading bodies, and without printing each call."""

    timeout = READ_TIMEOUT

    def send_response(self, code: int, message: str | None = None) -> None:
        """Start the response. Reading it has no time limit, because objects may be large."""
        self.connection.settimeout(None)
        super().send_response(code, message)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: ARG002 -- the signature is werkzeug's
        """Log at level DEBUG only."""
        log.debug(message, *args)
