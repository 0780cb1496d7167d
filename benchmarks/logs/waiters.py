"""Waits that copy the logs of their jobs, in a process of its own: ``python -m benchmarks.logs.waiters``.

Log lines are made as Airflow's triggerer makes them, JSON with the context of the task. They go to a file instead of
the supervisor, and are counted from it when the measuring is over.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.figures import Scenario, Side
from benchmarks.meters import Meters
from benchmarks.services import ATTEMPTS, PRELOAD, PROVIDER, Trigger
from benchmarks.standin.logs import RUNS
from benchmarks.waiters import Waiters, start_clock

PATTERN = re.compile(r"part +(\d+) of (\w+) at (\d+\.\d+)")

GROUP = "/ecs/nightly"


class LogWaiters(Waiters):
    """The waits of one side. Each has the log context of its own task, as in a triggerer."""

    def make(self, key: str) -> Trigger:
        """Make the trigger of one task."""
        return make(self._side, self._scenario, key)

    async def _wait(self, trigger: Trigger, key: str) -> None:
        from structlog.contextvars import bind_contextvars

        bind_contextvars(trigger_id=key.rpartition("/")[2], dag_id="d", task_id="t", run_id="r", map_index=-1)
        async for _ in trigger.run():
            end, _ = self._ends[key]
            self.delays.append(time.time() - end)


def make(side: Side, scenario: Scenario, key: str) -> Trigger:
    """Make the trigger of one side for one task."""
    _, cluster, task = key.split("/")
    if side == "jobflow":
        from airflow_jobflow.triggers.job import JobTrigger

        ours: Any = JobTrigger(
            service="ecs",
            scope=cluster,
            job_ids=[key],
            aws_conn_id=None,
            poll_interval=scenario.interval,
            stream_logs=True,
        )
        ours.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)  # as in a triggerer
        return cast("Trigger", ours)
    kind = importlib.import_module(f"{PROVIDER}.triggers.ecs").TaskDoneTrigger
    where = {"cluster": cluster, "task_arn": key, "log_group": GROUP, "log_stream": f"model/model/{task}"}
    how = {"waiter_delay": scenario.interval, "waiter_max_attempts": ATTEMPTS, "aws_conn_id": None}
    return cast("Trigger", kind(**where, **how, region_name=None))


def copied(log: Path) -> Iterator[tuple[str, int, str, float, float]]:
    """Yield the copied lines: the task whose log they are in, number, the task that wrote them, when, and the delay."""
    with log.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            at = datetime.fromisoformat(record["timestamp"]).timestamp()
            for number, task, written in PATTERN.findall(str(record.get("event"))):
                yield str(record.get("trigger_id")), int(number), task, float(written), at - float(written)


def count(log: Path, scenario: Scenario, ends: dict[str, tuple[float, bool]]) -> dict[str, Any]:
    """Return how many lines are in the right log, in a wrong one and more than once, and the delays."""
    seen: set[tuple[str, int]] = set()
    wrong = twice = 0
    delays: list[float] = []
    began = 0.0
    for of, number, task, written_at, delay in copied(log):
        end, _ = next(each for key, each in ends.items() if key.endswith(task)) if not began else (0.0, False)
        began = began or (written_at - number / scenario.lines_per_second - RUNS[0] * end) / (1 - RUNS[0])
        wrong += of != task
        twice += (task, number) in seen
        seen.add((task, number))
        delays.append(round(delay, 3))
    # As the stand-in counts; the times in lines are rounded to milliseconds.
    part = (RUNS[1] - RUNS[0]) * scenario.lines_per_second
    written = sum(int((end - began) * part + 0.005) for end, _ in ends.values())
    return {"written": written, "copied": len(seen), "wrong": wrong, "twice": twice, "line_delays": sorted(delays)}


def main(side: Side, scenario: Scenario, log: Path) -> dict[str, Any]:
    """Import, start the clock, wait, and return what was measured."""
    from airflow.sdk.log import configure_logging, reset_logging

    for module in PRELOAD[side]("ecs"):
        importlib.import_module(module)
    with log.open("wb", buffering=0) as output:
        reset_logging()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        configure_logging(json_output=True, output=output)
        ends = start_clock()
        waiters = LogWaiters(side, scenario, ends)
        meters = Meters()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meters.selector)) as runner:
            runner.run(waiters.run())
        process = asdict(meters.read())
    counted = count(log, scenario, ends)
    return {"process": process, "answered": len(waiters.delays), "errors": dict(waiters.errors), **counted}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    result = main(cast("Side", arguments[0]), Scenario(**json.loads(arguments[1])), Path(arguments[2]) / "log")
    (Path(arguments[2]) / "result.json").write_text(json.dumps(result))
