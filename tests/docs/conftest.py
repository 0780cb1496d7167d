"""The documentation: where it is, and a local AWS with what its examples need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.samples import provision

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def docs() -> Path:
    """The sources of the documentation."""
    return ROOT / "docs"


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's metadata database, of this test process's own."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def samples() -> Iterator[LocalAws]:
    """A local AWS with what the examples need."""
    with LocalAws() as aws:
        provision(aws.endpoint_url)
        yield aws
