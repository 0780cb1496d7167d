"""The section of RESULTS.md about a whole Airflow, from the figures of its parts; other sections are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.events import Woken
from benchmarks.figures import NAMES, Side
from benchmarks.stack.figures import Held, Kind, Many, Starts, Waits, part_of
from benchmarks.stack.jobs import INTERVAL
from benchmarks.stack.plan import DRAIN, IDLE_FOR, LONGEST, RUN, SCALE, SHORTEST, WATCHED
from benchmarks.tables import table

TITLE: Final = "## In a whole Airflow"
SECTION: Final = re.compile(rf"\n*{TITLE}\n.*?(?=\n## |\Z)", re.DOTALL)

SIDES: Final[tuple[Side, ...]] = ("amazon", "jobflow")
TASKS: Final[Mapping[Kind, Mapping[Side, str]]] = {
    "sensor": {"jobflow": "BatchJobSensor", "amazon": "BatchSensor(deferrable=True)"},
    "operator": {"jobflow": "BatchJobOperator", "amazon": "BatchOperator(deferrable=True)"},
}


@dataclass(frozen=True)
class Required:
    """The limits of a wait's CPU without the idle stack, one of which must be met.

    :param of: what it is compared with on the other side.
    :param times_less: its maximum as a fraction 1 / this of the other side's.
    :param floor: Airflow's own floor; empty for none.
    :param above: maximum milliseconds above that.
    """

    of: Kind
    times_less: float
    floor: Kind | None = None
    above: float = 0.0


REQUIRED: Final[Mapping[Kind, Required]] = {
    "sensor": Required("sensor", 10, "floor_start", 10),
    "operator": Required("operator", 2.5, "floor_defer", 60),
    "started": Required("operator", 8),
}
OURS: Final[Mapping[Kind, str]] = {
    "sensor": "`BatchJobSensor`",
    "operator": "`BatchJobOperator`, started on workers",
    "started": "`BatchJobOperator(start_from_trigger=True)`",
    "fargate": "`FargateTaskOperator(start_from_trigger=True)`",
}
SUBMITTED_WITHIN: Final[Mapping[Kind, float]] = {"started": 20, "fargate": 35}
"""Seconds from the first pick-up of a triggerer within which all jobs of 500 tasks must be submitted."""
COMPONENTS: Final = ("scheduler", "api-server", "triggerer", "worker", "dag-processor", "postgres", "redis")


@dataclass(frozen=True)
class Part:
    """The measurements of one part of the benchmark, with their time."""

    date: str
    minutes: float
    versions: Mapping[str, str]
    data: Mapping[str, Any]


def write(parts: Mapping[str, Part], machine: Mapping[str, str], remark: str, report: Path) -> None:
    """Write the section into a report.

    :param remark: a remark on these figures; empty for none.
    """
    text = report.read_text() if report.exists() else "# What waiting costs\n"
    report.write_text(
        SECTION.sub("\n", text).rstrip("\n") + "\n\n" + "\n\n".join(_section(parts, machine, remark)) + "\n"
    )


def _section(parts: Mapping[str, Part], machine: Mapping[str, str], remark: str) -> list[str]:
    sections = [TITLE, _preface(parts, machine), *([remark] if remark else [])]
    waits = {
        (each.kind, each.side): each
        for side in SIDES
        if side in parts
        for each in (Waits(**run) for run in parts[side].data["runs"])
    }
    kinds = [kind for kind in TASKS if all((kind, side) in waits for side in SIDES)]
    if kinds:
        pairs = {kind: (waits[kind, "amazon"], waits[kind, "jobflow"]) for kind in kinds}
        sections += [f"### {pairs[kinds[0]][0].waits:,} mapped waits", _waits(pairs), _compared(pairs)]
        sections += ["CPU milliseconds for each wait, by component:", _components(pairs)]
        sections += ["Net of the idle stack, against Airflow's own floor in the same run:", _required(waits)]
    if any((kind, "jobflow") in waits for kind in SUBMITTED_WITHIN):
        sections += ["Started in the triggerer:", _submitted(waits)]
    if "starts" in parts:
        starts = Starts(**parts["starts"].data["starts"])
        sections += [f"### {starts.waits:,} operators started in one triggerer, which is killed twice", _starts(starts)]
    if "many" in parts:
        data = dict(parts["many"].data["many"])
        many = Many(**{**data, "ours": Held(**data["ours"]), "idle": Held(**data["idle"])})
        sections += [f"### {many.ours.waits:,} waits on one triggerer", _held(many), _many(many)]
    if "events" in parts:
        woken = Woken(**parts["events"].data["woken"])
        sections += [f"### {woken.waits:,} waits woken by events", _woken(woken), _events(woken)]
    return [*sections, METHOD]


def _preface(parts: Mapping[str, Part], machine: Mapping[str, str]) -> str:
    described = ", ".join(f"{name}: {value}" for name, value in machine.items())
    runs = "; ".join(f"{name} on {part.date} in {part.minutes:.0f} minutes" for name, part in parts.items())
    differ = "; ".join(
        f"{NAMES[side]}: " + ", ".join(f"{name} {version}" for name, version in parts[side].versions.items())
        for side in SIDES
        if side in parts
    )
    return (
        "Every service of `docker-compose.yaml` as a process of this machine: Postgres, Redis, API server, scheduler, "
        f"DAG processor, one triggerer, {SCALE['worker']} Celery workers of 4 tasks each; AWS is the metered stand-in. "
        f"Again: `make bench-stack`, one part of it with `ONLY=many`. Measured: {runs}.\n\n{described}. {differ}."
    )


def _waits(pairs: Mapping[Kind, tuple[Waits, Waits]]) -> str:
    calls = "; ".join(
        f"`{TASKS[kind][each.side]}` " + ", ".join(f"{count:,} `{name}`" for name, count in each.calls.items())
        for kind, pair in pairs.items()
        for each in pair
    )
    return (
        f"One DAG run of a mapped task. Each job takes {SHORTEST:g} to {LONGEST:g} s from when it is submitted or, for "
        f"sensors, first described, and succeeds; both sides poll every {INTERVAL} s. CPU is that of all components "
        f"from the trigger of the run to its end. AWS calls: {calls}."
    )


def _compared(pairs: Mapping[Kind, tuple[Waits, Waits]]) -> str:
    head, rows = [""], dict[str, list[str]]()
    figures: dict[str, Callable[[Waits], str]] = {
        "succeeded": lambda each: f"{each.succeeded:,} of {each.waits:,}",
        "of them with a worker": lambda each: f"{each.on_workers:,}",
        "started more than one job": lambda each: f"{each.twice:,}",
        "CPU for each": lambda each: _shown(each.each, "{:.3f} s"),
        "CPU for each, beyond the idle stack's": lambda each: _shown(each.each_above_idle, "{:.3f} s"),
        "wall time of the run": lambda each: f"{each.seconds:,.0f} s",
        "AWS calls": lambda each: f"{sum(each.calls.values()):,}",
        "memory of all components, at the most": lambda each: f"{each.memory_together:,.0f} MB",
        "- triggerer": lambda each: f"{each.memory.get('triggerer', 0):,.0f} MB",
        "- workers": lambda each: f"{each.memory.get('worker', 0):,.0f} MB",
        "job's end to task's end, median": lambda each: _shown(part_of(each.delays, 0.5), "{:.1f} s"),
        "job's end to task's end, p99": lambda each: _shown(part_of(each.delays, 0.99), "{:.1f} s"),
    }
    for kind, (theirs, ours) in pairs.items():
        head += [f"`{TASKS[kind]['amazon']}`", f"`{TASKS[kind]['jobflow']}`", "ratio", "required", "met"]
        for name, show in figures.items():
            ratio = required = met = ""
            if name == "succeeded":
                required, met = "all", _met(ours.succeeded == ours.waits)
            elif name == "started more than one job":
                required, met = "none", _met(ours.twice == 0)
            elif name == "CPU for each":
                ratio = _ratio(theirs.each, ours.each)
            elif name.startswith("CPU"):
                ratio = _ratio(theirs.each_above_idle, ours.each_above_idle)
            rows.setdefault(name, [name]).extend([show(theirs), show(ours), ratio, required, met])
    return table(head, list(rows.values()))


def _components(pairs: Mapping[Kind, tuple[Waits, Waits]]) -> str:
    head = ["", *(f"`{TASKS[kind][each.side]}`" for kind, pair in pairs.items() for each in pair)]
    every = [each for pair in pairs.values() for each in pair]

    def row(name: str, seconds: Sequence[float]) -> list[str]:
        shares = [
            used * 1000 / each.succeeded if each.succeeded else math.nan
            for used, each in zip(seconds, every, strict=True)
        ]
        return [name, *(_shown(share, "{:,.0f}") for share in shares)]

    rows = [row(name, [each.cpu.get(name, 0.0) for each in every]) for name in COMPONENTS]
    rows += [row("all", [each.counted for each in every])]
    rows += [row("- of which the idle stack's", [each.idle_seconds for each in every])]
    return table(head, rows)


def _required(waits: Mapping[tuple[Kind, Side], Waits]) -> str:
    rows = []
    for kind, required in REQUIRED.items():
        ours, theirs = waits.get((kind, "jobflow")), waits.get((required.of, "amazon"))
        floor = waits.get((required.floor, "jobflow")) if required.floor else None
        if not (ours and theirs):
            continue
        limits = [f"≤ 1/{required.times_less:g}"]
        met = ours.each_above_idle * required.times_less <= theirs.each_above_idle
        above = math.nan
        if floor:
            above = (ours.each_above_idle - floor.each_above_idle) * 1000
            limits.append(f"or ≤ {required.above:g} ms above the floor")
            met |= above <= required.above
        milliseconds = [each.each_above_idle * 1000 if each else math.nan for each in (ours, theirs, floor)]
        ratio = _ratio(theirs.each_above_idle, ours.each_above_idle)
        figures = [_shown(each, "{:,.0f} ms") for each in (*milliseconds, above)]
        rows.append([OURS[kind], *figures[:2], ratio, *figures[2:], " ".join(limits), _met(met)])
    head = ["", "ours", "Amazon provider", "ratio", "Airflow's floor", "above it", "required", "met"]
    return table(head, rows)


def _submitted(waits: Mapping[tuple[Kind, Side], Waits]) -> str:
    rows = []
    for kind, within in SUBMITTED_WITHIN.items():
        if (ours := waits.get((kind, "jobflow"))) is None:
            continue
        last = ours.submitted[-1] if ours.submitted else math.nan
        ended = f"{ours.succeeded:,} of {ours.waits:,}"
        of_them = [ended, f"{ours.on_workers:,}", f"{ours.twice:,}", _shown(ours.each_above_idle * 1000, "{:,.0f} ms")]
        picked_up = _shown(ours.picked_up[-1] if ours.picked_up else math.nan, "{:.1f} s")
        met = _met(last <= within and ours.succeeded == ours.waits and not ours.twice)
        rows.append([OURS[kind], *of_them, picked_up, _shown(last, "{:.1f} s"), f"≤ {within:g} s", met])
    head = ["", "succeeded", "with a worker", "started twice", "CPU for each, net", "all picked up by Airflow within"]
    return table([*head, "all submitted within", "required", "met"], rows)


def _starts(starts: Starts) -> str:
    def seconds(blocked: float) -> str:
        return f"{blocked:.2f} s" if blocked else f"< {WATCHED:g} s"

    killed = " and ".join(f"{each:,}" for each in starts.killed_at)
    floor = f"Airflow's own timers: {seconds(starts.floor_blocked)}"
    rows = [
        ["lost", f"{starts.lost:,}", "none", _met(starts.lost == 0)],
        ["started more than one job", f"{starts.twice:,}", "none", _met(starts.twice == 0)],
        ["triggerer killed (SIGKILL) after", f"{killed} submits", "", ""],
        ["event loop blocked, at the longest", seconds(starts.blocked), "≤ 0.25 s", _met(starts.blocked <= 0.25)],
        ["- as many of", floor, "", ""],
        ["with a worker", f"{starts.on_workers:,}", "", ""],
        ["all ended after", f"{starts.seconds:.0f} s", "", ""],
    ]
    rows += [[f"`{name}` calls", f"{count:,}", "", ""] for name, count in sorted(starts.calls.items())]
    return table(["", "", "required", "met"], rows)


def _held(many: Many) -> str:
    return (
        f"`BatchJobSensor`, mapped, {RUN:,} instances in each of {-(-many.ours.waits // RUN)} DAG runs. They start and "
        "end in the triggerer, whose capacity is raised (`AIRFLOW__TRIGGERER__CAPACITY`; it holds a log file open for "
        "each wait, so it needs as many descriptors), and push no XComs, because a triggerer pushes one in each round "
        f"of its loop. Held for {many.ours.steady:.0f} s, then all jobs end within {DRAIN:.0f} s. For comparison, in "
        "the same stack and a new triggerer, the memory of Airflow itself: a sensor that starts in the "
        f"triggerer and does nothing, {many.idle.waits:,} instances held for {IDLE_FOR:.0f} s."
    )


def _many(many: Many) -> str:
    ours, idle = many.ours, many.idle
    over = ours.each - idle.each
    alike = ours.waits == idle.waits  # the total of all waits is divided by their number
    known = [f"{over:.1f} KB", "", "< 25 KB", _met(over < 25)]

    def seconds(blocked: float) -> str:
        return f"{blocked:.2f} s" if blocked else f"< {WATCHED:g} s"

    def grown(held: Held, name: str) -> str:
        return f"{(held.memory_after[name] - held.memory_before[name]) * 1024 / held.waits:.1f} KB"

    def cores(held: Held) -> str:
        return f"{held.cpu / held.steady:.3f} core"

    worst = ours.blocked_steady
    rows = [
        ["waits lost", f"{many.lost}", "", "none", _met(many.lost == 0)],
        ["memory of the triggerer for each wait", f"{ours.each:.1f} KB", f"{idle.each:.1f} KB", "", ""],
        ["- supervisor", grown(ours, "supervisor"), grown(idle, "supervisor"), "", ""],
        ["- runner", grown(ours, "runner"), grown(idle, "runner"), "", ""],
        ["- over Airflow's own", *(known if alike else ["not known", "", "< 25 KB", ""])],
        ["- what is loaded once, not counted", f"{ours.once:.0f} MB", f"{idle.once:.0f} MB", "", ""],
        ["event loop blocked, held", seconds(worst), seconds(idle.blocked_steady), "≤ 0.25 s", _met(worst <= 0.25)],
        ["event loop blocked, beginning", seconds(ours.blocked_beginning), seconds(idle.blocked_beginning), "", ""],
        ["event loop blocked, while all end", seconds(many.blocked_draining), "", "", ""],
        ["all begun within", f"{ours.begun_in:.0f} s", f"{idle.begun_in:.0f} s", "", ""],
        ["CPU of the triggerer, held", cores(ours), cores(idle), "", ""],
        [
            "describe calls a second, held",
            f"{many.describes_per_second:.2f}",
            "",
            f"≤ {many.budget:g}",
            _met(many.describes_per_second <= many.budget),
        ],
        ["describe calls in the busiest second", f"{many.busiest}", "", "", ""],
        ["all ended after", f"{many.drain_seconds:.0f} s", "", "", ""],
        ["job's end to task's end, median", _shown(part_of(many.delays, 0.5), "{:.1f} s"), "", "", ""],
        ["job's end to task's end, p99", _shown(part_of(many.delays, 0.99), "{:.1f} s"), "", "", ""],
    ]
    return table(["", "ours", "Airflow's own", "required", "met"], rows)


def _woken(woken: Woken) -> str:
    return (
        "Triggers in one event loop, against the AWS on this machine in another process: jobs that are processes, a "
        f"rule, an SQS queue. {woken.quiet_seconds:.0f} s in which no job ends, then all do, one after the other. How "
        "long AWS's own EventBridge takes to deliver an event is not in these figures."
    )


def _events(woken: Woken) -> str:
    a_minute = woken.quiet_calls.get("batch.DescribeJobs", 0) * 60 / woken.quiet_seconds
    median, p99 = part_of(woken.delays, 0.5), part_of(woken.delays, 0.99)
    told = len(woken.delays)
    rows = [
        ["answered", f"{told:,} of {woken.waits:,}", "all", _met(told == woken.waits)],
        ["job's end to the trigger's event, median", _shown(median, "{:.2f} s"), "≤ 1 s", _met(median <= 1)],
        ["job's end to the trigger's event, p99", _shown(p99, "{:.2f} s"), "≤ 2 s", _met(p99 <= 2)],
        ["describe calls a minute, while no job ends", f"{a_minute:.2f}", "< 1", _met(a_minute < 1)],
    ]
    rows += [[f"`{name}` calls in all", f"{count:,}", "", ""] for name, count in sorted(woken.calls.items())]
    return table(["", "", "required", "met"], rows)


def _shown(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _ratio(theirs: float, ours: float) -> str:
    return f"1/{theirs / ours:.1f}" if theirs > 0 and ours > 0 else "not known"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


METHOD: Final = f"""\
How it is measured:

- CPU is that of all processes of a component, ended ones included, as the kernel adds it up; the stand-in's is left
  out, and so is what measures. The idle stack's share is what the same stack used in 30 s in which nothing ran, times
  the wall time. A run of four waits comes first and is not counted.
- Memory is the proportional set size, sampled every 4 s; a triggerer's is read on request.
- Task and run ends are those in Airflow's database, jobs' ends those of the stand-in, on one clock.
- Airflow checks every 0.1 s that the triggerer's event loop runs, and logs it when that took longer than the
  threshold, set to {WATCHED:g} s here; the longest of these is given, which is up to 0.1 s more than the block itself.
- The Amazon provider's stack runs from its own environment (`.venv-amazon`), because aiobotocore pins botocore; all
  else is of the same versions."""
