"""The report of the benchmark of a whole Airflow: ratios and requirements, from small made-up figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.events import Woken
from benchmarks.figures import Side
from benchmarks.stack.figures import Held, Kind, Many, Starts, Waits, part_of
from benchmarks.stack.report import OURS, TITLE, Part, write

HALF_EACH = {"triggerer": 40.0, "worker": 10.0, "aws": 1000.0, "init": 1000.0}
"""CPU seconds of a side that uses 0.5 for each of 100 waits; services that do not count use a thousand times more."""


def waits(side: Side, kind: Kind = "sensor", **changed: Any) -> Waits:
    """Return 100 waits that all succeeded, with 0.5 CPU seconds each, 0.1 of it by the idle stack."""
    made = Waits(
        side=side,
        kind=kind,
        waits=100,
        succeeded=100,
        on_workers=0,
        seconds=100.0,
        cpu=HALF_EACH,
        idle={"triggerer": 0.06, "scheduler": 0.04, "aws": 5.0},
        memory={"triggerer": 300.0, "worker": 900.0},
        memory_together=1500.0,
        calls={"DescribeJobs": 1234},
        twice=0,
        delays=[float(number) for number in range(1, 101)],
    )
    return replace(made, **changed)


def held(**changed: Any) -> Held:
    """Return 1,024 waits, each of which uses 20 KB of memory in addition to the 30 MB that are loaded once."""
    made = Held(
        waits=1024,
        memory_fresh={"supervisor": 50.0, "runner": 100.0},
        memory_before={"supervisor": 60.0, "runner": 120.0},
        memory_begun={"supervisor": 65.0, "runner": 135.0},
        memory_after={"supervisor": 65.0, "runner": 135.0},
        begun_in=10.0,
        steady=100.0,
        cpu=5.0,
        blocked_beginning=0.0,
        blocked_steady=0.2,
    )
    return replace(made, **changed)


def many(**changed: Any) -> Many:
    """Return waits of ours that use 20 KB more than idle ones."""
    made = Many(
        ours=held(memory_after={"supervisor": 75.0, "runner": 145.0}),
        idle=held(),
        lost=0,
        describes_per_second=4.5,
        busiest=6,
        budget=5.0,
        calls=500,
        drain_seconds=130.0,
        blocked_draining=0.5,
        delays=[1.0, 2.0, 30.0],
    )
    return replace(made, **changed)


def woken(**changed: Any) -> Woken:
    """Return two waits that were woken immediately, with one describe call in five minutes."""
    made = Woken(
        waits=2,
        delays=[0.1, 0.2],
        quiet_seconds=300.0,
        quiet_calls={"batch.DescribeJobs": 1, "sqs.ReceiveMessage": 15},
        calls={"batch.DescribeJobs": 3},
        seconds=400.0,
    )
    return replace(made, **changed)


def part(**data: Any) -> Part:
    """Return the measurements of a part, as read from its file."""
    return Part("2026-11-22", 9.4, {"Python": "3.11.7"}, json.loads(json.dumps(data)))


def sides(*runs: Waits) -> dict[str, Part]:
    """Return the parts of both sides."""
    names: tuple[Side, ...] = ("jobflow", "amazon")
    return {name: part(runs=[asdict(each) for each in runs if each.side == name]) for name in names}


def report(parts: Mapping[str, Part], folder: Path, remark: str = "") -> str:
    """Write a report, and return it."""
    file = folder / "RESULTS.md"
    write(parts, {"cores": "2"}, remark, file)
    return file.read_text()


def row(text: str, name: str) -> list[str]:
    """Return the cells after the name of the only row of a report with this name."""
    [found] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.split("|")[2:-1]]


SENSOR, STARTED = OURS["sensor"], OURS["started"]


@pytest.mark.parametrize(
    ("kind", "used", "floor", "expected"),
    [
        ("sensor", 4.0, 0.0, ["40 ms", "400 ms", "1/10.0", "0 ms", "40 ms", "yes"]),
        ("sensor", 4.5, 0.0, ["45 ms", "400 ms", "1/8.9", "0 ms", "45 ms", "**no**"]),
        ("sensor", 4.5, 3.6, ["45 ms", "400 ms", "1/8.9", "36 ms", "9 ms", "yes"]),
        ("operator", 16.0, 0.0, ["160 ms", "400 ms", "1/2.5", "0 ms", "160 ms", "yes"]),
        ("operator", 20.0, 14.1, ["200 ms", "400 ms", "1/2.0", "141 ms", "59 ms", "yes"]),
        ("operator", 20.0, 13.9, ["200 ms", "400 ms", "1/2.0", "139 ms", "61 ms", "**no**"]),
    ],
)
def test_one_of_two_limits_must_be_met(
    kind: Kind, used: float, floor: float, expected: list[str], tmp_path: Path
) -> None:
    """The idle stack, which uses 10 s, is subtracted; services that do not count are excluded on both sides."""
    floor_kind: Kind = "floor_start" if kind == "sensor" else "floor_defer"
    ours = waits("jobflow", kind, cpu={"triggerer": used + 10.0, "aws": 9999.0})
    of_airflow = waits("jobflow", floor_kind, cpu={"triggerer": floor + 10.0})
    text = report(sides(waits("amazon", kind), ours, of_airflow), tmp_path)
    cells = row(text, OURS[kind])
    assert [*cells[:5], cells[-1]] == expected
    assert row(text, "all") == ["500", f"{(used + 10) * 10:.0f}"]


@pytest.mark.parametrize(("used", "met"), [(5.0, "yes"), (5.1, "**no**")])
def test_operators_that_start_in_the_triggerer_are_compared_with_operators(
    used: float, met: str, tmp_path: Path
) -> None:
    """The other side has no such starts."""
    started = waits("jobflow", "started", cpu={"triggerer": used + 10.0})
    text = report(sides(waits("amazon", "operator"), waits("jobflow", "operator"), started), tmp_path)
    [cells, _] = [
        [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith(f"| {STARTED}")
    ]
    assert cells[-2:] == ["≤ 1/8", met]


@pytest.mark.parametrize(
    ("changed", "met"),
    [({}, "yes"), ({"submitted": [0.5, 20.1]}, "**no**"), ({"twice": 1}, "**no**"), ({"succeeded": 99}, "**no**")],
)
def test_all_are_submitted_soon_after_the_first_pick_up(changed: dict[str, Any], met: str, tmp_path: Path) -> None:
    """Each is submitted once."""
    started = waits("jobflow", "started", **{"picked_up": [0.0, 9.0], "submitted": [4.0, 19.9], **changed})
    cells = row(report(sides(started), tmp_path), STARTED)
    assert cells[4] == "9.0 s"
    assert cells[-1] == met


@pytest.mark.parametrize(
    ("changed", "name", "met"),
    [
        ({}, "lost", "yes"),
        ({"succeeded": 1999}, "lost", "**no**"),
        ({"twice": 1}, "started more than one job", "**no**"),
        ({"blocked": 0.26}, "event loop blocked, at the longest", "**no**"),
        ({"blocked": 0.25}, "event loop blocked, at the longest", "yes"),
    ],
)
def test_a_triggerer_killed_during_many_starts_neither_loses_nor_duplicates_jobs(
    changed: dict[str, Any], name: str, met: str, tmp_path: Path
) -> None:
    """Its event loop must not be blocked either."""
    starts = Starts(
        waits=2000,
        succeeded=2000,
        on_workers=0,
        started=2000,
        twice=0,
        killed_at=[700, 1400],
        seconds=300.0,
        blocked=0.0,
        floor_blocked=0.1,
        calls={"SubmitJob": 2000},
    )
    text = report({"starts": part(starts=asdict(replace(starts, **changed)))}, tmp_path)
    assert row(text, name)[-1] == met
    assert "700 and 1,400 submits" in text


def test_the_cpu_of_an_idle_stack_is_subtracted(tmp_path: Path) -> None:
    """It is for the duration of the run; if it is more than the total, the rest is unknown."""
    ours = waits("jobflow", cpu={"triggerer": 6.0}, seconds=50.0)
    text = report(sides(waits("amazon"), ours), tmp_path)
    assert row(text, "CPU for each, beyond the idle stack's") == ["0.400 s", "0.010 s", "1/40.0", "", ""]
    assert row(text, SENSOR)[-1] == "yes"
    assert row(text, "- of which the idle stack's") == ["100", "50"]
    text = report(sides(waits("amazon"), replace(ours, cpu={"triggerer": 4.0})), tmp_path)
    assert row(text, "CPU for each, beyond the idle stack's")[1:3] == ["-0.010 s", "not known"]


def test_failed_waits_share_no_cost(tmp_path: Path) -> None:
    """Successful waits carry it all: half as many with the same CPU cost twice as much each."""
    cpu = {"triggerer": 5.0}
    ours = waits("jobflow", cpu=cpu, succeeded=50, delays=[1.0] * 50)
    text = report(sides(waits("amazon"), ours), tmp_path)
    assert row(text, "succeeded") == ["100 of 100", "50 of 100", "", "all", "**no**"]
    assert row(text, "CPU for each")[1:] == ["0.100 s", "1/5.0", "", ""]
    assert row(report(sides(waits("amazon"), waits("jobflow", cpu=cpu)), tmp_path), "succeeded")[-1] == "yes"


NONE: dict[str, Any] = {"succeeded": 0, "delays": [], "cpu": {"triggerer": 0.0}}


def test_a_side_without_successes_has_no_ratio(tmp_path: Path) -> None:
    """Our side then does not meet the requirement, however little CPU it used."""
    for theirs, ours, shown, met in (
        (waits("amazon"), waits("jobflow", **NONE), ["0.500 s", "-"], "**no**"),
        (waits("amazon", **NONE), waits("jobflow"), ["-", "0.500 s"], "**no**"),
        (waits("amazon", **NONE), waits("jobflow", **NONE), ["-", "-"], "**no**"),
    ):
        text = report(sides(theirs, ours), tmp_path)
        assert row(text, "CPU for each") == [*shown, "not known", "", ""]
        assert row(text, SENSOR)[-1] == met
        assert row(text, "succeeded")[-1] == ("yes" if ours.succeeded else "**no**")
        assert "-" in row(text, "all")
        assert "-" in row(text, "job's end to task's end, p99")
        assert "nan" not in text


def test_a_job_that_was_started_twice_is_a_failure(tmp_path: Path) -> None:
    """Only our side has this requirement."""
    text = report(sides(waits("amazon", twice=3), waits("jobflow", twice=1)), tmp_path)
    assert row(text, "started more than one job") == ["3", "1", "", "none", "**no**"]
    text = report(sides(waits("amazon", twice=3), waits("jobflow")), tmp_path)
    assert row(text, "started more than one job")[-1] == "yes"


@pytest.mark.parametrize(
    ("changed", "name", "figure", "met"),
    [
        ({}, "waits lost", "0", "yes"),
        ({"lost": 1}, "waits lost", "1", "**no**"),
        ({}, "- over Airflow's own", "20.0 KB", "yes"),
        (
            {"ours": held(memory_after={"supervisor": 80.0, "runner": 145.0})},
            "- over Airflow's own",
            "25.0 KB",
            "**no**",
        ),
        ({"idle": held(waits=1000)}, "- over Airflow's own", "not known", ""),
        ({}, "event loop blocked, held", "0.20 s", "yes"),
        ({"ours": held(blocked_steady=0.26)}, "event loop blocked, held", "0.26 s", "**no**"),
        ({"ours": held(blocked_steady=0.0)}, "event loop blocked, held", "< 0.12 s", "yes"),
        ({}, "describe calls a second, held", "4.50", "yes"),
        ({"describes_per_second": 5.01}, "describe calls a second, held", "5.01", "**no**"),
        ({}, "job's end to task's end, p99", "30.0 s", ""),
        ({"lost": 1024, "delays": []}, "job's end to task's end, p99", "-", ""),
    ],
)
def test_the_requirements_of_very_many_waits(
    changed: dict[str, Any], name: str, figure: str, met: str, tmp_path: Path
) -> None:
    """Memory per wait is compared only if both sides have as many waits."""
    text = report({"many": part(many=asdict(many(**changed)))}, tmp_path)
    cells = row(text, name)
    assert (cells[0], cells[-1]) == (figure, met)


def test_memory_per_wait_excludes_what_is_loaded_once(tmp_path: Path) -> None:
    """Otherwise fewer waits would seem to use more memory each."""
    text = report({"many": part(many=asdict(many()))}, tmp_path)
    assert row(text, "memory of the triggerer for each wait")[:2] == ["40.0 KB", "20.0 KB"]
    assert [row(text, f"- {name}")[:2] for name in ("supervisor", "runner")] == [
        ["15.0 KB", "5.0 KB"],
        ["25.0 KB", "15.0 KB"],
    ]
    assert row(text, "- what is loaded once, not counted")[:2] == ["30 MB", "30 MB"]


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, ["yes", "yes", "yes", "yes"]),
        ({"delays": [0.1]}, ["**no**", "yes", "yes", "yes"]),
        ({"delays": [0.1, 2.1]}, ["yes", "yes", "**no**", "yes"]),
        ({"delays": [1.1, 1.2]}, ["yes", "**no**", "yes", "yes"]),
        ({"delays": []}, ["**no**", "**no**", "**no**", "yes"]),
        ({"quiet_calls": {"batch.DescribeJobs": 5}}, ["yes", "yes", "yes", "**no**"]),
    ],
)
def test_the_requirements_of_waits_woken_by_events(changed: dict[str, Any], met: list[str], tmp_path: Path) -> None:
    """All must be woken soon, without further polls."""
    text = report({"events": part(woken=asdict(woken(**changed)))}, tmp_path)
    names = (
        "answered",
        "job's end to the trigger's event, median",
        "job's end to the trigger's event, p99",
        "describe calls a minute, while no job ends",
    )
    assert [row(text, name)[-1] for name in names] == met


def test_missing_parts_are_omitted(tmp_path: Path) -> None:
    """One side alone is not compared."""
    text = report({"jobflow": sides(waits("jobflow"))["jobflow"]}, tmp_path)
    assert "mapped waits" not in text
    assert "on one triggerer" not in text
    assert "Measured: jobflow on 2026-11-22 in 9 minutes." in text


def test_only_its_own_section_is_replaced(tmp_path: Path) -> None:
    """The results of the other benchmarks are kept, before and after it."""
    file = tmp_path / "RESULTS.md"
    file.write_text(f"# What waiting costs\n\nfirst\n\n{TITLE}\n\nstale\n\n### stale, too\n\n## Last\n\nlast\n")
    parts = {"events": part(woken=asdict(woken()))}
    once, again = report(parts, tmp_path, "A remark."), report(parts, tmp_path, "Another.")
    assert again == once.replace("A remark.", "Another.")
    assert "stale" not in again
    assert [line for line in again.splitlines() if line.startswith("## ")] == ["## Last", TITLE]
    assert again.startswith("# What waiting costs\n\nfirst\n\n## Last\n\nlast\n")


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank is used: 99 of 100 values are at most the p99."""
    values = [float(number) for number in range(1, 101)]
    assert [part_of(values, each) for each in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert part_of([7.0], 0.5) == 7.0


def test_a_report_needs_neither_airflow_nor_postgres() -> None:
    """It may be written on a machine that cannot measure."""
    code = (
        "import sys; import benchmarks.stack.report; "
        "print([each for each in sys.modules if each.startswith(('psycopg2', 'airflow', 'boto'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
