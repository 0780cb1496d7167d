"""What all tests of sensors need."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describe calls that are refused end a wait after half a second instead of minutes."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
