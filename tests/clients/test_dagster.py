"""Dagster: Pipes to Fargate tasks and Glue job runs, which report back through CloudWatch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES: Final = ("dagster-aws==0.29.27",)
PROGRAM: Final = Path(__file__).parent / "programs" / "dagster_assets.py"


def test_assets_are_materialized_by_the_reports_of_their_processes(run: Callable[..., str]) -> None:
    """Waiters, tags, logs of a running task, and a Glue run's arguments and log groups are used."""
    python = python_environment("dagster", *PACKAGES) / "python"
    assert sorted(run([python, PROGRAM]).splitlines()) == ["by_run: 4 rows", "by_task: 3 rows"]
