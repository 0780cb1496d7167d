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

SCHEDULES: Final = int(os.environ.get("SCHEDULES") or 3)
SEED: Final = int(os.environ.get("SEED") or 1)

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


@pytest.mark.parametrize("seed", range(SEED, SEED + SCHEDULES))
def test_a_random_schedule(ledger: Ledger, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs started are the attempts meant, no task waits for ever, every outcome is its job's, and no orphan stays."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "x")  # for the reaper's to be taken back
    aws = ledger.aws
    assert isinstance(aws, LocalAws)
    schedule = Schedule.of(seed)
    player = Player(aws, ledger, schedule, tmp_path)
    counts = player.play()
    ledger.stop_all()
    counted.add(counts)
    print(f"\n{schedule}\n{counts}\nSo far: {counted}\nLogs: {tmp_path}")  # noqa: T201 -- to repeat it by
    assert not counts.breaches, "\n".join([*counts.breaches, str(schedule), str(tmp_path)])


def test_a_seed_gives_one_schedule() -> None:
    """A failure can be repeated."""
    assert Schedule.of(SEED) == Schedule.of(SEED)


def test_every_duration_that_is_scaled_is_there() -> None:
    """A renamed one would silently last ten times as long as the faults allow."""
    assert {name for _, name in durations()} == SCALED
