"""The plot of both sides: what N waits cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context  # type: ignore[import-not-found,unused-ignore]  # comes with the group bench
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
from matplotlib.ticker import FuncFormatter, NullFormatter  # type: ignore[import-not-found,unused-ignore]

from benchmarks.figures import NAMES, Results, Run, Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

COLOURS: dict[Side, str] = {"amazon": "#d55e00", "jobflow": "#0072b2"}
"""Told apart by people with any colour vision."""

PANELS: tuple[tuple[str, Callable[[Run], float]], ...] = (
    ("Describe calls", lambda run: run.meter.total),
    ("CPU, s", lambda run: run.waited.cpu),
    ("Memory, MB", lambda run: run.waited.memory),
)


def plot(results: Results, path: Path) -> None:
    """Draw calls, CPU, memory and delay by the number of waits; the file's name says in which format."""
    style: dict[Any, Any] = {
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "svg.fonttype": "none",  # text stays text, and the file small
        "svg.hashsalt": "waits",
    }
    with rc_context(style):
        figure = Figure(figsize=(11, 3.1), layout="constrained", facecolor="white")
        axes = figure.subplots(1, 4)
        for ax, (title, value) in zip(axes, PANELS, strict=False):
            _cost(ax, results, value)
            ax.set_title(title)
        _delay(axes[3], results)
        axes[3].set_title("Found out after the job's end, s")
        handles, _ = axes[0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def _runs(results: Results, side: Side) -> list[Run]:
    return [run for waits in results.compared if (run := results.run(side, waits))]


def _cost(ax: Axes, results: Results, value: Callable[[Run], float]) -> None:
    """A line for each side, both axes logarithmic, the values written at the points."""
    for side, colour in COLOURS.items():
        runs = _runs(results, side)
        waits, values = [run.scenario.waits for run in runs], [value(run) for run in runs]
        ax.plot(waits, values, "o-", color=colour, label=NAMES[side], markersize=4)
        for x, y in zip(waits, values, strict=True):
            text = _short(y)
            ax.annotate(text, (x, y), (0, 6), textcoords="offset points", ha="center", color=colour, fontsize=8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.16, y=0.16)
    _name_waits(ax, results)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _delay(ax: Axes, results: Results) -> None:
    """For each number of waits and side a bar from the median to p99."""
    for shift, (side, colour) in zip((0.92, 1.08), COLOURS.items(), strict=True):
        for run in _runs(results, side):
            middle, most = run.waited.delay(0.5), run.waited.delay(0.99)
            x = run.scenario.waits * shift
            ax.plot([x, x], [middle, most], "-", color=colour, linewidth=5, solid_capstyle="butt", alpha=0.35)
            ax.plot([x], [middle], "o", [x], [most], "_", color=colour, markersize=5, markeredgewidth=1.5)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.16)
    ax.text(0.02, 0.04, "dot: median, bar: p99", transform=ax.transAxes, fontsize=8, color="#555555")
    _name_waits(ax, results)


def _name_waits(ax: Axes, results: Results) -> None:
    ax.set_xticks(results.compared, [f"{waits:,}" for waits in results.compared], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("waits")
