"""The operators on a local AWS whose crawls take some seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws, Settings
from airflow_jobflow.local.samples import create_environment
from airflow_jobflow.operators import earlier_tries, submission
from tests.local.glue_kit import GlueKit

CRAWL_SECONDS = 1.5


@pytest.fixture(scope="package")
def lasting() -> Iterator[LocalAws]:
    """A local AWS whose crawls take some seconds."""
    with LocalAws(slots=4, settings=Settings(time_scale=0.01, crawl_seconds=CRAWL_SECONDS)) as server:
        create_environment(server.client("iam"), server.client("batch"), "local")
        yield server


@pytest.fixture
def case(request: pytest.FixtureRequest, lasting: LocalAws, gate: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The operator under test, on the AWS of this process."""
    here, eventually, kit_class = (request.getfixturevalue(each) for each in ("here", "eventually", "kit_class"))
    here(lasting)
    monkeypatch.setattr(earlier_tries, "LOOKUPS", (0.0,))
    monkeypatch.setattr(submission, "LOOKUPS", (0.0, 0.0, 0.05))
    kits: dict[str, Callable[[], Any]] = {
        "batch": lambda: kit_class["batch"](lasting, lasting.client("batch")),
        "ecs": lambda: kit_class["ecs"](lasting),
        "glue": lambda: GlueKit(lasting, eventually),
    }
    kind_of_case: Any = request.param
    return kind_of_case(lambda kind: kits[kind](), gate)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let denied describe calls end a wait after half a second instead of minutes."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
