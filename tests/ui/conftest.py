"""One browser and one Airflow for all tests of the Jobs tab."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.conftest import aws, batch, context, gate, kit
from tests.ui.cases import CASES, MAPPED
from tests.ui.chromium import Chromium, Page
from tests.ui.server import Server, prepared, served
from tests.ui.tab import signed_in

__all__ = ["aws", "batch", "context", "gate", "kit"]
"""The fixtures of the local AWS, for notes about real jobs."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A browser."""
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """An Airflow home with the results of tasks, and the environment in which to serve it."""
    directory = Path(tempfile.mkdtemp(prefix="jobflow-tab-"))
    cases = {**{task: [left] for task, left in CASES.items()}, "mapped": MAPPED}
    yield prepared(directory / "home", {"jobs_page": cases})
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow(environment: dict[str, str]) -> Iterator[Server]:
    """An Airflow that serves the home."""
    with served(Path(environment["AIRFLOW_HOME"]), environment) as server:
        yield server


@pytest.fixture(scope="session")
def below_a_path(environment: dict[str, str]) -> Iterator[Server]:
    """The same Airflow, served under a path."""
    with served(Path(environment["AIRFLOW_HOME"]), environment, "/team/airflow") as server:
        yield server


@pytest.fixture
def page(chromium: Chromium, airflow: Server) -> Iterator[Page]:
    """A page of a user with all permissions."""
    with signed_in(chromium, airflow) as opened:
        yield opened
