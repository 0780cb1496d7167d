"""Serves the page's files, and nothing else.

What always holds: the browser is told to run and load nothing that does not come from Airflow itself, so that whatever
an XCom holds stays text. Nothing is imported before the first request: every process that loads plugins has this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "page"

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    # Asked for each time, and answered with "not modified": a new version shows at once.
    "cache-control": "no-cache",
}
"""What goes with every file."""

Message = MutableMapping[str, Any]


class Page:
    """An ASGI application."""

    def __init__(self) -> None:
        self._files: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        if self._files is None:
            from starlette.staticfiles import StaticFiles

            self._files = StaticFiles(directory=FILES, html=True)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        await self._files(scope, receive, send_with_headers)
