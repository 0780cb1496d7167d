"""Which ways of waiting keep the message of a cancellation: without it, Airflow does not call a trigger's ``on_kill``.

CPython and asgiref changed this between versions, so it is tested with the installed ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import pytest
from asgiref.sync import sync_to_async  # noqa: TID251 -- its effect on a cancellation is tested

MESSAGE = "user-action"
"""The message of the cancellation when Airflow kills a task."""


class Waiting:
    """Waits forever, in a coroutine or in a thread, and signals when it has started."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._end = threading.Event()

    async def coroutine(self) -> None:
        """Wait on the event loop."""
        self.begun.set()
        await asyncio.Event().wait()

    def thread(self) -> None:
        """Wait in a thread."""
        self._loop.call_soon_threadsafe(self.begun.set)
        self._end.wait()

    def end(self) -> None:
        """End the thread."""
        self._end.set()


async def _future(waiting: Waiting) -> None:
    waiting.begun.set()
    await asyncio.wrap_future(Future())


async def _in_a_group(waiting: Waiting) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(waiting.thread))


async def _with_a_timeout(waiting: Waiting) -> None:
    async with asyncio.timeout(60):
        await asyncio.to_thread(waiting.thread)


KEEP: dict[str, Callable[[Waiting], Awaitable[object]]] = {
    "coroutine": lambda waiting: waiting.coroutine(),
    "to_thread": lambda waiting: asyncio.to_thread(waiting.thread),
    "wrap_future": _future,
    "task": lambda waiting: asyncio.ensure_future(asyncio.to_thread(waiting.thread)),
    "shield": lambda waiting: asyncio.shield(asyncio.to_thread(waiting.thread)),
    "gather": lambda waiting: asyncio.gather(waiting.coroutine(), asyncio.to_thread(waiting.thread)),
    "wait_for": lambda waiting: asyncio.wait_for(asyncio.to_thread(waiting.thread), 60),
    "wait": lambda waiting: asyncio.wait({asyncio.ensure_future(waiting.coroutine())}),
    "timeout": _with_a_timeout,
    "group": _in_a_group,
}


async def message_of_a_kill(wait: Callable[[Waiting], Awaitable[object]]) -> object:
    """Cancel a wait like Airflow, and return the message that arrives where Airflow decides about ``on_kill``."""
    waiting = Waiting()

    async def trigger() -> object:
        try:
            await wait(waiting)
        except asyncio.CancelledError as cancelled:
            return cancelled.args[0] if cancelled.args else None
        raise AssertionError("It was not cancelled")

    task = asyncio.ensure_future(trigger())
    try:
        await waiting.begun.wait()
        task.cancel(MESSAGE)
        return await task
    finally:
        waiting.end()


@pytest.mark.parametrize("wait", KEEP.values(), ids=KEEP)
def test_the_ways_in_which_triggers_wait_keep_the_message(wait: Callable[[Waiting], Awaitable[object]]) -> None:
    """Otherwise a kill during such a wait stops no job."""
    assert asyncio.run(message_of_a_kill(wait)) == MESSAGE


@pytest.mark.parametrize("thread_sensitive", [True, False])
def test_sync_to_async_still_drops_the_message(thread_sensitive: bool) -> None:
    """Triggers do not use it. Once it keeps the message, that rule can be removed."""

    def wait(waiting: Waiting) -> Awaitable[None]:
        return sync_to_async(waiting.thread, thread_sensitive=thread_sensitive)()

    assert asyncio.run(message_of_a_kill(wait)) is None
