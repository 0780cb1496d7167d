"""RESULTS.md and the plot, from the figures of a run.

``python -m benchmarks.report`` writes both again from ``results.json``, which holds all that was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Import, Results, Run, Side
from benchmarks.plot import plot

LARGE = 1000
"""The number of waits for which figures are required."""

AGAIN = "uv run --group bench python -m benchmarks.waits"


@dataclass(frozen=True)
class Figure:
    """One figure of a run: how it is shown, and in what it is required to be better."""

    name: str
    value: Callable[[Run], float]
    form: str
    times_less: float | None = None
    """What part of the other side's it may be at most, as 1 / this."""
    at_most: float | None = None
    """What it may be at most, by itself."""

    def show(self, run: Run) -> str:
        """The figure of a run, with its unit."""
        return self.form.format(self.value(run))

    def required(self) -> str:
        """What is required, in words."""
        if self.times_less:
            return f"≤ 1/{self.times_less:g}"
        return f"≤ {self.at_most:g} s" if self.at_most else ""

    def met(self, ours: Run, theirs: Run) -> bool | None:
        """Whether the requirement is met; None if there is none."""
        if self.times_less:
            return self.value(ours) * self.times_less <= self.value(theirs)
        return self.value(ours) <= self.at_most if self.at_most else None


FIGURES = (
    Figure("describe calls", lambda run: run.meter.total, "{:,.0f}", times_less=40),
    Figure("CPU", lambda run: run.waited.cpu, "{:,.2f} s", times_less=30),
    Figure("memory", lambda run: run.waited.memory, "{:,.1f} MB", times_less=50),
    Figure("event loop blocked, longest", lambda run: run.waited.blocked, "{:.3f} s", at_most=0.1),
    Figure("- of which garbage collection", lambda run: run.waited.collected, "{:.3f} s"),
    Figure("- a full collection before any wait", lambda run: run.waited.collected_before, "{:.3f} s"),
    Figure("found out after the end, median", lambda run: run.waited.delay(0.5), "{:.1f} s"),
    Figure("found out after the end, p99", lambda run: run.waited.delay(0.99), "{:.1f} s", at_most=6),
    Figure("found out after the end, longest", lambda run: run.waited.delay(1), "{:.1f} s"),
)


