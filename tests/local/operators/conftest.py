"""The operators on a local AWS whose crawls end when a test ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws, Settings
from airflow_jobflow.local.samples import create_environment
from tests.local.glue_kit import HOUR, GlueKit


@pytest.fixture(scope="package")
def lasting() -> Iterator[LocalAws]:
    """A local AWS whose crawls end when a test ends them."""
    with LocalAws(slots=4, settings=Settings(time_scale=0.01, crawl_seconds=HOUR)) as server:
        create_environment(server.client("iam"), server.client("batch"), "local")
        yield server


@pytest.fixture
def case(request: pytest.FixtureRequest, lasting: LocalAws, gate: Path) -> Iterator[Any]:
    """The operator under test, on the AWS of this process."""
    here, eventually, kit_class = (request.getfixturevalue(each) for each in ("here", "eventually", "kit_class"))
    here(lasting)
    kits: dict[str, Callable[[], Any]] = {
        "batch": lambda: kit_class["batch"](lasting, lasting.client("batch")),
        "ecs": lambda: kit_class["ecs"](lasting),
        "glue": lambda: GlueKit(lasting, eventually),
    }
    kind_of_case: Any = request.param
    made = kind_of_case(lambda kind: kits[kind](), gate)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let denied describe calls end a wait after half a second instead of minutes."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
