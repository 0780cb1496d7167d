"""The beat of a map, on a scripted clock, with a scripted round trip through the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow.airflow_compat import is_deferred
from airflow_jobflow.aws import Access
from airflow_jobflow.jobs import batch_map
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.maps import calls, ownership
from airflow_jobflow.maps.calls import MapCalls, OwnershipLost
from airflow_jobflow.maps.ownership import NEVER, heartbeats
from tests.unit.polling.scripted import now, run, until

LATENCY = 0.5
"""Seconds that a supervisor takes that has nothing else to do."""


@pytest.fixture(autouse=True)
def _scripted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ownership, calls):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=now))


class Supervisor:
    """Answers one question after the other, in the way that a test says.

    :param script: what the next questions come to: seconds until the answer, an answer, or an error.
    """

    def __init__(self, *script: float | bool | Exception) -> None:
        self.asked: list[float] = []
        self._script = iter(script)

    async def ask(self) -> bool:
        """Answer a question; that the task still waits, if the script is over."""
        self.asked.append(now())
        planned = next(self._script, LATENCY)
        if isinstance(planned, Exception):
            raise planned
        await asyncio.sleep(LATENCY if isinstance(planned, bool) else planned)
        return planned is not False


def noted(ask: Callable[[], Awaitable[bool]] | None, *, wanted: bool = True, seconds: float = 9.0) -> list[float]:
    """Let it beat for some seconds, and return what was noted."""
    notes: list[float] = []

    async def story() -> None:
        beating = asyncio.create_task(heartbeats(ask, is_needed=lambda: wanted, on_heartbeat=notes.append))
        await until(seconds)
        beating.cancel()
        await asyncio.wait([beating])

    run(story())
    return notes


def test_a_beat_counts_from_when_it_was_asked_for() -> None:
    """An answer that was under way for long says nothing of now."""
    assert noted(Supervisor(LATENCY, 20.0).ask, seconds=26.0) == [0.0, 2.5, 24.5]


@pytest.mark.parametrize(("has_supervisor", "wanted"), [(False, True), (True, False)])
def test_nobody_is_asked_without_need(*, has_supervisor: bool, wanted: bool) -> None:
    """In a worker there is no supervisor's word to be had, and what only follows jobs needs none."""
    supervisor = Supervisor()
    assert noted(supervisor.ask if has_supervisor else None, wanted=wanted, seconds=5.0) == [0.0, 2.0, 4.0]
    assert not supervisor.asked


def test_an_error_is_no_answer_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is, the map itself goes on, and it is asked again."""
    supervisor = Supervisor(RuntimeError("no database"), KeyError("task_states"), LATENCY)
    assert noted(supervisor.ask, seconds=6.0) == [4.0]
    assert supervisor.asked == [0.0, 2.0, 4.0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no database" in caplog.text


def test_a_task_that_is_not_deferred_any_more_has_no_beat() -> None:
    """Its trigger is about to be cancelled."""
    assert noted(Supervisor(True, False, False).ask, seconds=7.0) == [0.0, NEVER, NEVER]


def map_calls() -> MapCalls:
    """Make the calls of a map that nobody answers."""
    return MapCalls(Access(None), "batch", None, batch_map.family("q", "n-0123abcd", {}))


def no_call(operation: str, **_: Any) -> Any:
    """Fail: nothing is to be called."""
    raise AssertionError(operation)


async def is_held_back(of_map: MapCalls) -> None:
    """Make sure that a start is held back."""
    with pytest.raises(OwnershipLost):
        of_map._start(no_call, {}, Start(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("latency", [0.0, 1.0, 6.0])
def test_beats_that_come_hold_nothing_back(latency: float) -> None:
    """Also where the supervisor has much else to do."""

    async def story() -> None:
        of_map = map_calls()
        supervisor = Supervisor(*[latency] * 99)
        beating = asyncio.create_task(
            heartbeats(supervisor.ask, is_needed=lambda: True, on_heartbeat=of_map.record_heartbeat)
        )
        for second in range(100):
            await until(second)
            assert of_map.heartbeat_is_fresh
        assert not of_map.ownership_lost
        beating.cancel()
        await asyncio.wait([beating])

    run(story())


@pytest.mark.parametrize("trouble", ["hangs", "fails"])
def test_a_start_is_held_back_long_before_another_triggerer_has_the_map(trouble: str) -> None:
    """Airflow gives it away 30 s after a heartbeat that was up to 5 s older than the last answer."""

    async def story() -> None:
        of_map = map_calls()
        script = [LATENCY, 40.0] if trouble == "hangs" else [LATENCY, *[RuntimeError("no database")] * 20]
        supervisor = Supervisor(*script)
        beating = asyncio.create_task(
            heartbeats(supervisor.ask, is_needed=lambda: True, on_heartbeat=of_map.record_heartbeat)
        )
        await until(14.9)
        assert of_map.heartbeat_is_fresh
        await until(15.1)
        await is_held_back(of_map)
        await until(46.0)
        assert of_map.heartbeat_is_fresh
        await is_held_back(of_map)  # an answer alone lets nothing go out: all is to be listed anew before
        beating.cancel()
        await asyncio.wait([beating])

    run(story())


def test_a_standstill_is_noted_where_nothing_was_to_be_started_in_it() -> None:
    """All other items had a job, and one ends only now."""

    async def story() -> None:
        of_map = map_calls()
        beating = asyncio.create_task(
            heartbeats(Supervisor(20.0).ask, is_needed=lambda: True, on_heartbeat=of_map.record_heartbeat)
        )
        await until(25.0)
        assert (of_map.ownership_lost, of_map.heartbeat_is_fresh) == (True, True)
        beating.cancel()
        await asyncio.wait([beating])

    run(story())


def test_nothing_is_started_for_a_task_that_is_not_deferred_any_more() -> None:
    """At once, not only after a while."""

    async def story() -> None:
        of_map = map_calls()
        beating = asyncio.create_task(
            heartbeats(Supervisor(True, False).ask, is_needed=lambda: True, on_heartbeat=of_map.record_heartbeat)
        )
        await until(3.1)
        await is_held_back(of_map)
        beating.cancel()
        await asyncio.wait([beating])

    run(story())


class Comms:
    """A supervisor at the other end of Airflow's line."""

    def __init__(self, states: dict[str, dict[str, Any]]) -> None:
        self.states = states
        self.asked: list[Any] = []

    async def asend(self, message: Any) -> Any:
        """Answer a message."""
        self.asked.append(message)
        return comms.TaskStatesResult(task_states=self.states)


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["deferred", "queued", None])
def test_the_state_that_counts_is_the_tasks_own(
    monkeypatch: pytest.MonkeyPatch, map_index: int, key: str, state: str | None
) -> None:
    """Of a mapped task, that of the one instance; and a run may be gone."""
    line = Comms({"r": {key: state, "t_4": "deferred"}} if state else {})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", line, raising=False)
    task = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=map_index)
    assert asyncio.run(is_deferred(task)) == (state == "deferred")
    [asked] = line.asked
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)
