"""One side of the benchmark, in a process of its own: N waits in one event loop, as a triggerer holds them.

Runs in either environment. It imports all that its side needs, starts the stand-in's clock, and measures from there:
building triggers, clients and connections counts, importing does not. Log lines are made as Airflow sets it up, and
go to standard output. Writes a ``Waited`` into the file it is given.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import json
import math
import os
import platform
import selectors
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.figures import Scenario, Side, Waited

PATIENCE = 60.0
"""Seconds after the last job's end, and three intervals, for which an answer is waited for."""

PRELOAD: dict[Side, tuple[str, ...]] = {
    "jobflow": (
        "airflow_jobflow.triggers.job",
        "airflow_jobflow.jobs.batch",
        "airflow.providers.amazon.aws.hooks.base_aws",
        "boto3.session",
        "botocore.handlers",
    ),
    "amazon": (
        "airflow.providers.amazon.aws.triggers.batch",
        "airflow.providers.amazon.aws.hooks.batch_client",
        "airflow.providers.amazon.aws.waiters.base_waiter",
        "aiobotocore.session",
        "aiobotocore.httpsession",
        "boto3.session",
        "botocore.handlers",
    ),
}
"""What a side would otherwise import while it waits."""

PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "airflow-jobflow", "boto3", "botocore", "aiobotocore")


class Trigger(Protocol):
    """As much of Airflow's triggers as a triggerer needs."""

    def run(self) -> AsyncIterator[Any]:
        """Wait, and fire an event."""


def make_jobflow(scenario: Scenario, job_id: str) -> Trigger:
    """Make our trigger for one job."""
    from airflow_jobflow.triggers.job import JobTrigger

    return JobTrigger(service="batch", job_ids=[job_id], aws_conn_id=None, poll_interval=scenario.interval)


def make_amazon(scenario: Scenario, job_id: str) -> Trigger:
    """Make the Amazon provider's trigger for one job."""
    from airflow.providers.amazon.aws.triggers.batch import BatchJobTrigger

    return BatchJobTrigger(job_id=job_id, aws_conn_id=None, waiter_delay=scenario.interval, waiter_max_attempts=720)


def failed_jobflow(job_id: str, payload: dict[str, Any]) -> bool:
    """Whether our event says that the job failed."""
    return bool(payload["jobs"][job_id]["state"] == "FAILED")


def failed_amazon(job_id: str, payload: dict[str, Any]) -> bool:
    """Whether the Amazon provider's event says that the job failed."""
    return bool(payload["job_id"] == job_id and payload["status"] == "error")


MAKE: dict[Side, Callable[[Scenario, str], Trigger]] = {"jobflow": make_jobflow, "amazon": make_amazon}
FAILED: dict[Side, Callable[[str, dict[str, Any]], bool]] = {"jobflow": failed_jobflow, "amazon": failed_amazon}


class Waiters:
    """All waits of one side, and what is measured of them.

    :param ends: for each job when it ends, in seconds since the epoch, and whether it fails.
    """

    def __init__(self, side: Side, scenario: Scenario, ends: dict[str, tuple[float, bool]]) -> None:
        self._side = side
        self._scenario = scenario
        self._ends = ends
        self.delays: list[float] = []
        self.wrong = 0

    async def run(self) -> None:
        """Start all waits the way a triggerer does, letting others run in between, and see them through."""
        waits = []
        for job_id in self._ends:
            waits.append(asyncio.create_task(self._wait(MAKE[self._side](self._scenario, job_id), job_id)))
            await asyncio.sleep(0)
        last_end = max(end for end, _ in self._ends.values())
        patience = last_end - time.time() + 3 * self._scenario.interval + PATIENCE
        done, unanswered = await asyncio.wait(waits, timeout=patience)
        for wait in unanswered:
            wait.cancel()
        errors = [error for wait in done if (error := wait.exception())]
        self.wrong += len(errors)
        for error in errors[:3]:
            print(repr(error), file=sys.stderr)

    async def _wait(self, trigger: Trigger, job_id: str) -> None:
        async for event in trigger.run():
            told_at = time.time()
            end, fails = self._ends[job_id]
            if told_at >= end and FAILED[self._side](job_id, event.payload) == fails:
                self.delays.append(told_at - end)
            else:
                self.wrong += 1


class MeteredSelector(selectors.DefaultSelector):
    """Times how long the event loop is away from its selector: what is then due, or has arrived, must wait.

    A probe task would do, but its wake-ups cost more CPU than our side's waits.
    """

    longest = 0.0
    _left: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as ever; the loop counts as away from when it should have gone on."""
        now = time.perf_counter()
        if self._left is not None:
            self.longest = max(self.longest, now - self._left)
        ready = super().select(timeout)
        due = math.inf if timeout is None else now + max(0.0, timeout)
        self._left = min(due, time.perf_counter())
        return ready


class Collections:
    """Times the garbage collector's pauses."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        else:
            self.longest = max(self.longest, now - self._began)


def _full_collection() -> float:
    gc.collect()
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began


def _memory(field: str) -> float:
    """Resident memory of this process in MB: ``VmRSS`` now, ``VmHWM`` at the most since ``_forget_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(side: Side, scenario: Scenario) -> Waited:
    """Import, start the clock, wait and measure."""
    for module in PRELOAD[side]:
        importlib.import_module(module)
    start = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/start", method="POST")
    with urllib.request.urlopen(start) as answer:
        ends: dict[str, tuple[float, bool]] = json.load(answer)
    waiters = Waiters(side, scenario, ends)
    before = set(sys.modules)
    selector = MeteredSelector()
    collected_before = _full_collection()
    collections = Collections()
    _forget_peak()
    memory, cpu = _memory("VmRSS"), time.process_time()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(waiters.run())
    return Waited(
        cpu=time.process_time() - cpu,
        memory=_memory("VmHWM") - memory,
        # The collector stops all threads; where the loop had nothing to do just then, its selector has not noticed.
        blocked=max(selector.longest, collections.longest),
        collected=collections.longest,
        collected_before=collected_before,
        delays=sorted(round(delay, 3) for delay in waiters.delays),
        wrong=waiters.wrong,
        versions=_versions(),
        late_imports=sorted(set(sys.modules) - before),
    )


if __name__ == "__main__":
    result = main(cast("Side", sys.argv[1]), Scenario(**json.loads(sys.argv[2])))
    Path(sys.argv[3]).write_text(json.dumps(asdict(result)))
