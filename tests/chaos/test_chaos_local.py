"""Random schedules without Airflow's processes: real operators, triggers and TriggerRunner on a local AWS.

``SEED`` and ``SCHEDULES`` say which and how many; ``make chaos-local`` sets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from airflow_jobflow.local import LocalAws, Settings
from airflow_jobflow.local.samples import provision
from tests.chaos.judge import Counts
from tests.chaos.lines import SCALED, durations
from tests.chaos.play import Player
from tests.chaos.schedules import Schedule
from tests.stack.ledger import Ledger

SCHEDULES: Final = int(os.environ.get("SCHEDULES") or 2)
SEED: Final = int(os.environ.get("SEED") or 1)

REAPED_SEED: Final = SEED + 30
"""Seed of the first schedule in which the reaper runs all the time."""

counted = Counts()
"""What all schedules so far came to."""


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    """A local AWS with the samples."""
    settings = Settings(stop_grace=1, crawl_seconds=1.5)
    with LocalAws(slots=24, settings=settings) as aws:
        provision(aws.endpoint_url)
        ledger = Ledger(aws)
        ledger.provision()
        yield ledger


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what the reaper's environment says."""
    for name in LocalAws().environment():
        monkeypatch.setenv(name, "")


def play(ledger: Ledger, seed: int, directory: Path, *, reaps: bool) -> Counts:
    """Play and judge a schedule; return what it came to."""
    aws = ledger.aws
    assert isinstance(aws, LocalAws)
    schedule = Schedule.of(seed)
    counts = Player(aws, ledger, schedule, directory, reaps=reaps).play()
    ledger.stop_all()
    print(f"\n{schedule}\n{counts}\nLogs: {directory}")  # noqa: T201 -- to repeat it by
    assert not counts.breaches, "\n".join([*counts.breaches, str(schedule), str(directory)])
    return counts


@pytest.mark.parametrize("seed", range(SEED, SEED + SCHEDULES))
def test_a_random_schedule(ledger: Ledger, seed: int, tmp_path: Path) -> None:
    """Jobs started are the attempts meant, no task waits for ever, every outcome is its job's, and no orphan stays."""
    counted.add(play(ledger, seed, tmp_path, reaps=False))
    print(f"So far: {counted}")  # noqa: T201 -- the figures


@pytest.mark.parametrize("seed", range(REAPED_SEED, REAPED_SEED + (SCHEDULES + 9) // 10))
def test_a_reaper_that_runs_meanwhile_stops_nothing_that_is_wanted(ledger: Ledger, seed: int, tmp_path: Path) -> None:
    """Whatever state a task is in, and whatever AWS answers."""
    play(ledger, seed, tmp_path, reaps=True)


def test_a_seed_gives_one_schedule() -> None:
    """A failure can be repeated."""
    assert Schedule.of(SEED) == Schedule.of(SEED)


def test_every_duration_that_is_scaled_is_there() -> None:
    """A renamed one would silently last ten times as long as the faults allow."""
    assert {name for _, name in durations()} == SCALED
