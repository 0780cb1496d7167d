"""The tables of the report: the figures, their requirements, and whether these are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Import, MapRunner, Results, Run
from benchmarks.services import SERVICES

LARGE = 1000
"""The number of waits with requirements."""

RATE = 50.0
"""Submits per second that AWS Batch allows."""


@dataclass(frozen=True)
class Figure:
    """One figure of a run: its format, and its requirement."""

    name: str
    value: Callable[[Run], float]
    form: str
    times_less: float | None = None
    """Maximum as a fraction 1 / this of the other side's."""
    at_most: float | None = None
    """Maximum of the figure itself."""

    def show(self, run: Run) -> str:
        """Return the figure of a run with its unit."""
        return self.form.format(self.value(run))

    def ratio(self, ours: Run, theirs: Run) -> str:
        """Return how many times smaller ours is than theirs."""
        ratio = self.value(theirs) / self.value(ours) if self.value(ours) else float("inf")
        return f"1/{ratio:,.0f}" if ratio >= 1.5 else ""

    def required(self) -> str:
        """Return the requirement as text."""
        if self.times_less:
            return f"≤ 1/{self.times_less:g}"
        return f"≤ {self.at_most:g} s" if self.at_most else ""

    def met(self, ours: Run, theirs: Run) -> bool | None:
        """Whether the requirement is met; None if there is none."""
        if self.times_less:
            return self.value(ours) * self.times_less <= self.value(theirs)
        return self.value(ours) <= self.at_most if self.at_most else None


CALLS = Figure("calls", lambda run: run.meter.total, "{:,.0f}", times_less=40)
CPU = Figure("CPU", lambda run: run.waited.process.cpu, "{:,.2f} s", times_less=30)
MEMORY = Figure("memory", lambda run: run.waited.process.memory, "{:,.1f} MB", times_less=45)
BLOCKED = Figure("longest step on the event loop", lambda run: run.waited.process.blocked, "{:.3f} s", at_most=0.1)
P99 = Figure("found out after the end, p99", lambda run: run.waited.delay(0.99), "{:.1f} s", at_most=6)

FIGURES = (
    CALLS,
    CPU,
    Figure("- of which garbage collection", lambda run: run.waited.process.collected_cpu, "{:,.2f} s"),
    MEMORY,
    BLOCKED,
    Figure("- of which CPU of the loop's thread", lambda run: run.waited.process.blocked_cpu, "{:.3f} s"),
    Figure("longest garbage collection", lambda run: run.waited.process.collected, "{:.3f} s"),
    Figure("- all garbage collections", lambda run: run.waited.process.collected_in_all, "{:.3f} s"),
    Figure("- a full collection before any wait", lambda run: run.waited.process.collected_before, "{:.3f} s"),
    Figure("found out after the end, median", lambda run: run.waited.delay(0.5), "{:.1f} s"),
    P99,
    Figure("found out after the end, longest", lambda run: run.waited.delay(1), "{:.1f} s"),
)


def title(run: Run) -> str:
    """Return the name of the awaited jobs."""
    noun = SERVICES[run.scenario.service].noun
    if run.scenario.service != "glue_run":
        return noun
    return f"{noun}, all of one job" if run.scenario.scopes == 1 else f"{noun}, of {run.scenario.scopes} jobs"


def summary(pairs: Sequence[tuple[Run, Run]], *, required: bool) -> str:
    """Return one row for each comparison, which ends with whether all requirements are met."""
    rows = []
    for ours, theirs in pairs:
        ratios = [each.ratio(ours, theirs) for each in (CALLS, CPU, MEMORY)]
        own = [each.show(ours) for each in (BLOCKED, P99)]
        unmet = [each.name for each in FIGURES if each.met(ours, theirs) is False]
        unmet += [] if answered_all(ours) else ["answered rightly"]
        verdict = f"**no: {', '.join(unmet)}**" if unmet else "yes"
        rows.append([title(ours), *ratios, *own, *([verdict] * required)])
    if required:
        rows.insert(0, ["required", *(each.required() for each in (CALLS, CPU, MEMORY, BLOCKED, P99)), ""])
    head = ["", "calls", "CPU", "memory", "longest step", "found out, p99", *(["all met"] * required)]
    return table(head, rows)


def compared(ours: Run, theirs: Run, *, required: bool) -> str:
    """Return all figures of both sides, and the requirements of ours."""
    rows = [
        ["answered rightly", _answered(theirs), _answered(ours), "", *(["all", tick(answered_all(ours))] * required)]
    ]
    for figure in FIGURES:
        row = [figure.name, figure.show(theirs), figure.show(ours), figure.ratio(ours, theirs)]
        rows.append(row + [figure.required(), tick(figure.met(ours, theirs))] * required)
    head = ["", "Amazon provider", "airflow-jobflow", "ratio", *(["required", "met"] * required)]
    return table(head, rows)


