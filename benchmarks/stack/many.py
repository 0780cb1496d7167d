"""Ten thousand waits on one triggerer, and before them as many that do nothing.

``python -m benchmarks.stack.many WAITS SECONDS RESULT``. They are instances of mapped tasks, a thousand in each of ten
DAG runs, because Airflow maps over at most 1,024 items by default. Each kind has its own new triggerer, so that neither
uses memory that the other has left.
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
from typing import Final, Literal

from airflow_jobflow.local.demo.home import interrupt_on_signals
from benchmarks.meters import versions
from benchmarks.stack.figures import Held, Many
from benchmarks.stack.meters import Blocks, cpu, pss
from benchmarks.stack.plan import DRAIN, IDLE_FOR, RUN, WATCHED
from benchmarks.stack.running import BenchStack
from benchmarks.stack.side import DAGS, await_end
from tests.stack.errors import StackError, eventually

BUDGET: Final = 5.0
"""Describe calls a second: the default."""
SETTLE: Final = 15.0
"""Seconds after the start of the last trigger until the triggerer has finished starting."""
WARM: Final = 4
"""Number of waits in a first run, after which everything that is loaded once has been loaded."""
PATIENCE: Final = 1500.0
FOREVER: Final = 10**7

SETTINGS: Final = {
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": str(WATCHED),
}


class Triggerer:
    """The only triggerer of a stack."""

    def __init__(self, stack: BenchStack) -> None:
        self._stack = stack
        self._instance = stack.instance("triggerer")
        self._blocks = Blocks(self._instance.log)

    def memory(self) -> dict[str, float]:
        """Return the current proportional set size of its processes in MB: the supervisor and the trigger runner."""
        supervisor, *others = self._instance.processes()
        return {"supervisor": pss(supervisor), "runner": sum(map(pss, others))}

    def cpu(self) -> float:
        """Return its CPU seconds since its start."""
        return cpu(self._stack)["triggerer"]

    def blocked(self) -> float:
        """Return the longest block of its event loop that Airflow has logged since the last call."""
        return self._blocks.longest()

    def renew(self) -> None:
        """Kill it, and start a new one."""
        self._stack.kill("triggerer")
        self._stack.start("triggerer")
        self._stack.await_healthy()


def hold(stack: BenchStack, kind: Literal["ours", "idle"], waits: int, seconds: float) -> Held:
    """Start waits, and let them run for a time."""
    triggerer, dag_id = Triggerer(stack), f"bench_{kind}"
    logs = Path(stack.instance("triggerer").environment["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])

    def begun(count: int) -> None:
        pattern = f"dag_id={dag_id}/run_id=*/task_id=wait/**/*.trigger.*.log"
        eventually(lambda: sum(1 for _ in logs.glob(pattern)) >= count, f"{count} begun", PATIENCE, every=2)

    fresh = triggerer.memory()
    stack.airflow.trigger(dag_id, "warm", {"waits": WARM, "first": waits})
    begun(WARM)
    time.sleep(SETTLE)
    triggerer.blocked()
    before, began = triggerer.memory(), time.monotonic()
    for number, first in enumerate(range(0, waits, RUN)):
        stack.airflow.trigger(dag_id, f"run-{number}", {"waits": min(RUN, waits - first), "first": first})
    begun(WARM + waits)
    begun_in = time.monotonic() - began
    time.sleep(SETTLE)
    blocked_beginning, all_begun = triggerer.blocked(), triggerer.memory()
    steady_from, used = time.monotonic(), triggerer.cpu()
    print(f"{kind}: {waits} begun in {begun_in:.0f} s, {before} {all_begun}, blocked {blocked_beginning}", flush=True)
    time.sleep(seconds)
    return Held(
        waits=waits,
        memory_fresh=fresh,
        memory_before=before,
        memory_begun=all_begun,
        memory_after=triggerer.memory(),
        begun_in=begun_in,
        steady=time.monotonic() - steady_from,
        cpu=triggerer.cpu() - used,
        blocked_beginning=blocked_beginning,
        blocked_steady=triggerer.blocked(),
    )


def forget(stack: BenchStack, dag_id: str) -> None:
    """Delete the waits that do nothing, which never end by themselves."""
    stack.sql("update task_instance set state = 'failed', trigger_id = null where dag_id = %s", dag_id)
    stack.sql("update dag_run set state = 'failed' where dag_id = %s", dag_id)
    stack.sql("delete from trigger")


def run(waits: int, seconds: float) -> Many:
    """Start the stack, and run waits that do nothing, and then ours to their end."""
    interrupt_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="jobflow-bench-"))
    settings = {**SETTINGS, "AIRFLOW__TRIGGERER__CAPACITY": str(waits + 100)}
    with BenchStack(directory, DAGS / "many", settings, {}) as stack:
        try:
            stack.prepare(["bench_ours", "bench_idle"])
            idle = hold(stack, "idle", waits, IDLE_FOR)
            stack.kill("triggerer")
            forget(stack, "bench_idle")
            Triggerer(stack).renew()
            time.sleep(SETTLE)
            stack.ask_aws("/plan", {"shortest": FOREVER, "longest": FOREVER})
            ours = hold(stack, "ours", waits, seconds)
            many = drain(stack, waits, idle, ours)
        except StackError:
            print(stack.tails(), file=sys.stderr)
            raise
        finally:
            stack.airflow.close()
    if many.lost:
        print(f"Some were lost; the logs are in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return many


def drain(stack: BenchStack, waits: int, idle: Held, ours: Held) -> Many:
    """End all jobs, and check that all waits end."""
    triggerer = Triggerer(stack)
    triggerer.blocked()
    state, now = stack.ask_aws("/state"), time.time()
    steady = [each for each in state["describes"] if each > now - state["began"] - ours.steady]
    stack.ask_aws("/end", {"seconds": DRAIN})
    runs = [f"run-{number}" for number in range(-(-waits // RUN))]
    for run_id in runs:
        await_end(stack, "bench_ours", run_id)
    drained = time.time() - now
    ends = {index: end for index, _, end in stack.ask_aws("/state")["jobs"]}
    rows = stack.sql(
        "select run_id, map_index, extract(epoch from end_date)::float from task_instance "
        "where dag_id = 'bench_ours' and run_id <> 'warm' and task_id = 'wait' and state = 'success'"
    )
    return Many(
        ours=ours,
        idle=idle,
        lost=waits - len(rows),
        describes_per_second=len(steady) / ours.steady,
        busiest=state["busiest"],
        budget=BUDGET,
        calls=sum(stack.ask_aws("/state")["calls"].values()),
        drain_seconds=drained,
        blocked_draining=triggerer.blocked(),
        delays=sorted(
            round(ended - ends[runs.index(run_id) * RUN + map_index], 3) for run_id, map_index, ended in rows
        ),
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the result."""
    many = run(int(arguments[0]), float(arguments[1]))
    Path(arguments[2]).write_text(json.dumps({"many": asdict(many), "versions": versions()}))


if __name__ == "__main__":
    main(sys.argv[1:])
