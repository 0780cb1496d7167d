"""Waits with an outage, or with many scopes, in a separate process: ``python -m benchmarks.faults.waiters SCENARIO
RESULT``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults.plan import LIFETIME
from benchmarks.figures import Scenario
from benchmarks.meters import Meters
from benchmarks.services import PRELOAD
from benchmarks.waiters import Waiters, start_clock

SAMPLE = 0.5
"""Seconds between two samples of the number of threads."""


class Warnings(logging.Handler):
    """Counts warnings and errors by their message."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        self.count[f"{record.levelname} {record.name}: {str(record.msg)[:150]}"] += 1


def threads() -> int:
    """Return the number of threads of this process."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


async def most_threads(most: list[int]) -> None:
    """Record the maximum number of threads of this process, until cancelled."""
    while True:
        most[0] = max(most[0], threads())
        await asyncio.sleep(SAMPLE)


async def run(waiters: Waiters, most: list[int]) -> None:
    """Run the waits to their end."""
    sampling = asyncio.create_task(most_threads(most))
    await waiters.run()
    sampling.cancel()


def fail_lookups(scenario: Scenario, began: float) -> None:
    """Let lookups of connections fail during the outage."""
    from airflow_jobflow.aws import boto3_client
    from benchmarks.faults.connections import outage

    outage.begin, outage.end = began + scenario.outage_from, began + scenario.outage_to
    if scenario.outage_from:
        boto3_client.LIFETIME = LIFETIME  # otherwise a client is rebuilt once in a quarter of an hour


def main(scenario: Scenario) -> dict[str, Any]:
    """Import, start the clock, wait, and return the result."""
    for module in PRELOAD["jobflow"](scenario.service):
        importlib.import_module(module)
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    ends = start_clock()
    began = time.time()
    if scenario.outage.startswith("connection"):
        fail_lookups(scenario, began)
    waiters = Waiters("jobflow", scenario, ends)
    most = [0]
    meters = Meters()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meters.selector)) as runner:
        runner.run(run(waiters, most))
    return {
        "process": asdict(meters.read()),
        "told": [(round(end - began, 3), round(told - began, 3)) for end, told in waiters.told],
        "errors": dict(waiters.errors),
        "logged": dict(warnings.count),
        "threads": most[0],
    }


if __name__ == "__main__":
    result = main(Scenario(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(result))
