"""Writing the lines of jobs: the rate, the records, and the task whose log gets them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.triggers.job_log_writer import (
    BLOCKED,
    DRAIN_MARGIN,
    PAUSES,
    RECORD_BYTES,
    RECORD_OVERHEAD,
    JobLogWriter,
    log,
    records,
)
from tests.unit.polling.scripted import now, run

TASK: contextvars.ContextVar[str] = contextvars.ContextVar("task")


class Records(logging.Handler):
    """The written records with their task and time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record a record."""
        self.seen.append((TASK.get(), record.getMessage()))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    """Return the written records; writing uses no thread, so that it follows the scripted clock."""

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    handler = Records()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=3000), max_size=20))
def test_records_hold_all_lines_in_order_and_are_small(lines: list[str]) -> None:
    """A record that is larger than what the supervisor reads at once would block the log lines of others."""
    texts = list(records(lines))
    assert [line for text in texts for line in text.split("\n")] == lines
    assert all(len(text) <= RECORD_BYTES for text in texts)


def in_task(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Call a function in the context of a task."""
    context = contextvars.copy_context()
    context.run(TASK.set, name)
    return asyncio.get_running_loop().create_task(work, context=context)


def test_tasks_take_turns_and_none_writes_into_the_log_of_another(written: Records) -> None:
    """A burst of one task does not delay the lines of another."""

    async def scenario() -> None:
        writer = JobLogWriter(100_000)
        burst = ["x" * 100] * 2_000
        await asyncio.gather(in_task("burst", writer.write(burst)), in_task("other", writer.write(["hello"])))

    run(scenario())
    assert written.seen[1] == ("other", "hello")
    assert {text.strip("x\n") for task, text in written.seen if task == "burst"} == {""}


def test_the_rate_is_limited(written: Records) -> None:
    """Writing faster than the supervisor reads would block the triggerer."""
    took: list[float] = []

    async def scenario() -> None:
        writer = JobLogWriter(100_000)
        TASK.set("t")
        await writer.write(["x" * 99] * 10_000)
        took.append(now())

    run(scenario())
    size = sum(len(text) + RECORD_OVERHEAD for _, text in written.seen)
    assert took == [pytest.approx(size / 100_000, abs=0.5)]


def test_a_few_lines_are_written_at_once(written: Records) -> None:
    """The limit applies to bursts."""
    took: list[float] = []

    async def scenario() -> None:
        writer = JobLogWriter(100_000)
        TASK.set("t")
        for _ in range(5):
            await writer.write(["hello"] * 10)
        took.append(now())

    run(scenario())
    assert took == [0.0]


def test_a_trigger_ends_only_when_its_lines_were_read(written: Records) -> None:
    """The supervisor closes a task's log with its trigger; a worker reads all lines."""
    took: dict[float, float] = {}

    async def scenario() -> None:
        TASK.set("t")
        for rate in (100_000, float("inf")):
            began, writer = now(), JobLogWriter(rate)
            await writer.drain()
            await writer.write(["x" * 99] * 100)
            await writer.drain()
            took[rate] = now() - began

    run(scenario())
    assert took == {100_000: pytest.approx(DRAIN_MARGIN + 0.1, abs=0.1), float("inf"): 0.0}


def test_a_write_that_blocks_is_followed_by_a_pause(written: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is full: the supervisor must read more than is written, so that Airflow's own lines do not block."""
    blocks = 10 * BLOCKED

    async def slowly(function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(blocks)
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    took: list[float] = []

    async def scenario() -> None:
        TASK.set("t")
        await JobLogWriter(1e9).write(["x" * RECORD_BYTES] * 101)
        took.append(now())

    run(scenario())
    assert took == [pytest.approx(101 * blocks + 100 * blocks * PAUSES)]
