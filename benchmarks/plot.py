"""The plot of both sides: the cost of waits by their number, and by service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context  # type: ignore[import-not-found,unused-ignore]  # comes with the group bench
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
from matplotlib.ticker import FuncFormatter, NullFormatter  # type: ignore[import-not-found,unused-ignore]

from benchmarks.figures import NAMES, Results, Run, Side
from benchmarks.services import SERVICES

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

COLOURS: dict[Side, str] = {"amazon": "#d55e00", "jobflow": "#0072b2"}
"""Distinguishable with any colour vision."""

PANELS: tuple[tuple[str, Callable[[Run], float]], ...] = (
    ("Calls", lambda run: run.meter.total),
    ("CPU, s", lambda run: run.waited.process.cpu),
    ("Memory, MB", lambda run: run.waited.process.memory),
)

SHORT = {"batch": "Batch", "ecs": "Fargate", "glue_crawl": "crawls", "glue_run": "runs of"}

Runs = dict[Side, list[tuple[float, Run]]]
"""The runs of each side with their position on the x axis."""


def plot(results: Results, path: Path) -> None:
    """Draw calls, CPU, memory and delay, in the format of the file's extension."""
    style: dict[Any, Any] = {
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "svg.fonttype": "none",  # text remains text, and the file is small
        "svg.hashsalt": "waits",
    }
    by_number = len(results.compared("batch")) > 1
    with rc_context(style):
        figure = Figure(figsize=(11, 5.6 if by_number else 3.1), layout="constrained", facecolor="white")
        rows = figure.subplots(1 + by_number, 4, squeeze=False)
        if by_number:
            _by_number(results, rows[0])
        _by_service(results, rows[-1])
        handles, _ = rows[0][0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def _by_number(results: Results, axes: list[Axes]) -> None:
    """Draw a row of panels for Batch by the number of waits, with logarithmic axes."""
    numbers = results.compared("batch")
    runs: Runs = {
        side: [(waits, run) for waits in numbers if (run := results.run(side, "batch", waits))] for side in COLOURS
    }
    for ax, (title, value) in zip(axes, PANELS, strict=False):
        _cost(ax, runs, value, "o-")
        ax.set_title(title)
    _delay(axes[3], runs, lambda x, side: x * (0.92 if side == "amazon" else 1.08))
    axes[3].set_title("Found out after the job's end, s")
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xticks(numbers, [f"{waits:,}" for waits in numbers], minor=False)
        ax.set_xticks([], minor=True)
        ax.set_xlabel("waits of Batch")
        ax.margins(x=0.16)


def _by_service(results: Results, axes: list[Axes]) -> None:
    """Draw a row of panels for the largest number of waits of every service."""
    services = [service for service in SERVICES if results.compared(service)]
    most = max(max(results.compared(service)) for service in services)
    pairs = [pair for service in services for pair in results.pairs(service, most)]
    runs: Runs = {
        "jobflow": [(x, ours) for x, (ours, _) in enumerate(pairs)],
        "amazon": [(x, theirs) for x, (_, theirs) in enumerate(pairs)],
    }
    for ax, (title, value) in zip(axes, PANELS, strict=False):
        _cost(ax, runs, value, "o")
        ax.set_title(title)
    _delay(axes[3], runs, lambda x, side: x + (-0.08 if side == "amazon" else 0.08))
    axes[3].set_title("Found out after the job's end, s")
    for ax in axes:
        ax.set_xticks(range(len(pairs)), [_short(ours) for ours, _ in pairs], fontsize=7)
        ax.set_xlabel(f"{most:,} waits of each")
        ax.margins(x=0.2)


def _short(run: Run) -> str:
    jobs = f"\n{run.scenario.scopes} job{'s' * (run.scenario.scopes > 1)}" if run.scenario.service == "glue_run" else ""
    return SHORT[run.scenario.service] + jobs


def _cost(ax: Axes, runs: Runs, value: Callable[[Run], float], form: str) -> None:
    """Draw the cost of each side, logarithmic, with the values at the points."""
    for side, colour in COLOURS.items():
        places, values = [x for x, _ in runs[side]], [value(run) for _, run in runs[side]]
        ax.plot(places, values, form, color=colour, label=NAMES[side], markersize=4)
        for x, y in zip(places, values, strict=True):
            text = f"{y:,.0f}" if y >= 10 else f"{y:.1f}"
            ax.annotate(text, (x, y), (0, 6), textcoords="offset points", ha="center", color=colour, fontsize=8)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.margins(y=0.16)


def _delay(ax: Axes, runs: Runs, place: Callable[[float, Side], float]) -> None:
    """Draw for each run a bar from the median to p99."""
    for side, colour in COLOURS.items():
        for at, run in runs[side]:
            middle, most = run.waited.delay(0.5), run.waited.delay(0.99)
            x = place(at, side)
            ax.plot([x, x], [middle, most], "-", color=colour, linewidth=5, solid_capstyle="butt", alpha=0.35)
            ax.plot([x], [middle], "o", [x], [most], "_", color=colour, markersize=5, markeredgewidth=1.5)
    ax.set_ylim(bottom=0)
    ax.text(0.02, 0.04, "dot: median, bar: p99", transform=ax.transAxes, fontsize=8, color="#555555")
