"""The effect of one connection whose client is built slowly on others: ``python -m benchmarks.faults.slow
with|without``.

Its role is assumed through an STS that takes twelve seconds. Meanwhile, other connections are used for the first time,
one after the other, and make calls at a constant rate.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults.connections import known
from benchmarks.faults.plan import CONNECTION, Delays
from benchmarks.figures import Scenario
from benchmarks.services import PRELOAD
from benchmarks.standin.outage import CONNECTION_KEY
from benchmarks.waiters import start_clock

CONNECTIONS = 20
"""Fast connections that are used for the first time one after the other."""

EVERY = 0.5
"""Seconds between the first calls of two connections, and between two calls of one."""

SECONDS = 16.0
"""Duration of the calls; the slow client is built within it."""

SLOW = {**CONNECTION, "extra": {"region_name": "eu-central-1", "role_arn": "arn:aws:iam::123456789012:role/slow"}}


async def measure(job_id: str, *, slow: bool) -> Delays:
    """Make calls with all connections, and return their durations."""
    from airflow_jobflow.aws import Access, Rate, run, service_client
    from airflow_jobflow.jobs import batch

    begin = time.perf_counter()
    first: list[float] = []
    others: list[float] = []

    async def call(conn_id: str) -> float:
        began = time.perf_counter()
        client = service_client(Access(aws_conn_id=conn_id), "batch")
        await run(client, batch.describe, [job_id], None, rate=Rate.ACTION)
        return time.perf_counter() - began

    async def quick(number: int) -> None:
        await asyncio.sleep(number * EVERY)
        first.append(await call(f"quick-{number}"))
        while time.perf_counter() - begin < SECONDS:
            await asyncio.sleep(EVERY)
            others.append(await call(f"quick-{number}"))

    async with asyncio.TaskGroup() as group:
        delay = group.create_task(call("slow")) if slow else None
        for number in range(CONNECTIONS):
            group.create_task(quick(number))
    return Delays(sorted([*first, *others]), sorted(first), delay.result() if delay else None)


def main(*, slow: bool) -> dict[str, Any]:
    """Import, start the clock and measure."""
    known.update({f"quick-{number}": {**CONNECTION, "login": f"{CONNECTION_KEY}"} for number in range(CONNECTIONS)})
    known["slow"] = SLOW
    for module in PRELOAD["jobflow"]("batch"):
        importlib.import_module(module)
    return asdict(asyncio.run(measure(next(iter(start_clock())), slow=slow)))


SCENARIO = Scenario(1, shortest=3600, longest=3600, interval=10)

if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(slow=sys.argv[1] == "with")))
