"""Background coroutines of one owner. The owner is notified when one ends, and closes all of them at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class BackgroundTasks:
    """Runs coroutines until they end or all of them are closed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when a coroutine ends. Others may set it too, to wake the owner. The owner clears it."""
        self.failed: BaseException | None = None
        """The exception of the first coroutine that failed."""
        self.closed = False
        """Whether ``close`` was called."""
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background.

        :param work: the coroutine.
        :return: its task.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def close(self) -> None:
        """Cancel all running coroutines and wait until they have ended."""
        self.closed = True
        for task in self._tasks:
            task.cancel()
        while self._tasks:  # not gather, which drops the message of a cancellation
            await asyncio.wait(self._tasks)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failed = self.failed or error
        self.changed.set()
