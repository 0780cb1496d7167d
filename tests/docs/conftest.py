"""Paths of the documentation, and the fixtures that its examples share with the sample DAGs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.dags.conftest import database, samples

__all__ = ["database", "samples"]

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def docs() -> Path:
    """Return the directory of the documentation."""
    return ROOT / "docs"
