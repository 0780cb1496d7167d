"""What it costs to copy jobs' logs into the logs of their tasks: ``python -m benchmarks.logs``; see ``--help``.

200 Fargate tasks write five lines a second each. This package's ``JobTrigger`` with ``stream_logs=True`` against the
Amazon provider's ``TaskDoneTrigger``, which ``EcsRunTaskOperator`` with ``awslogs_group`` defers to.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.environment import amazon_python
from benchmarks.figures import NAMES, Meter, Process, Scenario, Side
from benchmarks.runs import ROOT, environment, standin
from benchmarks.standin.shapes import check
from benchmarks.tables import table, tick
from benchmarks.together import machine

HERE = Path(__file__).parent.parent

TITLE = "## Copying logs"

SECTION = re.compile(rf"\n*^{TITLE}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

NEXT = "## When AWS cannot be reached"
"""The heading of the next section."""

MAX_DELAY, MAX_STEP = 15.0, 0.1
"""Required of our side, in seconds: the p99 of the delay of a line, and the longest step of the event loop."""


@dataclass(frozen=True)
class Copied:
    """One side in one scenario."""

    side: Side
    scenario: Scenario
    process: Process
    meter: Meter
    answered: int
    """Number of waits that ended with an event, not with an exception."""
    written: int
    copied: int
    wrong: int
    """Lines in the log of another task."""
    twice: int
    line_delays: list[float]
    """Seconds from writing a line until it was logged; sorted."""

    def delay(self, part: float) -> float:
        """Return the delay that the given share of all lines does not exceed."""
        return self.line_delays[max(0, math.ceil(part * len(self.line_delays)) - 1)] if self.line_delays else math.nan

    def rows(self) -> list[str]:
        """Return the formatted figures."""
        reads = self.meter.times("GetLogEvents")
        return [
            f"{self.answered} of {self.scenario.waits}",
            f"{self.copied:,} of {self.written:,}",
            f"{self.wrong:,}",
            f"{self.twice:,}",
            f"{self.delay(0.5):.1f} s",
            f"{self.delay(0.99):.1f} s",
            f"{len(reads):,}",
            f"{self.meter.busiest('GetLogEvents')}",
            f"{self.meter.throttled:,}",
            f"{self.meter.total - len(reads) - self.meter.throttled:,}",
            f"{self.process.cpu:.1f} s",
            f"{self.process.memory:.0f} MB",
            f"{self.process.blocked:.3f} s",
            f"{self.process.blocked_cpu:.3f} s",
        ]

    def met(self) -> list[str]:
        """Return for each figure whether the requirement of our side is met."""
        whole = self.answered == self.scenario.waits, self.copied == self.written
        required: list[bool | None] = [*whole, self.wrong == 0, None, None, self.delay(0.99) <= MAX_DELAY]
        return [tick(each) for each in [*required, *[None] * 6, self.process.blocked <= MAX_STEP, None]]


ROWS = (
    "waits that ended well",
    "lines copied",
    "lines in a wrong log",
    "lines copied twice",
    "delay of a line, median",
    "delay of a line, p99",
    "`GetLogEvents` answered",
    "- in the busiest second",
    "- throttled",
    "other calls",
    "CPU",
    "memory",
    "longest step on the event loop",
    "- of which CPU of the loop's thread",
)


def run(side: Side, scenario: Scenario, python: Path) -> Copied:
    """Run one side in a new process with a new stand-in."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        with standin(scenario) as aws:
            subprocess.run(
                [str(python), "-m", "benchmarks.logs.waiters", side, json.dumps(asdict(scenario)), home],
                cwd=ROOT,
                env=environment(home, aws.url, scenario),
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=scenario.longest + 300,
            )
        assert aws.meter
        result: dict[str, Any] = json.loads((Path(home) / "result.json").read_text())
    errors, process = result.pop("errors"), Process(**result.pop("process"))
    done = Copied(side, scenario, process, aws.meter, **result)
    figures = ", ".join(f"{name}: {value}" for name, value in zip(ROWS, done.rows(), strict=True))
    print(f"{NAMES[side]}, throttled at {scenario.throttle}: {figures} {errors or ''}", flush=True)
    return done


def write(runs: Sequence[Copied], minutes: float, folder: Path, *, quick: bool, remark: str = "") -> Path:
    """Write the section into the report in a folder; return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "RESULTS.md"
    text = SECTION.sub("\n\n", report.read_text() if report.exists() else "# What waiting costs\n")
    before, heading, after = text.partition(NEXT)
    report.write_text(
        f"{before.rstrip()}\n\n{_section(runs, minutes, quick, remark)}\n\n{heading}{after}".rstrip() + "\n"
    )
    return report


def _section(runs: Sequence[Copied], minutes: float, quick: bool, remark: str) -> str:
    asked = runs[0].scenario
    about = ", ".join(f"{name}: {value}" for name, value in machine().items())
    names = [
        f"{NAMES[each.side]}{f', {each.scenario.throttle} calls/s' if each.scenario.throttle else ''}" for each in runs
    ]
    ours = next(each for each in runs if each.side == "jobflow" and each.scenario.throttle)
    columns = [each.rows() for each in runs]
    rows = [[name, *cells] for name, *cells in zip(ROWS, *columns, ours.met(), strict=True)]
    text = (
        f"{asked.waits} Fargate tasks of {asked.shortest:g} to {asked.longest:g} s write {asked.lines_per_second:g} "
        "lines a second each. `JobTrigger` with `stream_logs=True`, and the Amazon provider's `TaskDoneTrigger`, to "
        "which `EcsRunTaskOperator` with `awslogs_group` defers, each in one event loop, polling every "
        f"{asked.interval} s. AWS throttles `GetLogEvents` at 25 calls a second; in the runs marked so, the stand-in "
        "does, too. Log records are made as in Airflow's triggerer, and written to a file. Required of ours: every "
        f"line in the right log, p99 at most {MAX_DELAY:g} s, no step above {MAX_STEP:g} s. Again: `make bench "
        f"ONLY=logs`. Measured on {datetime.now(UTC):%Y-%m-%d} in {minutes:.0f} minutes; {about}."
    )
    text += " **A quick try: fewer jobs.**" * quick + f" {remark}" * bool(remark)
    return "\n\n".join([TITLE, text, table(["", *names, "ours, throttled: met"], rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section of the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of a minute: fewer and shorter jobs")
    parser.add_argument("--seed", type=int, default=1, help="what the jobs' durations are drawn from (default: 1)")
    parser.add_argument("--remark", default="", help="what to know about these figures, for the report")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md (default: this one after a whole run)")
    options = parser.parse_args(arguments)

    started = time.monotonic()
    print(f"{check()} answers of the stand-in are as botocore's models say", flush=True)
    plain = Scenario(200, 60, 90, 5, seed=options.seed, service="ecs_logs", lines_per_second=5)
    if options.quick:
        plain = replace(plain, waits=20, shortest=10, longest=15)
    pythons: dict[Side, Path] = {"amazon": amazon_python(), "jobflow": Path(sys.executable)}
    scenarios = plain, replace(plain, throttle=25)
    runs = [run(side, scenario, python) for scenario in scenarios for side, python in pythons.items()]
    out = options.out or (Path(tempfile.mkdtemp(prefix="jobflow-bench-")) if options.quick else HERE)
    print(f"wrote {write(runs, (time.monotonic() - started) / 60, out, quick=options.quick, remark=options.remark)}")


if __name__ == "__main__":
    main()
