"""A triggerer's watchers send metrics through Airflow, here to a StatsD server."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.observability.metrics import stats_utils

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.local import Faults
from airflow_jobflow.triggers.job import JobTrigger


def initialize() -> None:
    """Make Airflow read its metrics settings, as a triggerer does when it starts."""
    utils: Any = stats_utils
    if "export_legacy_names" in inspect.signature(stats.initialize).parameters:
        stats.initialize(factory=utils.get_stats_factory(), export_legacy_names=False)
    else:  # 3.2
        stats.initialize(factory=utils.get_stats_factory(stats))


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, list[float]]]]:
    """A StatsD server on this machine; returns the values it has received since the last call, by name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(listener.getsockname()[1]))
        initialize()

        def received() -> dict[str, list[float]]:
            found: dict[str, list[float]] = {}
            while True:
                try:
                    name, _, value = listener.recv(4096).decode().partition(":")
                except BlockingIOError:
                    return found
                found.setdefault(name.removeprefix("airflow."), []).append(float(value.partition("|")[0]))

        yield received
    monkeypatch.undo()
    initialize()


def test_the_watchers_send_their_metrics(own_kit: Any, here: Any, gate: Any, statsd: Any, eventually: Any) -> None:
    """Calls, described jobs, throttled calls, rate limit, waits, and the delay after a job's end."""
    here(own_kit.aws)
    job_ids = [own_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(3)]

    async def scenario() -> None:
        triggers = [
            JobTrigger(service="batch", job_ids=[job_id], aws_conn_id=None, poll_interval=0.2) for job_id in job_ids
        ]
        own_kit.aws.set_faults(Faults(calls_per_second=1))
        waiting = [asyncio.create_task(trigger.wait()) for trigger in triggers]
        await asyncio.to_thread(eventually, lambda: own_kit.aws.calls["batch.DescribeJobs"] >= 4)
        own_kit.aws.set_faults(Faults())
        gate.touch()
        await asyncio.gather(*waiting)

    asyncio.run(scenario())
    values = {name.removeprefix("jobflow.batch."): each for name, each in statsd().items() if "jobflow" in name}
    assert sum(values["describe_calls"]) == own_kit.aws.calls["batch.DescribeJobs"]
    assert sum(values["described_jobs"]) == 3 * sum(values["describe_calls"])
    assert sum(values["throttled_calls"]) >= 1
    assert min(values["calls_per_second"]) < 5  # after throttling
    assert max(values["waits"]) == 3
    assert values["waits"][-1] == 0
    assert len(values["end_to_event"]) == 3


def test_a_wait_for_several_jobs_measures_the_last_end(kit: Any, here: Any, gate: Any, statsd: Any) -> None:
    """The others may have ended hours before, without a delay of the event."""
    here(kit.aws)
    first, last = kit.sh("true"), kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    kit.wait(first)
    kit.wait(last, "RUNNING")
    trigger = JobTrigger(service="batch", job_ids=[first, last], aws_conn_id=None, poll_interval=0.2)

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(trigger.wait())
        gate.touch()
        return await waiting

    event = asyncio.run(scenario())
    assert [event["jobs"][job_id]["state"] for job_id in (first, last)] == ["SUCCEEDED"] * 2
    assert len(statsd()["jobflow.batch.end_to_event"]) == 1


def test_an_end_before_the_wait_is_not_measured(kit: Any, here: Any, statsd: Any) -> None:
    """Nothing waited for it, so there was no delay."""
    here(kit.aws)
    job_id = kit.sh("true")
    kit.wait(job_id)
    time.sleep(0.01)  # AWS reports milliseconds
    asyncio.run(JobTrigger(service="batch", job_ids=[job_id], aws_conn_id=None, poll_interval=0.2).wait())
    values = statsd()
    assert values["jobflow.batch.describe_calls"]
    assert "jobflow.batch.end_to_event" not in values
