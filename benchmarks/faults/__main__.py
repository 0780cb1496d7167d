"""How waits survive outages, many scopes and one slow connection: ``python -m benchmarks.faults``; see ``--help``.

Every run is a new process with a new stand-in for AWS on loopback. Waits are those of ``JobTrigger`` in one event loop,
as in a triggerer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import report, slow
from benchmarks.faults.plan import CONNECTIONS, KINDS, Delays, Endured, Scoped, outages, scopes
from benchmarks.figures import Process, Scenario
from benchmarks.runs import ROOT, environment, standin
from benchmarks.together import at_once, machine

HERE = Path(__file__).parent.parent

PARTS = ("outages", "scopes", "slow")

REPEATS = 5
"""How often the delays beside a slow connection are measured, alternating with those without one."""

AT_ONCE = 8
"""Number of concurrent runs, which need little CPU."""


def waiting(scenario: Scenario) -> tuple[dict[str, Any], Any]:
    """Run a scenario; return the measurements of the waiting process and the stand-in."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        result = Path(home) / "result.json"
        with standin(scenario) as aws:
            more = KINDS[scenario.outage].variables(aws.url) if scenario.outage else {}
            variables = {**environment(home, aws.url, scenario), **more}
            _module("waiters", [json.dumps(asdict(scenario)), str(result)], variables, scenario.longest + 600)
        return json.loads(result.read_text()), aws.meter


def _module(name: str, arguments: list[str], variables: dict[str, str], seconds: float) -> None:
    """Run one of the modules here in a separate process."""
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.faults.{name}", *arguments],
        cwd=ROOT,
        env={name: value for name, value in variables.items() if value},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=seconds,
    )


def endure(scenario: Scenario) -> Endured:
    """Run waits with an outage."""
    result, meter = waiting(scenario)
    told = [(end, at) for end, at in result["told"]]
    done = Endured(scenario, Process(**result["process"]), told, result["errors"], result["logged"], meter)
    worst = max(done.lateness, default=float("nan"))
    print(
        f"{scenario.outage} from {scenario.outage_from:g} to {scenario.outage_to:g} s: {done.lost} lost, "
        f"{meter.stops} stops, at most {worst:.2f} intervals late, {done.calls_meanwhile} calls during the fault, "
        f"{done.calls_after} in the minute after, {len(meter.credential_requests)} for credentials, "
        f"{meter.foreign} foreign; {result['errors'] or ''}",
        flush=True,
    )
    return done


def scoped(scenario: Scenario) -> Scoped:
    """Run waits in many scopes."""
    result, meter = waiting(scenario)
    done = Scoped(scenario, Process(**result["process"]), len(result["told"]), result["threads"], meter)
    counts = meter.by_scope.values()
    print(
        f"{scenario.scopes} scopes of {scenario.service}: {done.answered} answered, {done.rate:.2f} calls/s, busiest "
        f"second {meter.busiest()}, {done.threads} threads, {min(counts)} to {max(counts)} describes each",
        flush=True,
    )
    return done


def delayed(*, with_slow: bool) -> Delays:
    """Measure the delays of calls, with or without a slow connection beside them."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        result = Path(home) / "result.json"
        with standin(slow.SCENARIO) as aws:
            variables = {**environment(home, aws.url, slow.SCENARIO), **CONNECTIONS}
            _module("slow", ["with" if with_slow else "without", str(result)], variables, 120)
        done = Delays(**json.loads(result.read_text()))
    print(
        f"{'with' if with_slow else 'without'} a slow connection: {len(done.calls)} calls, p50 {done.part(0.5):.3f} s, "
        f"p99 {done.part(0.99):.3f} s, longest {done.calls[-1]:.3f} s; slow {done.slow}",
        flush=True,
    )
    return done


def merged(measured: Sequence[Delays]) -> Delays:
    """Return the delays of several measurements as one."""
    calls = sorted(delay for each in measured for delay in each.calls)
    first = sorted(delay for each in measured for delay in each.first)
    return Delays(calls, first, max((each.slow for each in measured if each.slow is not None), default=None))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section of the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quick run of a minute: fewer waits, shorter outages")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="seed of the jobs' durations (default: 1)")
    parser.add_argument("--remark", default="", help="a remark on these figures, for the report")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md (default: this one after a whole run)")
    options = parser.parse_args(arguments)

    parts = options.only or PARTS
    started = time.monotonic()
    endured: list[Endured] = []
    many: list[Scoped] = []
    delays: list[Delays] = []
    if "outages" in parts:
        planned = outages(options.seed, quick=options.quick)
        for first in range(0, len(planned), AT_ONCE):
            endured += at_once([partial(endure, scenario) for scenario in planned[first : first + AT_ONCE]])
    if "scopes" in parts:
        many = at_once([partial(scoped, scenario) for scenario in scopes(options.seed, quick=options.quick)])
    if "slow" in parts:
        times = 1 if options.quick else REPEATS
        pairs = [(delayed(with_slow=False), delayed(with_slow=True)) for _ in range(times)]
        delays = [merged(each) for each in zip(*pairs, strict=True)]
    whole = not options.quick and not options.only
    out = options.out or (HERE if whole else Path(tempfile.mkdtemp(prefix="jobflow-bench-")))
    conditions = report.Conditions(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine(),
        minutes=(time.monotonic() - started) / 60,
        load=os.getloadavg()[2],
        quick=options.quick,
        remark=options.remark,
    )
    print(f"wrote {report.write(endured, many, delays, conditions, out)}")


if __name__ == "__main__":
    main()
