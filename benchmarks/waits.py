"""The cost of waiting for N jobs: this package compared with the Amazon provider's triggers; and maps.

Start it from the repository's root with ``python -m benchmarks.waits``; see ``--help``. Every run is a new process with
a new stand-in for AWS on loopback, so that nothing is left from the previous one. Both sides wait for the same jobs and
get responses of the same size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import benchmarks.faults.__main__ as faults
import benchmarks.logs.__main__ as logs
from benchmarks.environment import amazon_python
from benchmarks.figures import Import, MapRunner, Results, Run, Scenario, Side
from benchmarks.report import write
from benchmarks.runs import ROOT, run, run_map
from benchmarks.services import SERVICES
from benchmarks.standin.shapes import check
from benchmarks.together import at_once, machine

HERE = Path(__file__).parent

FAULTS, LOGS = "faults", "logs"
"""The parts that are separate benchmarks: ``benchmarks.faults`` and ``benchmarks.logs``."""

PARTS = (*SERVICES, "many", "maps", "imports", FAULTS, LOGS)

IMPORTS: dict[Side, str] = {
    "jobflow": "airflow_jobflow.operators.batch",
    "amazon": "airflow.providers.amazon.aws.operators.batch",
}
IMPORT_TIMES = 9
"""Number of new processes in which an import is measured, after one that fills the caches."""

IMPORT = """
import sys, time
import airflow.sdk
started = time.perf_counter()
import {module}
print((time.perf_counter() - started) * 1000, "boto3" in sys.modules)
"""


@dataclass(frozen=True)
class Plan:
    """Groups of runs; those of one group run concurrently."""

    theirs: list[list[Scenario]] = field(default_factory=list)
    ours: list[list[Scenario]] = field(default_factory=list)
    maps: list[list[tuple[Scenario, bool]]] = field(default_factory=list)
    """Maps, with whether the triggerer is killed in between."""


def plan(parts: Iterable[str], seed: int, *, quick: bool) -> Plan:
    """Return the runs of the given parts."""
    fewer: tuple[int, ...]
    if quick:
        compared = partial(Scenario, shortest=12, longest=20, interval=2, seed=seed)
        fewer, large = (50,), 100
        plain = Scenario(1000, shortest=6, longest=12, interval=3, seed=seed)
        throttled = Scenario(1000, shortest=6, longest=12, interval=2, budget=10, throttle=5, seed=seed)
        a_map = partial(Scenario, shortest=5, longest=10, interval=2, service="batch_map", latency=0.2, seed=seed)
        small_map, large_map = a_map(100), a_map(300)
    else:
        compared = partial(Scenario, shortest=60, longest=120, interval=5, seed=seed)
        fewer, large = (100, 300), 1000
        plain = Scenario(10_000, shortest=60, longest=90, interval=30, seed=seed)
        throttled = Scenario(10_000, shortest=30, longest=60, interval=10, budget=50, throttle=20, seed=seed)
        a_map = partial(Scenario, shortest=20, longest=40, interval=10, service="batch_map", latency=0.2, seed=seed)
        small_map, large_map = a_map(1000), a_map(10_000)
    result = Plan()
    together: list[Scenario] = []
    for service in (each for each in SERVICES if each in parts):
        shapes = (
            (10, 1) if service == "glue_run" else (1,)
        )  # the service of a run's job makes no difference for the other side
        result.theirs.append([compared(large, service=service, scopes=shapes[0])])
        together += [compared(large, service=service, scopes=scopes) for scopes in shapes]
    if "batch" in parts:
        result.theirs.append([compared(waits) for waits in fewer])
        together += [compared(waits) for waits in fewer]
    result.ours.extend([together] if together else [])
    if "many" in parts:
        result.ours.extend([[plain], [throttled]])
    if "maps" in parts:
        result.maps.extend([[(small_map, False), (small_map, True)], [(large_map, False)]])
    return result


def measure_import(side: Side, python: Path) -> Import:
    """Import a side's operators in new processes, and return the median."""
    module = IMPORTS[side]
    times, boto3 = [], False
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        for _ in range(IMPORT_TIMES + 1):
            done = subprocess.run(
                [str(python), "-c", IMPORT.format(module=module)],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": home, "AIRFLOW_HOME": home},
                capture_output=True,
                check=True,
                text=True,
                timeout=120,
            )
            milliseconds, loaded = done.stdout.split()[-2:]
            times.append(float(milliseconds))
            boto3 = boto3 or loaded == "True"
    figure = Import(module, statistics.median(times[1:]), boto3)
    print(f"import {module}: {figure.milliseconds:.0f} ms, boto3 loaded: {figure.boto3}", flush=True)
    return figure


def _out(folder: Path | None) -> list[str]:
    return [] if folder is None else ["--out", str(folder)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of a few minutes: fewer waits, shorter jobs")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="what the jobs' durations are drawn from (default: 1)")
    parser.add_argument(
        "--out", type=Path, help="folder for RESULTS.md (default: this one after a whole run, else a temporary one)"
    )
    options = parser.parse_args(arguments)

    parts = options.only or PARTS
    if FAULTS in parts:
        faults.main(["--seed", str(options.seed), *["--quick"] * options.quick, *_out(options.out)])
    if LOGS in parts:
        logs.main(["--seed", str(options.seed), *["--quick"] * options.quick, *_out(options.out)])
    if not set(parts) - {FAULTS, LOGS}:
        return
    whole = not options.quick and not options.only
    started = time.monotonic()
    print(f"{check()} answers of the stand-in are as botocore's models say", flush=True)
    pythons: dict[Side, Path] = {"jobflow": Path(sys.executable)}
    if set(parts) & {*SERVICES, "imports"}:
        pythons["amazon"] = amazon_python()
    imports: dict[Side, Import] = {}
    if "imports" in parts:
        imports = {side: measure_import(side, python) for side, python in pythons.items()}
    planned = plan(parts, options.seed, quick=options.quick)
    runs: list[Run] = []
    for group in planned.ours:
        runs += at_once([partial(run, "jobflow", scenario, pythons["jobflow"]) for scenario in group])
    for group in planned.theirs:
        runs += at_once([partial(run, "amazon", scenario, pythons["amazon"]) for scenario in group])
    maps: list[MapRunner] = []
    for maps_at_once in planned.maps:
        maps += at_once([partial(run_map, scenario, kill=kill) for scenario, kill in maps_at_once])
    minutes = (time.monotonic() - started) / 60
    results = Results(f"{datetime.now(UTC):%Y-%m-%d}", machine(), runs, maps, imports, minutes, options.quick)
    out = options.out or (HERE if whole else Path(tempfile.mkdtemp(prefix="jobflow-bench-")))
    print(f"{minutes:.1f} minutes; wrote {write(results, out)}")


if __name__ == "__main__":
    main()
