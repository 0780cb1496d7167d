"""One side of the benchmark in a separate process: N waits in one event loop, as in a triggerer.

It runs in either environment. It imports all modules of its side, starts the stand-in's clock, and measures from there:
building triggers, clients and connections counts, importing does not. Log lines are formatted as in Airflow, and go to
standard output. It writes a ``Waited`` into the given file.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import cast

from benchmarks.figures import Scenario, Side, Waited
from benchmarks.meters import Meters
from benchmarks.services import MAKE, PRELOAD, RIGHT, Trigger

PATIENCE = 60.0
"""Seconds to wait for an event after the last job's end, in addition to three intervals."""


class Waiters:
    """All waits of one side, and their measurements.

    :param ends: for each job its end, in seconds since the epoch, and whether it fails.
    """

    def __init__(self, side: Side, scenario: Scenario, ends: dict[str, tuple[float, bool]]) -> None:
        self._side = side
        self._scenario = scenario
        self._ends = ends
        self.delays: list[float] = []
        self.told: list[tuple[float, float]] = []
        """For each wait with the right result, when its job ended and when this was known, since the epoch."""
        self.wrong = 0
        self.errors: Counter[str] = Counter()
        """The wrong results of the other waits."""

    async def run(self) -> None:
        """Start all waits the way a triggerer does, letting others run in between, and see them through."""
        waits = []
        for key in self._ends:
            waits.append(asyncio.create_task(self._wait(self.make(key), key)))
            await asyncio.sleep(0)
        last_end = max(end for end, _ in self._ends.values())
        patience = last_end - time.time() + 3 * self._scenario.interval + PATIENCE
        done, unanswered = await asyncio.wait(waits, timeout=patience)
        for wait in unanswered:
            wait.cancel()
        errors = [error for wait in done if (error := wait.exception())]
        self.wrong += len(errors)
        self.errors.update(repr(error) for error in errors)
        for error in errors[:3]:
            print(repr(error), file=sys.stderr)

    def make(self, key: str) -> Trigger:
        """Make the trigger of one job."""
        return MAKE[self._side](self._scenario, key)

    async def _wait(self, trigger: Trigger, key: str) -> None:
        async for event in trigger.run():
            told_at = time.time()
            end, fails = self._ends[key]
            if told_at >= end and RIGHT[self._side](self._scenario, key, event.payload, fails):
                self.delays.append(told_at - end)
                self.told.append((end, told_at))
            else:
                self.wrong += 1
                self.errors[str(event.payload.get("errors"))[-300:]] += 1


def start_clock() -> dict[str, tuple[float, bool]]:
    """Start the stand-in's clock, and return for each job its end and whether it fails."""
    start = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/start", method="POST")
    with urllib.request.urlopen(start) as answer:
        return cast("dict[str, tuple[float, bool]]", json.load(answer))


def main(side: Side, scenario: Scenario) -> Waited:
    """Import, start the clock, wait and measure."""
    for module in PRELOAD[side](scenario.service):
        importlib.import_module(module)
    waiters = Waiters(side, scenario, start_clock())
    meters = Meters()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meters.selector)) as runner:
        runner.run(waiters.run())
    return Waited(meters.read(), sorted(round(delay, 3) for delay in waiters.delays), waiters.wrong)


if __name__ == "__main__":
    result = main(cast("Side", sys.argv[1]), Scenario(**json.loads(sys.argv[2])))
    Path(sys.argv[3]).write_text(json.dumps(asdict(result)))
