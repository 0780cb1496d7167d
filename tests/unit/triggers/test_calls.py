"""The turns that a map's calls take, on a scripted clock."""

from __future__ import annotations

import asyncio

import pytest

from airflow_jobflow.triggers.calls import Turns
from tests.unit.watch.scripted import now, run


def test_turns_come_at_the_services_pace() -> None:
    """However many ask for one at once, and in the order in which they ask."""
    times: list[float] = []

    async def story() -> None:
        turns = Turns(50.0)

        async def call() -> None:
            times.append(await turns.take())

        await asyncio.gather(*(call() for _ in range(101)))

    run(story())
    assert times == pytest.approx([number / 50 for number in range(101)])


def test_a_late_timer_does_not_slow_the_pace_down() -> None:
    """The next turn makes up for it, but not for a long pause: that would be a burst."""
    times: list[float] = []

    async def story() -> None:
        turns = Turns(10.0)
        for _ in range(11):
            times.append(await turns.take())
            await asyncio.sleep(0.04)  # what is done between two turns costs them nothing
        await asyncio.sleep(5)
        times.extend([await turns.take() for _ in range(3)])

    run(story())
    assert times[10] == pytest.approx(1.0)
    assert [time - times[11] for time in times[11:]] == pytest.approx([0, 0.1, 0.2])


def test_throttling_slows_all_turns_down() -> None:
    """They are one pace's."""

    async def story() -> None:
        turns = Turns(10.0)
        sent_at = await turns.take()
        turns.pace.throttled(now(), sent_at)
        assert await turns.take() - sent_at == pytest.approx(0.2)

    run(story())
