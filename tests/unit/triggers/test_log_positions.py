"""The positions of copied logs, which are saved for the next trigger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.jobs.model import LogStream
from airflow_jobflow.polling.log_stream import Position
from airflow_jobflow.triggers import log_positions as module
from airflow_jobflow.triggers.log_positions import SAVE_INTERVAL, LogPositions
from tests.triggerer import task
from tests.unit.polling.scripted import now, run, until

STREAM = LogStream("/g", "s", "eu-west-1")


class XComs:
    """The XComs of all tasks as JSON, with their times."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.pushed_at: list[float] = []
        self.broken = False

    def set(self, task_instance: Any, key: str, value: Any) -> None:
        """Push an XCom."""
        if self.broken:
            raise RuntimeError("scripted")
        self.pushed_at.append(now())
        self.stored[f"{task_instance.id} {key}"] = json.dumps(value)

    def get(self, task_instance: Any, key: str) -> Any:
        """Pull an XCom."""
        if self.broken:
            raise RuntimeError("scripted")
        return json.loads(self.stored.get(f"{task_instance.id} {key}", "null"))


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> XComs:
    """A store of XComs without threads."""
    found = XComs()

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(module, "set_xcom", found.set)
    monkeypatch.setattr(module, "get_xcom", found.get)
    return found


def test_another_trigger_continues_where_the_last_position_was_saved(xcoms: XComs) -> None:
    """A position has its token, its time, and the number of lines."""

    async def scenario() -> None:
        first = LogPositions(task(), may_resume=False)
        first.lines = 7
        first.record(STREAM, Position("f/7", 1234))
        await until(SAVE_INTERVAL + 1)
        first.close()
        second = LogPositions(task(), may_resume=True)
        assert await second.load(STREAM) == Position("f/7", 1234)
        assert await second.load(LogStream("/g", "other")) == Position()
        assert second.lines == 7

    run(scenario())


def test_a_short_job_saves_nothing(xcoms: XComs) -> None:
    """Each save is a request to Airflow."""

    async def scenario() -> None:
        positions = LogPositions(task(), may_resume=False)
        positions.record(STREAM, Position("f/1"))
        await until(SAVE_INTERVAL - 1)
        positions.close()
        await until(100)

    run(scenario())
    assert xcoms.pushed_at == []


def test_many_tasks_share_a_limit_of_saves(xcoms: XComs) -> None:
    """Two hundred tasks that write continuously must not occupy the supervisor."""

    async def scenario() -> None:
        tasks = [LogPositions(task(number), may_resume=False) for number in range(200)]
        for second in range(120):
            for each in tasks:
                each.record(STREAM, Position(str(second)))
            await until(second + 1)
        for each in tasks:
            each.close()
        await asyncio.sleep(1)

    run(scenario())
    seconds = 120 - SAVE_INTERVAL
    assert len(xcoms.pushed_at) == pytest.approx(seconds * module.MAX_SAVES_PER_SECOND, abs=3)
    assert len(xcoms.stored) == 200


def test_a_failing_store_only_causes_repeated_lines(xcoms: XComs) -> None:
    """An XCom backend may raise any error."""
    xcoms.broken = True

    async def scenario() -> None:
        positions = LogPositions(task(), may_resume=True)
        assert await positions.load(STREAM) == Position()
        positions.record(STREAM, Position("f/1"))
        await until(SAVE_INTERVAL + 1)
        xcoms.broken = False
        positions.record(STREAM, Position("f/2"))
        await until(3 * SAVE_INTERVAL)
        positions.close()

    run(scenario())
    assert "f/2" in next(iter(xcoms.stored.values()))


def test_without_a_task_instance_nothing_is_saved(xcoms: XComs) -> None:
    """This is the case on a worker, and with do_xcom_push=False."""

    async def scenario() -> None:
        positions = LogPositions(None, may_resume=True)
        assert await positions.load(STREAM) == Position()
        positions.record(STREAM, Position("f/1"))
        await until(100)

    run(scenario())
    assert xcoms.pushed_at == []