def write(results: Results, folder: Path) -> Path:
    """Write the report, the plot and the raw figures into a folder, and return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(results.to_dict(), separators=(",", ":"))
    (folder / "results.json").write_text(raw + "\n")
    if results.compared:
        plot(results, folder / "waits.svg")
    report = folder / "RESULTS.md"
    report.write_text("\n\n".join(_sections(results)) + "\n")
    return report


def _sections(results: Results) -> list[str]:
    sections = ["# What waiting costs", _preface(results)]
    if results.compared:
        sections += ["![Calls, CPU, memory and delay by the number of waits, for both sides](waits.svg)"]
    for waits in reversed(results.compared):
        ours, theirs = results.run("jobflow", waits), results.run("amazon", waits)
        if ours and theirs:
            sections += [f"## {waits:,} waits", _jobs(ours), _compared(ours, theirs, required=waits == LARGE)]
    for run in results.many:
        throttled = f", throttled at {run.scenario.throttle} calls/s" if run.scenario.throttle else ""
        sections += [f"## {run.scenario.waits:,} waits{throttled}", _jobs(run), _many(run)]
    if results.imports:
        sections += ["## Importing the operators", _imports(results)]
    return [*sections, "## How it is measured", _method(results)]


def _preface(results: Results) -> str:
    machine = ", ".join(f"{name}: {value}" for name, value in results.machine.items())
    quick = " **A quick try: fewer waits and shorter jobs than the figures are for.**" if results.quick else ""
    versions = {run.side: run.waited.versions for run in results.runs}
    rows = []
    if versions:
        packages = list(dict.fromkeys(package for side in versions.values() for package in side))
        sides: list[Side] = ["amazon", "jobflow"]
        rows = [[package, *(versions.get(side, {}).get(package, "-") for side in sides)] for package in packages]
    table = _table(["", "Amazon provider", "airflow-jobflow"], rows) if rows else ""
    return (
        f"Waits for AWS Batch jobs in one event loop, as a triggerer holds them: this package's `JobTrigger` and the "
        f"Amazon provider's `BatchJobTrigger`, against the same metered stand-in for AWS, in one run on "
        f"{results.date} that took {results.minutes:.0f} minutes.{quick} Compare ratios; the absolute figures are this "
        f"machine's. Again: `{AGAIN}`.\n\n{machine}.\n\n{table}"
    ).strip()


def _jobs(run: Run) -> str:
    asked = run.scenario
    budget = f" Our budget: {asked.budget:g} calls/s."
    throttle = f" The stand-in answers {asked.throttle} calls/s and throttles the rest." if asked.throttle else ""
    return (
        f"Jobs of {asked.shortest:g} to {asked.longest:g} s that all start at once, looked at every "
        f"{asked.interval} s.{budget}{throttle}"
    )


def _compared(ours: Run, theirs: Run, *, required: bool) -> str:
    rows = [["answered rightly", _answered(theirs), _answered(ours), "", *(["all", _tick(_all(ours))] * required)]]
    for figure in FIGURES:
        ratio = figure.value(theirs) / figure.value(ours) if figure.value(ours) else float("inf")
        row = [figure.name, figure.show(theirs), figure.show(ours), f"1/{ratio:,.0f}" if ratio >= 1.5 else ""]
        rows.append(row + [figure.required(), _tick(figure.met(ours, theirs))] * required)
    head = ["", "Amazon provider", "airflow-jobflow", "ratio", *(["required", "met"] * required)]
    return _table(head, rows)


def _many(run: Run) -> str:
    sweep = run.meter.per_sweep(run.scenario)
    ideal = run.scenario.waits / 100
    rows = [
        ["answered rightly", _answered(run), "all", _tick(_all(run))],
        ["answered calls for one look at every job", f"{sweep:.1f}", f"{ideal:g}", _tick(round(sweep) <= ideal)],
        ["memory", f"{run.waited.memory:,.1f} MB", "< 150 MB", _tick(run.waited.memory < 150)],
        ["event loop blocked, longest", f"{run.waited.blocked:.3f} s", "≤ 0.25 s", _tick(run.waited.blocked <= 0.25)],
        ["- of which garbage collection", f"{run.waited.collected:.3f} s", "", ""],
        ["- a full collection before any wait", f"{run.waited.collected_before:.3f} s", "", ""],
        ["CPU", f"{run.waited.cpu:.1f} s", "", ""],
        ["calls, answered and throttled", f"{len(run.meter.calls):,} + {run.meter.throttled:,}", "", ""],
        ["answered calls in the busiest second", f"{run.meter.busiest():,}", "", ""],
        ["found out after the end, median", f"{run.waited.delay(0.5):.1f} s", "", ""],
        ["found out after the end, p99", f"{run.waited.delay(0.99):.1f} s", "", ""],
        ["found out after the end, longest", f"{run.waited.delay(1):.1f} s", "", ""],
    ]
    return _table(["", "airflow-jobflow", "required", "met"], rows)


def _imports(results: Results) -> str:
    def row(figure: Import, required: str, met: bool | None) -> list[str]:
        loads = "yes" if figure.boto3 else "no"
        return [f"`import {figure.module}`", f"{figure.milliseconds:.0f} ms", loads, required, _tick(met)]

    rows = []
    if theirs := results.imports.get("amazon"):
        rows.append(row(theirs, "", None))
    if ours := results.imports.get("jobflow"):
        rows.append(row(ours, "< 30 ms, no boto3", ours.milliseconds < 30 and not ours.boto3))
    return "After `import airflow.sdk`, in fresh processes with warm caches, the median.\n\n" + _table(
        ["", "time", "loads boto3", "required", "met"], rows
    )


def _method(results: Results) -> str:
    late = sorted({name for run in results.runs for name in run.waited.late_imports})
    sizes = sorted({run.meter.answer_bytes for run in results.runs})
    slowest = max((run.meter.slowest for run in results.runs), default=0.0)
    busy = max((run.meter.cpu / max(run.scenario.longest, 1) for run in results.runs), default=0.0)
    evidence = (
        f"In this run one job took {sizes[0]:,} to {sizes[-1]:,} bytes of an answer; the stand-in needed at most\n  "
        f"{slowest * 1000:.1f} ms for an answer and {busy:.1%} of one core, so nobody waited for it."
        if sizes
        else ""
    )
    imported = (
        f"Imported while waiting, and therefore counted: {', '.join(late)}." if late else "Nothing was imported later."
    )
    return f"""\
- Each side is a process of its own and has the machine to itself, but for our runs of fewer than {LARGE:,} waits, which
  go on at the same time. Either side's triggers are started one after the other with a pause for the loop, as the
  triggerer does it, and iterated to their end. No retries of tasks, no database: the waits alone.
- CPU (user and system, all threads) and the peak of resident memory are counted from after the imports, so what both
  sides share, Airflow and botocore, counts for neither; building triggers, clients and connections does.
  {imported}
- The event loop is blocked while it is away from its selector; the longest time is given. Python's garbage collector
  stops it too, the longer the more objects the process has, and what Airflow has imported is among them: so the
  longest of its pauses is given as well, and what one takes right after the imports.
- A delay runs from the scripted end of the job to the trigger's event. One job in twenty fails; an answer counts only
  if it says so. With one look every 5 s the best p99 there can be is about 5 s.
- The stand-in sends DescribeJobs answers as AWS does, without its latency.
  {evidence}
- The Amazon provider has its own environment (`.venv-amazon`), for aiobotocore pins botocore."""


def _answered(run: Run) -> str:
    return f"{run.answered:,} of {run.scenario.waits:,}"


def _all(run: Run) -> bool:
    return run.answered == run.scenario.waits and not run.waited.wrong


def _tick(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "**no**"


def _table(head: list[str], rows: list[list[str]]) -> str:
    align = ["---", *(["--:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, align, *rows])


if __name__ == "__main__":
    here = Path(__file__).parent
    print(write(Results.from_dict(json.loads((here / "results.json").read_text())), here))