def many(run: Run) -> str:
    """Return the figures of a run of our side only."""
    sweep = run.meter.per_poll_cycle(run.scenario)
    ideal = run.scenario.waits / 100
    process = run.waited.process
    rows = [
        ["answered rightly", _answered(run), "all", tick(answered_all(run))],
        ["answered calls to describe every job once", f"{sweep:.1f}", f"{ideal:g}", tick(round(sweep) <= ideal)],
        ["memory", f"{process.memory:,.1f} MB", "< 150 MB", tick(process.memory < 150)],
        ["longest step on the event loop", f"{process.blocked:.3f} s", "≤ 0.25 s", tick(process.blocked <= 0.25)],
        ["- of which CPU of the loop's thread", f"{process.blocked_cpu:.3f} s", "", ""],
        ["longest garbage collection", f"{process.collected:.3f} s", "", ""],
        ["- all garbage collections", f"{process.collected_in_all:.3f} s", "", ""],
        ["- a full collection before any wait", f"{process.collected_before:.3f} s", "", ""],
        ["CPU", f"{process.cpu:.1f} s", "", ""],
        ["calls, answered and throttled", f"{len(run.meter.calls):,} + {run.meter.throttled:,}", "", ""],
        ["answered calls in the busiest second", f"{run.meter.busiest():,}", "", ""],
        ["found out after the end, median", f"{run.waited.delay(0.5):.1f} s", "", ""],
        ["found out after the end, p99", f"{run.waited.delay(0.99):.1f} s", "", ""],
        ["found out after the end, longest", f"{run.waited.delay(1):.1f} s", "", ""],
    ]
    return table(["", "airflow-jobflow", "required", "met"], rows)


MAP_PARTS = {
    "worker": ("worker that defers", 200.0),
    "triggerer": ("triggerer", 150.0),
    "resume": ("worker that returns the result", 200.0),
}
"""The name of each process of a map, and the maximum MB of its memory."""

MAP_CALLS = ("SubmitJob", "ListJobs", "DescribeJobs")


def maps(runs: Sequence[MapRunner]) -> str:
    """Return the figures of maps, in a column for each; requirements are met if all maps meet them."""
    columns = [_map_figures(run) for run in runs]
    rows = []
    for figures in zip(*columns, strict=True):
        name, _, required, _ = figures[0]
        met = [met for _, _, _, met in figures if met is not None]
        rows.append([name, *(shown for _, shown, _, _ in figures), required, tick(all(met) if met else None)])
    heads = [f"{run.scenario.waits:,} items{', triggerer killed' * run.kills}" for run in runs]
    return table(["", *heads, "required", "met"], rows)


def _map_figures(run: MapRunner) -> list[tuple[str, str, str, bool | None]]:
    """Yield for each figure its name, its value, its requirement, and whether it is met."""
    items, meter = run.scenario.waits, run.meter
    by_name = {part.name: part for part in run.parts}
    rate, triggerer = meter.rate("SubmitJob"), by_name["triggerer"].process
    once = meter.started == items and not meter.twice
    figures: list[tuple[str, str, str, bool | None]] = [
        ("items whose result is right", f"{run.right:,}", "all", run.right == items),
        ("items with a job, with more than one", f"{meter.started:,}, {meter.twice}", "all, none", once),
        (
            "submits, from the first to the last",
            f"{rate:.1f}/s",
            f"≥ {0.9 * RATE:g}/s",
            None if run.kills else rate >= 0.9 * RATE,
        ),
        ("submits in the busiest second", f"{meter.busiest('SubmitJob')}", "", None),
    ]
    for key, (name, most) in MAP_PARTS.items():
        process, carried = by_name[key].process, by_name[key].carried
        figures += [
            (f"{name}: memory", f"{process.memory:,.1f} MB", f"< {most:g} MB", process.memory < most),
            ("- with all that Airflow has imported", f"{process.resident:,.0f} MB", "", None),
            ("- CPU", f"{process.cpu:.1f} s", "", None),
            ("- time", f"{process.seconds:.1f} s", "", None),
            ("- hands on", f"{carried / 1024:,.0f} KB", "", None),
        ]
    figures += [
        ("triggerer: longest step on the loop", f"{triggerer.blocked:.3f} s", "≤ 0.1 s", triggerer.blocked <= 0.1),
        ("triggerer: longest garbage collection", f"{triggerer.collected:.3f} s", "", None),
    ]
    made = meter.by_operation
    return figures + [(f"`{name}` calls", f"{made.get(name, 0):,}", "", None) for name in MAP_CALLS]


def imports(results: Results) -> str:
    """Return the cost of importing the operators."""

    def row(figure: Import, required: str, met: bool | None) -> list[str]:
        loads = "yes" if figure.boto3 else "no"
        return [f"`import {figure.module}`", f"{figure.milliseconds:.0f} ms", loads, required, tick(met)]

    rows = []
    if theirs := results.imports.get("amazon"):
        rows.append(row(theirs, "", None))
    if ours := results.imports.get("jobflow"):
        rows.append(row(ours, "< 30 ms, no boto3", ours.milliseconds < 30 and not ours.boto3))
    return table(["", "time", "loads boto3", "required", "met"], rows)


def _answered(run: Run) -> str:
    return f"{run.answered:,} of {run.scenario.waits:,}"


def answered_all(run: Run) -> bool:
    """Return whether every wait got the right result."""
    return run.answered == run.scenario.waits and not run.waited.wrong


def tick(met: bool | None) -> str:
    """Return whether a requirement is met, as text."""
    return "" if met is None else "yes" if met else "**no**"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table with numbers aligned right."""
    align = ["---", *(["--:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, align, *rows])
