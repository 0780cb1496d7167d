"""Fixtures of all sensor tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let denied describe calls end a wait after half a second instead of minutes."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
