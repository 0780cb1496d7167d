"""What it costs to wait for N AWS Batch jobs: this package against the Amazon provider's trigger, in one run.

Started from the repository's root by ``python -m benchmarks.waits``; see ``--help``. Every run is a fresh process of
waiters against a fresh stand-in for AWS on the loopback, so nothing is left over from the one before. Both sides wait
for the same jobs and are given answers of the same size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.environment import amazon_python
from benchmarks.figures import NAMES, Import, Meter, Results, Run, Scenario, Side, Waited
from benchmarks.report import write

HERE = Path(__file__).parent

IMPORTS: dict[Side, str] = {
    "jobflow": "airflow_jobflow.operators.batch",
    "amazon": "airflow.providers.amazon.aws.operators.batch",
}
IMPORT_TIMES = 9
"""Fresh processes that an import is measured in, after one that warms the caches."""

IMPORT = """
import sys, time
import airflow.sdk
started = time.perf_counter()
import {module}
print((time.perf_counter() - started) * 1000, "boto3" in sys.modules)
"""

Group = list[tuple[Side, Scenario]]
"""Runs that go on at the same time: only such as do not notice each other."""


def plan(seed: int, quick: bool) -> dict[str, list[Group]]:
    """Lay out the runs, by the part of the benchmark they belong to."""
    compared: Callable[[int], Scenario]
    if quick:
        compared = partial(Scenario, shortest=6, longest=12, interval=1, seed=seed)
        small, large = [compared(50)], compared(100)
        plain = Scenario(1000, shortest=6, longest=12, interval=3, seed=seed)
        throttled = Scenario(1000, shortest=6, longest=12, interval=2, budget=10, throttle=5, seed=seed)
    else:
        compared = partial(Scenario, shortest=60, longest=120, interval=5, seed=seed)
        small, large = [compared(100), compared(300)], compared(1000)
        plain = Scenario(10_000, shortest=60, longest=90, interval=30, seed=seed)
        throttled = Scenario(10_000, shortest=30, longest=60, interval=10, budget=50, throttle=20, seed=seed)
    theirs: list[Group] = [[("amazon", scenario)] for scenario in [*small, large]]
    ours: list[Group] = [
        [("jobflow", scenario) for scenario in small],  # they take hardly any CPU, and it saves two minutes
        [("jobflow", large)],
    ]
    return {"sides": theirs + ours, "many": [[("jobflow", plain)], [("jobflow", throttled)]]}


def run(side: Side, scenario: Scenario, python: Path) -> Run:
    """Run one side in one scenario, and say in a line how it went."""
    with (
        tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.standin", json.dumps(asdict(scenario))],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as standin,
    ):
        assert standin.stdout
        port = int(standin.stdout.readline())
        result = Path(home) / "result.json"
        subprocess.run(
            [str(python), "-m", "benchmarks.waiters", side, json.dumps(asdict(scenario)), str(result)],
            cwd=HERE.parent,
            env=_environment(home, port, scenario),
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=scenario.longest + 300,
        )
        metered, _ = standin.communicate()
        done = Run(side, scenario, Waited(**json.loads(result.read_text())), Meter(**json.loads(metered)))
    print(
        f"{NAMES[side]:>16}, {scenario.waits:>6,} waits: {done.answered:,} answered, {done.meter.total:,} calls, "
        f"{done.waited.cpu:.1f} s CPU, {done.waited.memory:,.0f} MB, loop blocked up to {done.waited.blocked:.3f} s, "
        f"delay p99 {done.waited.delay(0.99):.1f} s",
        flush=True,
    )
    return done


def _environment(home: str, port: int, scenario: Scenario) -> dict[str, str]:
    """The whole environment of a side: nothing of the user's Airflow or AWS gets in."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "AIRFLOW_HOME": home,
        "AIRFLOW__JOBFLOW__DESCRIBE_CALLS_PER_SECOND": str(scenario.budget),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def measure_import(side: Side, python: Path) -> Import:
    """Import a side's operators in fresh processes, and take the median."""
    module = IMPORTS[side]
    times, boto3 = [], False
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        for _ in range(IMPORT_TIMES + 1):
            done = subprocess.run(
                [str(python), "-c", IMPORT.format(module=module)],
                cwd=HERE.parent,
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


def machine() -> dict[str, str]:
    """Describe the machine this runs on."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "CPU": cpu[0] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 1024**2:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of a minute and a half: fewer waits, shorter jobs")
    parser.add_argument(
        "--only", choices=["imports", "sides", "many"], action="append", help="only this part; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="what the jobs' durations are drawn from (default: 1)")
    parser.add_argument(
        "--out", type=Path, help="folder for RESULTS.md (default: this one after a whole run, else a temporary one)"
    )
    options = parser.parse_args(arguments)

    parts = options.only or ["imports", "sides", "many"]
    whole = not options.quick and not options.only
    started = time.monotonic()
    pythons: dict[Side, Path] = {"jobflow": Path(sys.executable)}
    if set(parts) & {"imports", "sides"}:
        pythons["amazon"] = amazon_python()
    imports: dict[Side, Import] = {}
    if "imports" in parts:
        imports = {side: measure_import(side, python) for side, python in pythons.items()}
    runs: list[Run] = []
    for part, groups in plan(options.seed, options.quick).items():
        for group in groups if part in parts else ():
            with ThreadPoolExecutor(len(group)) as pool:
                runs += pool.map(lambda each: run(each[0], each[1], pythons[each[0]]), group)
    minutes = (time.monotonic() - started) / 60
    results = Results(f"{datetime.now(UTC):%Y-%m-%d}", machine(), runs, imports, minutes, options.quick)
    out = options.out or (HERE if whole else Path(tempfile.mkdtemp(prefix="jobflow-bench-")))
    print(f"{minutes:.1f} minutes; wrote {write(results, out)}")


if __name__ == "__main__":
    main()
