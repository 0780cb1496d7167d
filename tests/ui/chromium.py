"""A headless Chromium, controlled by its DevTools protocol.

The protocol uses two pipes, so that nothing listens on a port, and only the browser is needed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TIMEOUT = 30.0
"""Seconds after which a test stops waiting."""

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


class Chromium:
    """A browser with its own profile, which ends with the block."""

    def __enter__(self) -> Self:
        binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if binary is None:
            raise RuntimeError(f"There is no Chromium here: install Debian's chromium (looked for {', '.join(NAMES)})")
        self._home = tempfile.mkdtemp(prefix="jobflow-chromium-")
        low_read, self._write = os.pipe()
        self._read, low_write = os.pipe()
        to_browser, from_browser = (fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (low_read, low_write))
        command = [
            binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--force-color-profile=srgb", "--lang=en-GB", "--remote-debugging-pipe", f"--user-data-dir={self._home}",
            "about:blank",
        ]  # fmt: skip

        # A shell puts the pipes where the browser looks for them: 3 and 4.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": self._home, "TZ": "UTC"},
        )
        for each in (to_browser, from_browser, low_read, low_write):
            os.close(each)
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, queue.Empty):
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        shutil.rmtree(self._home, ignore_errors=True)

    def _listen(self) -> None:
        rest = b""
        while block := os.read(self._read, 2**20):
            *messages, rest = (rest + block).split(b"\0")
            for each in messages:
                message = json.loads(each)
                if "id" in message:
                    self._answers[message["id"]].put(message)
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.handle_event(message["method"], message["params"])
        os.close(self._read)

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._ids)
        self._answers[number] = queue.Queue()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._answer(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _answer(self, number: int) -> dict[str, Any]:
        try:
            return self._answers[number].get(timeout=TIMEOUT)
        finally:
            del self._answers[number]

    @contextlib.contextmanager
    def page(self, *, width: int = 1280, height: int = 900) -> Iterator[Page]:
        """Open a page in its own context, without a session."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.size(width, height)
            yield page
        finally:
            del self._pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def until_opened(self, page: Page) -> None:
        """Wait until a page has opened another window, and return it."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            targets: list[dict[str, Any]] = self.call("Target.getTargets")["targetInfos"]
            [mine] = [each["browserContextId"] for each in targets if each["targetId"] == page.target]
            if [each for each in targets if each["type"] == "page" and each["browserContextId"] == mine][1:]:
                return
            assert time.monotonic() < deadline, f"No window was opened within {TIMEOUT:g} s"
            time.sleep(0.05)


class Page:
    """A page of the browser."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self.target = target
        self.complaints: list[str] = []
        """The messages of the console: errors, warnings, and rejections by the policy."""
        self.responses: list[dict[str, Any]] = []

    def handle_event(self, method: str, parameters: dict[str, Any]) -> None:
        """Handle an event of the protocol."""
        match method:
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"])[:800])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(parameters["args"])[:800])
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                entry = parameters["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}"[:800])
            case "Network.responseReceived":
                self.responses.append(parameters["response"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol on this page."""
        return self._browser.call(method, session=self._session, **parameters)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def cookie(self, name: str, value: str, url: str) -> None:
        """Set a cookie."""
        self.call("Network.setCookie", name=name, value=value, url=url, httpOnly=True)

    def before_scripts(self, source: str) -> None:
        """Run a script in every document and frame before its own scripts."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=source)

    def go(self, url: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """Evaluate an expression, and return its value as JSON; raise its exception."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = TIMEOUT) -> Any:
        """Evaluate an expression until it is true, and return its value."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):  # the page may be between two documents
                # An element cannot be returned; that it exists is enough.
                if value := self.run(f"((value) => (value && value.nodeType ? true : value))({expression})"):
                    return value
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} did not come true within {seconds:g} s\n{self.text()[:1500]}")
            time.sleep(0.05)

    def text(self) -> str:
        """Return the visible text of the page."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def key(self, key: str) -> None:
        """Press a key."""
        named = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowDown": 40, "End": 35, "Home": 36, " ": 32}
        typed = "\r" if key == "Enter" else key if len(key) == 1 else ""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=named.get(key, ord(key[0].upper())),
                **({"text": typed} if typed and kind == "keyDown" else {}),
            )

    def click(self, x: float, y: float) -> None:
        """Click at a position."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path: Path, *, height: int | None = None) -> None:
        """Save a picture of the window."""
        clip = {"clip": {"x": 0, "y": 0, "width": 1280, "height": height, "scale": 1}} if height else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"]))
