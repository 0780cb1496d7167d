"""One side in its own stack: ``python -m benchmarks.stack.side SIDE WAITS RESULT``, in that side's environment."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

from airflow_jobflow.local.demo.home import interrupt_on_signals
from benchmarks.figures import Side
from benchmarks.meters import versions
from benchmarks.stack.figures import KINDS, NOT_COUNTED, Kind, Waits
from benchmarks.stack.meters import Peaks, cpu, picked_up
from benchmarks.stack.plan import LONGEST, SCALE, SHORTEST
from benchmarks.stack.running import BenchStack
from tests.stack.errors import StackError, eventually

DAGS: Final = Path(__file__).parents[1] / "dags"
WARM: Final = 4
"""Number of waits in a first run, which is not measured, because it fills caches."""
IDLE: Final = 30.0
"""Seconds for which the idle stack is measured."""
SETTLE: Final = 3.0
"""Seconds after the end of a run for its last processes to end."""
PATIENCE: Final = 1200.0
ENDED: Final = ("success", "failed")


def measure(stack: BenchStack, side: Side, kind: Kind, waits: int, idle: Mapping[str, float]) -> Waits:
    """Run one DAG of mapped waits to its end."""
    dag_id, run_id = f"bench_{kind}", f"{kind}-{waits}"
    stack.ask_aws("/plan", {"shortest": SHORTEST, "longest": LONGEST, "seed": 1})
    peaks = Peaks(stack, NOT_COUNTED)
    with peaks.sampled():
        before, began = cpu(stack), time.time()
        stack.airflow.trigger(dag_id, run_id, {"waits": waits})
        await_end(stack, dag_id, run_id)
        time.sleep(SETTLE)
        after = cpu(stack)
    [(ended,)] = stack.sql(
        "select extract(epoch from end_date)::float from dag_run where dag_id = %s and run_id = %s", dag_id, run_id
    )
    rows = stack.sql(
        "select map_index, extract(epoch from end_date)::float, coalesce(hostname, '') <> '' from task_instance "
        "where dag_id = %s and run_id = %s and task_id = 'wait' and state = 'success'",
        dag_id,
        run_id,
    )
    aws = stack.ask_aws("/state")
    ends = {index: end for index, _, end in aws["jobs"]}
    picks = picked_up(stack, dag_id, run_id)
    first = picks[0] if picks else 0.0
    submits = sorted(begun for _, begun, _ in aws["jobs"]) if kind in ("started", "fargate") else []
    return Waits(
        side=side,
        kind=kind,
        waits=waits,
        succeeded=len(rows),
        on_workers=sum(on_worker for _, _, on_worker in rows),
        seconds=ended - began,
        cpu={name: after[name] - before.get(name, 0.0) for name in after},
        idle=dict(idle),
        memory=dict(peaks.most),
        memory_together=peaks.together,
        calls=aws["calls"],
        twice=aws["twice"],
        delays=sorted(round(end - ends[index], 3) for index, end, _ in rows if index in ends),
        picked_up=[round(each - first, 3) for each in picks],
        submitted=[round(each - first, 3) for each in submits],
    )


def await_end(stack: BenchStack, dag_id: str, run_id: str) -> None:
    """Wait until a DAG run has ended.

    :raises StackError: it does not end.
    """

    def ended() -> bool:
        rows = stack.sql("select state from dag_run where dag_id = %s and run_id = %s", dag_id, run_id)
        return rows[0][0] in ENDED

    eventually(ended, f"the end of {dag_id} {run_id}", PATIENCE, every=1)


def at_rest(stack: BenchStack) -> dict[str, float]:
    """Return the CPU seconds per second of each service of the idle stack."""
    before = cpu(stack)
    time.sleep(IDLE)
    return {name: (after - before.get(name, 0.0)) / IDLE for name, after in cpu(stack).items()}


def run(side: Side, waits: int) -> list[Waits]:
    """Start the stack, and measure each kind of wait in it."""
    interrupt_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="jobflow-bench-"))
    with BenchStack(directory, DAGS / side, {}, SCALE) as stack:
        try:
            kinds: Sequence[Kind] = KINDS[side]
            stack.prepare([f"bench_{kind}" for kind in kinds])
            stack.ask_aws("/plan", {"shortest": 5, "longest": 5})
            for kind in kinds:
                stack.airflow.trigger(f"bench_{kind}", "warm", {"waits": WARM})
            for kind in kinds:
                await_end(stack, f"bench_{kind}", "warm")
            time.sleep(SETTLE)
            idle = at_rest(stack)
            found = [measure(stack, side, kind, waits, idle) for kind in kinds]
        except StackError:
            print(stack.tails(), file=sys.stderr)
            raise
        finally:
            stack.airflow.close()
    if all(each.succeeded == each.waits for each in found):
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"Not all have succeeded; the logs are in {directory}", file=sys.stderr)
    return found


if __name__ == "__main__":
    runs = [asdict(each) for each in run(cast("Side", sys.argv[1]), int(sys.argv[2]))]
    Path(sys.argv[3]).write_text(json.dumps({"runs": runs, "versions": versions()}))
