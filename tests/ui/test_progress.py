"""When notes are published, on a scripted clock: how often, with which content, and without delaying a wait."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.ui import progress
from airflow_jobflow.ui.progress import FIRST_NOTE_DELAY, MAX_NOTES_PER_SECOND, NOTE_INTERVAL, LastNote, Progress
from tests.unit.polling.scripted import run


class Written:
    """XComs with their times, in place of Airflow's."""

    def __init__(self) -> None:
        self.all: list[tuple[float, str, Any]] = []
        self.trouble: Exception | None = None

    def set(self, key: str, value: Any, *, task_id: str, **_: Any) -> None:
        """Record an XCom."""
        assert key == "jobflow_jobs"
        self.all.append((asyncio.get_running_loop().time(), task_id, value["state"]))
        if self.trouble:
            raise self.trouble

    def of(self, task: str) -> list[tuple[float, Any]]:
        """Return the XComs of a task."""
        return [(round(at, 3), state) for at, task_id, state in self.all if task_id == task]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Return the written XComs. No threads are used, because they do not follow the scripted clock."""
    from airflow.sdk.execution_time import xcom

    xcoms = Written()
    monkeypatch.setattr(xcom, "XCom", xcoms)

    async def at_once(call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    return xcoms


class Subscription:
    """A wait whose state is published."""

    def __init__(self, task: str = "t") -> None:
        self.state: Any = 0
        instance = SimpleNamespace(dag_id="d", task_id=task, run_id="r", map_index=-1)
        self.progress = Progress(instance, lambda: lambda: {"state": self.state, "at": object()})

    def becomes(self, state: Any) -> None:
        """Change the state."""
        self.state = state
        self.progress.changed()


def test_a_short_wait_writes_nothing(written: Written) -> None:
    """A job that ends within ten seconds needs no note."""

    async def scenario() -> None:
        wait = Subscription()
        with wait.progress:
            wait.becomes("RUNNING")
            await asyncio.sleep(FIRST_NOTE_DELAY - 0.1)
        await asyncio.sleep(100)

    run(scenario())
    assert written.all == []


def test_only_the_latest_change_is_written(written: Written) -> None:
    """It is written at most every ten seconds."""

    async def scenario() -> None:
        wait = Subscription()
        with wait.progress:
            for second in range(40):
                wait.becomes(min(second, 25))
                await asyncio.sleep(1)

    run(scenario())
    assert written.of("t") == [
        (FIRST_NOTE_DELAY, 9),
        (FIRST_NOTE_DELAY + NOTE_INTERVAL, 19),
        (FIRST_NOTE_DELAY + 2 * NOTE_INTERVAL, 25),
    ]


def test_a_change_after_a_quiet_time_is_written_at_once(written: Written) -> None:
    """The limit applies to the frequency, not to the delay."""

    async def scenario() -> None:
        wait = Subscription()
        with wait.progress:
            await asyncio.sleep(60)
            wait.becomes("RUNNING")
            await asyncio.sleep(1)

    run(scenario())
    assert written.of("t") == [(60, "RUNNING")]


def test_a_thousand_waits_share_the_budget_of_the_process(written: Written) -> None:
    """They take turns, and none is written twice before all are written."""

    async def scenario() -> None:
        waits = [Subscription(f"t{number}") for number in range(1000)]
        for each in waits:
            each.progress.__enter__()
            each.becomes("RUNNING")
        await asyncio.sleep(FIRST_NOTE_DELAY + 1000 / MAX_NOTES_PER_SECOND + 1)
        for each in waits:
            each.progress.__exit__(None, None, None)

    run(scenario())
    times = [at for at, *_ in written.all]
    assert len({task for _, task, _ in written.all}) == len(written.all) == 1000
    assert all(later - sooner >= 1 / MAX_NOTES_PER_SECOND - 1e-6 for sooner, later in itertools.pairwise(times))


def test_nothing_is_written_after_a_trigger_has_ended(written: Written) -> None:
    """A note would appear in the next try, even one that was queued before."""

    async def scenario() -> None:
        waits = [Subscription(f"t{number}") for number in range(10)]
        for each in waits:
            each.progress.__enter__()
            each.becomes("RUNNING")
        await asyncio.sleep(FIRST_NOTE_DELAY + 1.5 / MAX_NOTES_PER_SECOND)
        for each in waits:
            each.progress.__exit__(None, None, None)
        await asyncio.sleep(100)

    run(scenario())
    assert len(written.all) == 2


def test_an_error_of_an_xcom_backend_does_not_fail_the_wait(written: Written) -> None:
    """The next change is written."""
    written.trouble = OSError("the bucket is gone")

    async def scenario() -> None:
        wait = Subscription()
        with wait.progress:
            wait.becomes(1)
            await asyncio.sleep(FIRST_NOTE_DELAY + 1)
            written.trouble = None
            wait.becomes(2)
            await asyncio.sleep(NOTE_INTERVAL + 1)

    run(scenario())
    assert [state for _, state in written.of("t")] == [1, 2]


def test_without_a_task_instance_nothing_is_written(written: Written) -> None:
    """This is the case under `airflow dags test`, on a worker, and with do_xcom_push=False."""

    async def scenario() -> None:
        with Progress(None, lambda: lambda: {"state": 1}) as wait:
            wait.changed()
            await asyncio.sleep(FIRST_NOTE_DELAY + 1)

    run(scenario())
    assert written.all == []


def ended(monkeypatch: pytest.MonkeyPatch, state: str | Exception = "failed") -> list[str]:
    """Make Airflow report a state for all tasks; return the queried tasks."""
    asked: list[str] = []

    async def states(tasks: Any) -> list[str]:
        asked.extend(each.task_id for each in tasks)
        if isinstance(state, Exception):
            raise state
        return [state]

    monkeypatch.setattr(progress, "current_states", states)
    return asked


def last_note(task: str, look: Callable[[], Any]) -> LastNote:
    """Return the note of a killed task."""
    instance = SimpleNamespace(dag_id="d", task_id=task, run_id="r", map_index=-1)
    return LastNote(instance, lambda: lambda: {"state": look(), "at": object()})


def test_the_notes_of_many_kills_share_the_budget(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 500 tasks may be killed at once; a delayed note has the latest state."""
    asked = ended(monkeypatch)
    state = ["stopped"]

    async def scenario() -> None:
        notes = [last_note(f"t{number}", lambda: state[0]) for number in range(500)]
        first = [asyncio.ensure_future(each.write()) for each in notes]
        await asyncio.sleep(10)
        state[0] = "ended"
        await asyncio.gather(*(each.write() for each in notes), *first)
        await asyncio.sleep(1)

    run(scenario())
    times = [at for at, *_ in written.all]
    assert all(later - sooner >= 1 / MAX_NOTES_PER_SECOND - 1e-6 for sooner, later in itertools.pairwise(times))
    assert all(written.of(f"t{number}")[-1][1] == "ended" for number in range(500))
    assert len(asked) == len(written.all) < 600


@pytest.mark.parametrize("state", ["scheduled", "deferred", "deleted", OSError("the supervisor is gone")])
def test_no_note_of_a_kill_is_written_unless_the_task_has_ended(
    written: Written, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    """It would replace the note of the next try. An error of Airflow does not affect later notes."""
    ended(monkeypatch, state)

    async def scenario() -> None:
        await last_note("t", lambda: "ended").write()
        ended(monkeypatch)
        await last_note("u", lambda: "ended").write()
        await asyncio.sleep(1)

    run(scenario())
    assert [task for _, task, _ in written.all] == ["u"]
