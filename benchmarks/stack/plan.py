"""The amounts and durations of all parts and of the report.

Standard library only, so that a report can be written where nothing can be measured.
"""

from __future__ import annotations

from typing import Final

SCALE: Final = {"worker": 2}
SHORTEST, LONGEST = 60.0, 90.0
"""Duration of the jobs of mapped waits in seconds."""

RUN: Final = 1000
"""Number of waits in a DAG run of very many waits."""
IDLE_FOR: Final = 60.0
"""Seconds for which the waits that do nothing run."""
DRAIN: Final = 120.0
"""Seconds within which the jobs of very many waits end."""
WATCHED: Final = 0.12
"""Seconds; Airflow checks every 0.1 s that its event loop runs, and logs delays longer than this."""
