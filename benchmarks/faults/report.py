"""The section of RESULTS.md about outages, many scopes and a slow connection."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.faults.plan import BUDGET, KINDS, LATENESS, LIFETIME, MAX_THREADS, Delays, Endured, Scoped
from benchmarks.standin.outage import SLOW_STS
from benchmarks.tables import table, tick

TITLE = "## When AWS cannot be reached"

SECTION = re.compile(rf"\n*^{TITLE}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

STACK = "## In a whole Airflow"
"""The heading of the next benchmark's section, before which this one is inserted."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of the measurement.

    :param load: the machine's load average of the last 15 minutes.
    :param remark: a remark on the figures; empty for none.
    """

    date: str
    machine: dict[str, str]
    minutes: float
    load: float
    quick: bool
    remark: str


def write(
    endured: Sequence[Endured], many: Sequence[Scoped], delays: Sequence[Delays], conditions: Conditions, folder: Path
) -> Path:
    """Write the section into the report in a folder, and the raw figures beside it; return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {name: [asdict(each) for each in all_of] for name, all_of in (("outages", endured), ("scopes", many))}
    (folder / "faults.json").write_text(json.dumps({**raw, "slow": [asdict(each) for each in delays]}) + "\n")
    report = folder / "RESULTS.md"
    text = SECTION.sub("\n\n", report.read_text() if report.exists() else "# What waiting costs\n")
    before, heading, after = text.partition(STACK)
    section = "\n\n".join(_section(endured, many, delays, conditions))
    report.write_text(f"{before.rstrip()}\n\n{section}\n" + (f"\n{heading}{after}" if heading else ""))
    return report


def _section(
    endured: Sequence[Endured], many: Sequence[Scoped], delays: Sequence[Delays], conditions: Conditions
) -> list[str]:
    about = ", ".join(f"{name}: {value}" for name, value in conditions.machine.items())
    quick = " **A quick try: fewer waits and shorter outages than the figures are for.**" if conditions.quick else ""
    sections = [
        TITLE,
        "This package's `JobTrigger` in one event loop, against the stand-in, which fails for a while. Again: "
        f"`make bench ONLY=faults`. Measured on {conditions.date} in {conditions.minutes:.0f} minutes, at a load "
        f"average of {conditions.load:.1f}; {about}.{quick} {conditions.remark}".strip(),
    ]
    if endured:
        sections += [_about(endured), _outages(endured)]
    if many:
        sections += ["### 300 scopes", _about_scopes(many), _scopes(many)]
    if delays:
        sections += ["### One slow connection", _about_slow(), _slow(delays)]
    return sections


def _about(endured: Sequence[Endured]) -> str:
    asked = endured[0].scenario
    return (
        f"{asked.waits:,} waits for Batch jobs of {asked.shortest:g} to {asked.longest:g} s that all start at once, "
        f"described every {asked.interval} s, {asked.budget:g} calls/s at most. A wait is late if it ends after the "
        "outage has, and after its job has: by how many poll intervals, counted from the later of both. Where lookups "
        f"of a connection fail later than at the start, clients are rebuilt every {LIFETIME:g} s, so that the outage "
        "meets a rebuild. A call is foreign if it is made with the credentials of another account, which boto3 finds "
        "where the connection is not found."
    )


def _outages(endured: Sequence[Endured]) -> str:
    rows = [["required", "", "none", "none", f"≤ {LATENESS:g}", f"≤ {LATENESS:g}", "", "", "none", "", ""]]
    for each in endured:
        asked, late = each.scenario, each.lateness
        rows.append(
            [
                KINDS[asked.outage].title,
                f"{asked.outage_from:g} to {asked.outage_to:g} s",
                f"{each.lost:,}",
                f"{each.meter.stops:,}",
                f"{late[max(0, round(0.99 * len(late)) - 1)]:.2f}" if late else "-",
                f"{late[-1]:.2f}" if late else "-",
                f"{each.calls_meanwhile:,}",
                f"{each.calls_after:,}",
                f"{each.meter.foreign:,}",
                f"{sum(each.logged.values()):,}",
                tick(each.met and not each.meter.foreign),
            ]
        )
    head = ["", "outage", "waits lost", "jobs stopped", "late, p99", "late, longest"]
    head += ["calls during the fault", "in the minute after", "foreign", "warnings logged", "met"]
    return table(head, rows)


def _about_scopes(many: Sequence[Scoped]) -> str:
    asked = many[0].scenario
    return (
        f"{asked.scopes} Glue jobs with one run each, and {asked.scopes} ECS clusters with one task each, to be "
        f"described every {asked.interval} s, which {asked.budget:g} calls/s do not suffice for: all of them share the "
        "rate. Counted while all jobs were running."
    )


def _scopes(many: Sequence[Scoped]) -> str:
    columns = []
    for each in many:
        counts = each.meter.by_scope.values()
        columns.append(
            [
                f"{each.answered} of {each.scenario.waits}",
                f"{each.rate:.2f}",
                f"{each.busiest_of_clock}",
                f"{each.meter.busiest()}",
                f"{each.threads}",
                f"{min(counts, default=0)} to {max(counts, default=0)}",
                f"{len(counts)}",
                f"{each.process.cpu:.1f} s",
                f"{each.process.memory:.1f} MB",
                f"{each.process.blocked:.3f} s",
            ]
        )
    names = [
        ("answered rightly", "all"),
        ("calls a second", f"≤ {BUDGET:g}"),
        ("calls in the busiest second of the clock", ""),
        ("calls in the busiest stretch of a second", ""),
        ("threads of the process, at the most", f"< {MAX_THREADS}"),
        ("describe calls for a scope, fewest to most", ""),
        ("scopes described", "all"),
        ("CPU", ""),
        ("memory", ""),
        ("longest step on the event loop", ""),
    ]
    rows = [[name, *values, required] for (name, required), *values in zip(names, *columns, strict=True)]
    return table(["", *(each.scenario.service for each in many), "required"], rows)


def _about_slow() -> str:
    return (
        f"One connection assumes a role, which takes STS {SLOW_STS:g} s. At the same time, 20 other connections come "
        "into use one after the other, and each makes two calls a second. What a call takes includes building its "
        "connection's client, if it is the first."
    )


def _slow(delays: Sequence[Delays]) -> str:
    rows = [
        ["calls", *(f"{len(each.calls):,}" for each in delays)],
        ["median", *(f"{each.part(0.5) * 1000:.0f} ms" for each in delays)],
        ["p99", *(f"{each.part(0.99) * 1000:.0f} ms" for each in delays)],
        ["longest", *(f"{each.calls[-1] * 1000:.0f} ms" for each in delays)],
        ["first call of a connection, longest", *(f"{each.first[-1] * 1000:.0f} ms" for each in delays)],
        ["first call of the slow connection", *("-" if each.slow is None else f"{each.slow:.1f} s" for each in delays)],
    ]
    return table(["", *("with the slow connection" if each.slow else "without it" for each in delays)], rows)
