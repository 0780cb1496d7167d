"""The heartbeat of a map, on a scripted clock, with a scripted round trip through the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow.aws import Access
from airflow_jobflow.jobs import batch_map
from airflow_jobflow.jobs.calls import START_WITHIN
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.maps import ownership
from airflow_jobflow.maps.calls import MapCalls, OwnershipLost
from airflow_jobflow.maps.ownership import NEVER, heartbeats
from airflow_jobflow.task_states import TaskStates
from tests.unit.jobs.scripted_calls import ScriptedClient
from tests.unit.polling.scripted import now, run, until

LATENCY = 0.5
"""Seconds that an idle supervisor takes to respond."""


@pytest.fixture(autouse=True)
def _scripted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "time", SimpleNamespace(time=now))


class Supervisor:
    """Responds to queries one after the other, as scripted.

    :param script: the results of the next queries: seconds until the response, a response, or an error.
    """

    def __init__(self, *script: float | bool | Exception) -> None:
        self.asked: list[float] = []
        self._script = iter(script)

    async def ask(self) -> bool:
        """Respond to a query; after the script, that the task is still deferred."""
        self.asked.append(now())
        planned = next(self._script, LATENCY)
        if isinstance(planned, Exception):
            raise planned
        await asyncio.sleep(LATENCY if isinstance(planned, bool) else planned)
        return planned is not False


def recorded(query: Callable[[], Awaitable[bool]] | None, *, needed: bool = True, seconds: float = 9.0) -> list[float]:
    """Send heartbeats for some seconds, and return the recorded times."""
    times: list[float] = []

    async def scenario() -> None:
        sending = asyncio.create_task(heartbeats(query, is_needed=lambda: needed, on_heartbeat=times.append))
        await until(seconds)
        sending.cancel()
        await asyncio.wait([sending])

    run(scenario())
    return times


def test_a_heartbeat_counts_from_the_time_of_its_query() -> None:
    """A slow response says nothing about the current state."""
    assert recorded(Supervisor(LATENCY, 20.0).ask, seconds=26.0) == [0.0, 2.5, 24.5]


@pytest.mark.parametrize(("has_supervisor", "needed"), [(False, True), (True, False)])
def test_no_query_is_made_without_need(*, has_supervisor: bool, needed: bool) -> None:
    """A worker has no supervisor to query, and a map that starts no more items needs no confirmation."""
    supervisor = Supervisor()
    assert recorded(supervisor.ask if has_supervisor else None, needed=needed, seconds=5.0) == [0.0, 2.0, 4.0]
    assert not supervisor.asked


def test_a_failed_query_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The map continues, and the query is repeated."""
    supervisor = Supervisor(RuntimeError("no database"), KeyError("task_states"), LATENCY)
    assert recorded(supervisor.ask, seconds=6.0) == [4.0]
    assert supervisor.asked == [0.0, 2.0, 4.0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no database" in caplog.text


def test_a_task_that_is_no_longer_deferred_has_no_heartbeat() -> None:
    """Its trigger is about to be cancelled."""
    assert recorded(Supervisor(True, False, False).ask, seconds=7.0) == [0.0, NEVER, NEVER]


def map_calls() -> MapCalls:
    """Return the calls of a map without an AWS."""
    return MapCalls(Access(None), "batch", None, batch_map.job_group("q", "n-0123abcd", {}))


def no_call(operation: str, **_: Any) -> Any:
    """Fail: no call is expected."""
    raise AssertionError(operation)


async def assert_held_back(of_map: MapCalls) -> None:
    """Check that a start waits."""
    with pytest.raises(OwnershipLost):
        of_map._start(no_call, {}, Start(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("latency", [0.0, 1.0, 6.0])
def test_regular_heartbeats_hold_nothing_back(latency: float) -> None:
    """This also holds for a busy supervisor."""

    async def scenario() -> None:
        of_map = map_calls()
        supervisor = Supervisor(*[latency] * 99)
        sending = asyncio.create_task(
            heartbeats(supervisor.ask, is_needed=lambda: True, on_heartbeat=of_map.ownership.record)
        )
        for second in range(100):
            await until(second)
            assert of_map.ownership.is_confirmed
        assert not of_map.ownership.is_lost
        sending.cancel()
        await asyncio.wait([sending])

    run(scenario())


@pytest.mark.parametrize("trouble", ["hangs", "fails"])
def test_a_start_is_held_back_long_before_another_triggerer_has_the_map(trouble: str) -> None:
    """Airflow moves the map 30 s after the triggerer's last heartbeat, up to 5 s older than the last response."""

    async def scenario() -> None:
        of_map = map_calls()
        script = [LATENCY, 40.0] if trouble == "hangs" else [LATENCY, *[RuntimeError("no database")] * 20]
        supervisor = Supervisor(*script)
        sending = asyncio.create_task(
            heartbeats(supervisor.ask, is_needed=lambda: True, on_heartbeat=of_map.ownership.record)
        )
        await until(14.9)
        assert of_map.ownership.is_confirmed
        await until(15.1)
        await assert_held_back(of_map)
        await until(46.0)
        assert of_map.ownership.is_confirmed
        await assert_held_back(of_map)  # a response is not enough: the jobs must be listed again first
        sending.cancel()
        await asyncio.wait([sending])

    run(scenario())


def test_a_gap_is_detected_even_if_no_start_was_due() -> None:
    """All other items had a job, and one of them ends after the gap."""

    async def scenario() -> None:
        of_map = map_calls()
        sending = asyncio.create_task(
            heartbeats(Supervisor(20.0).ask, is_needed=lambda: True, on_heartbeat=of_map.ownership.record)
        )
        await until(25.0)
        assert (of_map.ownership.is_lost, of_map.ownership.is_confirmed) == (True, True)
        sending.cancel()
        await asyncio.wait([sending])

    run(scenario())


def test_no_item_is_started_for_a_task_that_is_no_longer_deferred() -> None:
    """Starts stop immediately, not only when the last heartbeat is too old."""

    async def scenario() -> None:
        of_map = map_calls()
        sending = asyncio.create_task(
            heartbeats(Supervisor(True, False).ask, is_needed=lambda: True, on_heartbeat=of_map.ownership.record)
        )
        await until(3.1)
        await assert_held_back(of_map)
        sending.cancel()
        await asyncio.wait([sending])

    run(scenario())


def test_a_start_must_follow_the_check_of_ownership_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is frozen in between must not send it when it wakes up: another triggerer has the map then."""
    monkeypatch.setattr("airflow_jobflow.maps.calls.time.time", lambda: 1000.0)
    client, seen = ScriptedClient(), []

    def submit_job(**_: Any) -> Any:
        seen.append(client.valid_until)
        return {"jobId": "a"}

    client.submit_job = submit_job  # type: ignore[attr-defined]
    monkeypatch.setattr(ownership, "time", SimpleNamespace(time=lambda: 1000.0))
    assert map_calls()._start(cast("Any", client), {}, Start(0)) == "a"
    assert seen == [1000.0 + START_WITHIN]


class Comms:
    """The supervisor at the other end of Airflow's connection."""

    def __init__(self, states: dict[str, dict[str, Any]]) -> None:
        self.states = states
        self.asked: list[Any] = []

    async def asend(self, message: Any) -> Any:
        """Respond to a message."""
        self.asked.append(message)
        return comms.TaskStatesResult(task_states=self.states)


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["deferred", "queued", None])
def test_only_the_tasks_own_state_counts(
    monkeypatch: pytest.MonkeyPatch, map_index: int, key: str, state: str | None
) -> None:
    """For a mapped task, it is the state of one instance. The run may be deleted."""
    line = Comms({"r": {key: state, "t_4": "deferred"}} if state else {})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", line, raising=False)
    task = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=map_index)
    assert asyncio.run(TaskStates().is_deferred(task)) == (state == "deferred")
    [asked] = line.asked
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)
