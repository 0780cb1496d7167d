"""A way to a port that can be shut: then the port is closed, and what was open is cut."""

from __future__ import annotations

import contextlib
import socket
import threading


class Gate:
    """Passes on what comes to one loopback port to another, while it is open."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def open(self) -> None:
        """Listen; nothing happens if it does already."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse what comes, and cut what is open."""
        with self._lock:
            listener, self._listener = self._listener, None
            cut = [*self._open, *([listener] if listener else [])]
            self._open.clear()
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                if self._listener is not listener:
                    near.close()
                    far.close()
                    return
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            finished = not ({source, sink} & self._open)
            self._open -= {source, sink}
        if finished:  # the other direction is done with them
            source.close()
            sink.close()
