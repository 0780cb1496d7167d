"""Serves the files of the "Jobs" tab.

Invariants: the content security policy allows only scripts and styles from Airflow itself, so that the content of an
XCom is never executed. Starlette is imported at the first request, because every process that loads plugins imports
this module.
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
    # The browser revalidates each file, so that a new version is shown at once.
    "cache-control": "no-cache",
}
"""Headers of every response."""

Message = MutableMapping[str, Any]


class Page:
    """An ASGI application that serves the files."""

    def __init__(self) -> None:
        self._files: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Respond to a request.

        :param scope: the request.
        :param receive: receives its body.
        :param send: sends the response.
        """
        if self._files is None:
            from starlette.staticfiles import StaticFiles

            self._files = StaticFiles(directory=FILES, html=True)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        await self._files(scope, receive, send_with_headers)
