"""Background tasks of an owner, on a scripted clock."""

from __future__ import annotations

import asyncio

from airflow_jobflow.maps.background import BackgroundTasks
from tests.unit.polling.scripted import run


async def fails(after: float, message: str) -> None:
    """Fail after some seconds."""
    await asyncio.sleep(after)
    raise RuntimeError(message)


def test_the_first_failure_is_kept() -> None:
    """Later failures usually follow from the first. The owner is woken."""

    async def scenario() -> None:
        background = BackgroundTasks()
        background.spawn(fails(2, "second"))
        background.spawn(fails(1, "first"))
        await background.changed.wait()
        assert str(background.failed) == "first"
        await asyncio.sleep(2)
        assert str(background.failed) == "first"

    run(scenario())


def test_close_cancels_everything_and_is_not_a_failure() -> None:
    """Cancelled tasks do not count as failures."""

    async def scenario() -> None:
        background = BackgroundTasks()
        task = background.spawn(fails(9, "late"))
        await asyncio.sleep(1)
        await background.close()
        assert task.cancelled()
        assert background.closed
        assert background.failed is None

    run(scenario())
