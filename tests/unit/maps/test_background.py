"""Coroutines beside another: what it hears of them."""

from __future__ import annotations

import asyncio

from airflow_jobflow.maps.background import BackgroundTasks
from tests.unit.polling.scripted import run


async def fails(after: float, words: str) -> None:
    """Fail after a while."""
    await asyncio.sleep(after)
    raise RuntimeError(words)


def test_the_first_failure_is_what_is_kept() -> None:
    """The others follow from it as a rule; the owner wakes for it."""

    async def story() -> None:
        background = BackgroundTasks()
        background.spawn(fails(2, "second"))
        background.spawn(fails(1, "first"))
        await background.changed.wait()
        assert str(background.failed) == "first"
        await asyncio.sleep(2)
        assert str(background.failed) == "first"

    run(story())


def test_what_is_closed_leaves_nothing_running_and_has_not_failed() -> None:
    """A cancellation is no failure."""

    async def story() -> None:
        background = BackgroundTasks()
        task = background.spawn(fails(9, "late"))
        await asyncio.sleep(1)
        await background.close()
        assert task.cancelled()
        assert background.closed
        assert background.failed is None

    run(story())
