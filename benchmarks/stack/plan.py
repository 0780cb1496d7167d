"""How much is measured, and for how long: the parameters of all parts and of the report.

Standard library only, so that a report can be written where nothing can be measured.
"""

from __future__ import annotations

from typing import Final

SCALE: Final = {"worker": 2}
SHORTEST, LONGEST = 60.0, 90.0
"""Seconds that the jobs of mapped waits take."""

RUN: Final = 1000
"""Of very many waits, how many are in a DAG run."""
IDLE_FOR: Final = 60.0
"""Seconds for which the waits that do nothing are held."""
DRAIN: Final = 120.0
"""Seconds within which the jobs of very many waits end."""
WATCHED: Final = 0.12
"""Seconds; Airflow checks every 0.1 s that its event loop runs, and logs delays longer than this."""
