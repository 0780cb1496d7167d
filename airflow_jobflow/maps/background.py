"""Coroutines that run beside another, which owns them: it hears of their ends, and leaves none behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class BackgroundTasks:
    """Runs coroutines until they end, or all are closed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when a coroutine has ended, and by whoever has other news for the owner, who clears it."""
        self.failed: BaseException | None = None
        """What the first coroutine to fail has raised."""
        self.closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    async def close(self) -> None:
        """Cancel all that still run, and wait for their ends."""
        self.closed = True
        for task in self._tasks:
            task.cancel()
        while self._tasks:  # not gather, which drops the message of a cancellation
            await asyncio.wait(self._tasks)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failed = self.failed or error
        self.changed.set()
