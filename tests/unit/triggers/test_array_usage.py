"""What the children of an array used: the trigger estimates it from the counts that it polls anyway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_jobflow.jobs.model import ArrayProgress, JobState, Snapshot
from airflow_jobflow.triggers import job
from airflow_jobflow.usage import job_usage

if TYPE_CHECKING:
    import pytest

RESOURCES = {"vcpu": 2.0, "gib": 4.0}
RATES = '{"q": {"vcpu_hour": 3.6}}'


def ended_array(monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """The last snapshot of an array in the event of its trigger, after children ran for 30 seconds in all."""

    class RunTime:
        """Stands in for the estimate, which has tests of its own."""

        def updated(self, array: ArrayProgress, now: float) -> float | None:
            """Return the seconds so far."""
            assert now > 0
            return 30.0 if array.succeeded else None

    monkeypatch.setattr(job, "ArrayRunTime", RunTime)
    trigger: Any = job.JobTrigger(service="batch", job_ids=["a"])
    trigger._run_times.default_factory = RunTime
    running = Snapshot("a", JobState.SUBMITTED, "PENDING", array=ArrayProgress(3, running=3))
    ended = Snapshot(
        "a", JobState.SUCCEEDED, "SUCCEEDED", array=ArrayProgress(3, succeeded=3), queue="x/q", resources=RESOURCES
    )

    async def poll() -> None:
        await trigger._record("a", running)
        await trigger._record("a", ended)

    asyncio.run(poll())
    return Snapshot.from_dict(trigger._seen["a"].to_dict())


def test_an_array_has_an_estimate_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the worker in the trigger's event, and has a cost where the queue has a rate."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__RATES", RATES)
    used = job_usage(ended_array(monkeypatch), "batch")
    assert used is not None
    assert (used.vcpu_seconds, used.gib_seconds, used.estimated, used.cost) == (60.0, 120.0, True, 0.06)


def test_rates_that_cannot_be_read_cost_only_the_cost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A typo in the configuration fails no task; one line says what is wrong."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__RATES", "{'q': 1}")
    used = job_usage(ended_array(monkeypatch), "batch")
    assert used is not None
    assert (used.vcpu_seconds, used.cost) == (60.0, None)
    assert "[jobflow] rates" in caplog.text
