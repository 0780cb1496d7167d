"""The port of a local AWS, which can be closed for a while.

Invariants:

- A closed port refuses connections and stays reserved: it is bound, so no other process gets it.
- A port that is closed for some time is opened again by itself, unless it was opened or stopped before.
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
"""Seconds until the server's thread notices that it is to stop."""
READ_TIMEOUT: Final = 20.0
"""Seconds for which a request may send nothing; S3 waits as long."""


class Listener:
    """Serves an application on a port, on a thread of its own. Thread-safe.

    :param port: 0 takes a free one.
    :raises OSError: the address cannot be bound.
    :raises SystemExit: the port is in use (werkzeug's way to say so).
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
        """Serve; connections that were made before have waited for it."""
        self._serve()

    @property
    def port(self) -> int:
        """The port, which never changes."""
        return self._port

    def close_for(self, seconds: float) -> None:
        """Refuse connections, and accept them again after `seconds`."""
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
        """Accept connections, if they are refused."""
        self._open(None)

    def stop(self) -> None:
        """Give up the port."""
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
        """Accept connections, unless `timer` is one that was replaced meanwhile."""
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
            reserved.close()  # the server has duplicated it
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
        """A socket that is bound to the port without listening, so that connections are refused."""
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(get_sockaddr(self._host, self._port, self._family))
        return bound

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _RequestHandler(MotoRequestHandler):
    """moto's, without a line on standard error for every call, and with a limit to how long it waits for a body."""

    timeout = READ_TIMEOUT

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin the answer, which a client may take any time to read: a large object may take long."""
        self.connection.settimeout(None)
        super().send_response(code, message)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: ARG002 -- werkzeug's
        """Log for debugging only."""
        log.debug(message, *args)
