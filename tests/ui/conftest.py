"""One browser and one Airflow for all tests of the tab."""

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
"""The fixtures of the local AWS, for notes of real jobs."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A browser."""
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """An Airflow home with what tasks have left, and the environment to serve it in."""
    directory = Path(tempfile.mkdtemp(prefix="jobflow-tab-"))
    cases = {**{task: [left] for task, left in CASES.items()}, "mapped": MAPPED}
    yield prepared(directory / "home", {"jobs_page": cases})
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow(environment: dict[str, str]) -> Iterator[Server]:
    """An Airflow that serves it."""
    with served(Path(environment["AIRFLOW_HOME"]), environment) as server:
        yield server


@pytest.fixture(scope="session")
def below_a_path(environment: dict[str, str]) -> Iterator[Server]:
    """The same one, served under a path."""
    with served(Path(environment["AIRFLOW_HOME"]), environment, "/team/airflow") as server:
        yield server


@pytest.fixture
def page(chromium: Chromium, airflow: Server) -> Iterator[Page]:
    """A page of somebody who may look at everything."""
    with signed_in(chromium, airflow) as opened:
        yield opened
