"""Random schedules without Airflow's processes: real operators, triggers and TriggerRunner on a local AWS.

``SEED`` and ``SCHEDULES`` set which and how many; ``make chaos-local`` sets them.
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
"""The counts of all schedules so far."""


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
    """Restore the environment that the reaper changes."""
    for name in LocalAws().environment():
        monkeypatch.setenv(name, "")


def play(ledger: Ledger, seed: int, directory: Path, *, reaps: bool) -> Counts:
    """Run and check a schedule; return the counts."""
    aws = ledger.aws
    assert isinstance(aws, LocalAws)
    schedule = Schedule.of(seed)
    counts = Player(aws, ledger, schedule, directory, reaps=reaps).play()
    ledger.stop_all()
    print(f"\n{schedule}\n{counts}\nLogs: {directory}")  # noqa: T201 -- to reproduce it
    assert not counts.breaches, "\n".join([*counts.breaches, str(schedule), str(directory)])
    return counts


@pytest.mark.parametrize("seed", range(SEED, SEED + SCHEDULES))
def test_a_random_schedule(ledger: Ledger, seed: int, tmp_path: Path) -> None:
    """No job is started twice, no task waits forever, every outcome belongs to its job, and no orphan is left."""
    counted.add(play(ledger, seed, tmp_path, reaps=False))
    print(f"So far: {counted}")  # noqa: T201 -- the counts


@pytest.mark.parametrize("seed", range(REAPED_SEED, REAPED_SEED + (SCHEDULES + 9) // 10))
def test_a_concurrent_reaper_stops_only_orphans(ledger: Ledger, seed: int, tmp_path: Path) -> None:
    """This holds for every state of a task, and every response of AWS."""
    play(ledger, seed, tmp_path, reaps=True)


def test_a_seed_gives_one_schedule() -> None:
    """Otherwise a failure could not be reproduced."""
    assert Schedule.of(SEED) == Schedule.of(SEED)


def test_every_scaled_duration_exists() -> None:
    """A renamed one would not be scaled, and last longer than the faults allow."""
    assert {name for _, name in durations()} == SCALED
