"""Airflow's metrics: functions of a module in Airflow 3.3.2, class methods of ``Stats`` in 3.2.1."""

from __future__ import annotations

from typing import Any

from airflow.observability import stats as module

stats: Any = module if hasattr(module, "incr") else module.Stats
"""Has ``incr``, ``gauge`` and ``timing``."""
