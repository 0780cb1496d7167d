"""Many triggers in one event loop share one watcher: its calls, and its behaviour under faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow import watchers
from airflow_jobflow.local import Faults
from airflow_jobflow.triggers.base import MIN_DEFERRAL
from airflow_jobflow.triggers.job import JobTrigger


def trigger(job_id: str, **arguments: Any) -> JobTrigger:
    """Return a trigger with a short poll interval."""
    return JobTrigger(
        **{"service": "batch", "job_ids": [job_id], "aws_conn_id": None, "poll_interval": 0.2, **arguments}
    )


async def all_of(triggers: list[JobTrigger]) -> list[dict[str, Any]]:
    """Run triggers side by side, as a triggerer does."""
    return list(await asyncio.gather(*(each.wait() for each in triggers)))


@pytest.fixture
def shared(own_kit: Any, here: Callable[[Any], None]) -> Any:
    """The test's own local AWS, which this process uses as AWS."""
    here(own_kit.aws)
    return own_kit


def state_of(event: dict[str, Any]) -> str:
    """Return the state of the only job of an event."""
    [job] = event["jobs"].values()
    return str(job["state"])


def test_a_hundred_waits_share_each_call(shared: Any, gate: Any) -> None:
    """There is one describe call per poll interval, not a hundred."""
    parent = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done", arrayProperties={"size": 100})
    ids = [f"{parent}:{index}" for index in range(100)]
    before = shared.aws.calls["batch.DescribeJobs"]

    async def scenario() -> list[dict[str, Any]]:
        waiting = asyncio.ensure_future(all_of([trigger(job_id) for job_id in ids]))
        await asyncio.sleep(1.5)
        gate.touch()
        return await waiting

    started = time.monotonic()
    events = asyncio.run(scenario())
    seconds = time.monotonic() - started
    assert [state_of(event) for event in events] == ["SUCCEEDED"] * 100
    # One call per poll interval, however busy the machine is. One call per wait would be 100 times that.
    assert shared.aws.calls["batch.DescribeJobs"] - before <= seconds / 0.2 + 3


def test_the_end_of_the_last_wait_closes_the_watcher(shared: Any) -> None:
    """The next wait gets a new one, even on another event loop."""
    for _ in range(2):
        job_id = shared.sh("true")
        assert state_of(asyncio.run(all_of([trigger(job_id)]))[0]) == "SUCCEEDED"
        assert watchers._watchers == {}


def test_different_connections_have_different_watchers(shared: Any, gate: Any) -> None:
    """Jobs of one region are not described in another."""
    job_id = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")

    async def scenario() -> int:
        waits = [asyncio.create_task(trigger(job_id, region_name=name).wait()) for name in (None, None, "eu-west-1")]
        before = shared.aws.calls["batch.DescribeJobs"]
        await asyncio.to_thread(shared.eventually, lambda: shared.aws.calls["batch.DescribeJobs"] > before + 4)
        count = len(watchers._watchers)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return count

    assert asyncio.run(scenario()) == 2


FAULTS = {
    "throttling": Faults(actions=("DescribeJobs",), calls_per_second=5),
    "5xx": Faults(actions=("DescribeJobs",), error_every=3),
    "dropped": Faults(actions=("DescribeJobs",), drop_every=3),
    "expired": Faults(expired_calls=2),
    "late": Faults(visible_after=1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_transient_fault_fails_a_wait(shared: Any, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Throttling, 5xx, dropped connections, expired credentials and late visibility are tested."""
    ids = [shared.sh(f"sleep 0.{n}") for n in range(8)]
    shared.aws.set_faults(FAULTS[fault])
    events = asyncio.run(all_of([trigger(job_id) for job_id in ids]))
    assert [state_of(event) for event in events] == ["SUCCEEDED"] * 8


def test_a_hanging_call_is_abandoned(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens after request_timeout. The wait ends once AWS responds again."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__REQUEST_TIMEOUT", "1")
    job_id = shared.sh("true")
    shared.aws.set_faults(Faults(actions=("DescribeJobs",), hang=60))

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(trigger(job_id).wait())
        await asyncio.sleep(2)
        shared.aws.set_faults(Faults())
        return await waiting

    assert state_of(asyncio.run(scenario())) == "SUCCEEDED"


def test_a_trigger_delays_its_event_after_a_deferral() -> None:
    """An earlier event would look like a dead task to the scheduler. Outside a triggerer, events are not delayed."""
    each = trigger("a", deferred_at=100.0)
    assert each.seconds_until_resumable(101.0) == 0
    each._task_instance = object()
    assert [each.seconds_until_resumable(now) for now in (100.0, 103.0, 100.0 + MIN_DEFERRAL)] == [
        MIN_DEFERRAL,
        MIN_DEFERRAL - 3,
        0,
    ]
