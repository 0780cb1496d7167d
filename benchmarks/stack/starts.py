"""Many operators that start in one triggerer, which is killed twice meanwhile: duplicates, lost tasks, blocks.

``python -m benchmarks.stack.starts WAITS RESULT``.

They are instances of mapped tasks, a thousand in each DAG run. The triggerer is killed when a third of the jobs are
submitted, and again when two thirds are. Airflow's own timers come first, for comparison, in a triggerer of their own.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from airflow_jobflow.local.demo.home import interrupt_on_signals
from benchmarks.meters import versions
from benchmarks.stack.figures import Starts
from benchmarks.stack.many import PATIENCE, SETTINGS, WARM, Triggerer
from benchmarks.stack.plan import LONGEST, RUN, SHORTEST
from benchmarks.stack.running import BenchStack
from benchmarks.stack.side import DAGS, await_end
from tests.stack.errors import StackError, eventually

KILLED_AT: Final = (1 / 3, 2 / 3)
"""At which parts of all submits the triggerer is killed."""


def runs(stack: BenchStack, dag_id: str, waits: int) -> list[str]:
    """Trigger the DAG runs, and return their ids."""
    made = []
    for number, first in enumerate(range(0, waits, RUN)):
        made.append(f"run-{number}")
        stack.airflow.trigger(dag_id, made[-1], {"waits": min(RUN, waits - first), "first": first})
    return made


def submitted(stack: BenchStack) -> int:
    """Return how many jobs were submitted."""
    return int(stack.ask_aws("/state")["submitted"])


def killed(stack: BenchStack, waits: int) -> list[int]:
    """Kill the triggerer, and start a new one, each time when a part of the jobs are submitted."""
    killed_at = []
    for part in KILLED_AT:
        wanted = int(part * waits)
        eventually(lambda wanted=wanted: submitted(stack) >= wanted, f"{wanted} submits", PATIENCE, every=0.2)  # type: ignore[misc]
        stack.kill("triggerer")
        killed_at.append(submitted(stack))
        print(f"killed the triggerer after {killed_at[-1]} submits", flush=True)
        stack.start("triggerer")
    return killed_at


def run(waits: int) -> Starts:
    """Start the stack, and measure."""
    interrupt_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="jobflow-bench-"))
    settings = {**SETTINGS, "AIRFLOW__TRIGGERER__CAPACITY": str(waits + 100)}
    with BenchStack(directory, DAGS / "jobflow", settings, {}) as stack:
        try:
            stack.prepare(["bench_started", "bench_floor_start"])
            stack.airflow.trigger("bench_started", "warm", {"waits": WARM})
            await_end(stack, "bench_started", "warm")
            triggerer = Triggerer(stack)
            triggerer.blocked()
            for run_id in runs(stack, "bench_floor_start", waits):
                await_end(stack, "bench_floor_start", run_id)
            floor_blocked = triggerer.blocked()
            triggerer.renew()
            stack.ask_aws("/plan", {"shortest": SHORTEST, "longest": LONGEST, "seed": 1})
            triggerer.blocked()
            began = time.monotonic()
            run_ids = runs(stack, "bench_started", waits)
            killed_at = killed(stack, waits)
            for run_id in run_ids:
                await_end(stack, "bench_started", run_id)
            seconds, blocked = time.monotonic() - began, triggerer.blocked()
            rows = stack.sql(
                "select coalesce(hostname, '') <> '' from task_instance where dag_id = 'bench_started' "
                "and run_id <> 'warm' and task_id = 'wait' and state = 'success'"
            )
            aws = stack.ask_aws("/state")
        except StackError:
            print(stack.tails(), file=sys.stderr)
            raise
        finally:
            stack.airflow.close()
    starts = Starts(
        waits=waits,
        succeeded=len(rows),
        on_workers=sum(on_worker for (on_worker,) in rows),
        started=aws["submitted"],
        twice=aws["twice"],
        killed_at=killed_at,
        seconds=seconds,
        blocked=blocked,
        floor_blocked=floor_blocked,
        calls=aws["calls"],
    )
    if starts.lost or starts.twice:
        print(f"{starts.lost} were lost, {starts.twice} started twice; the logs are in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return starts


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the result."""
    starts = run(int(arguments[0]))
    Path(arguments[1]).write_text(json.dumps({"starts": asdict(starts), "versions": versions()}))


if __name__ == "__main__":
    main(sys.argv[1:])
