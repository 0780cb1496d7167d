"""How often jobs are looked at: at their waits' own pace, or, where events tell of changes, at a slow one.

What a call answers may lag behind an event, and an event may come before its wait joins. So after either the job keeps
its waits' own pace, until an answer is ``LAG`` younger.

Pure: the caller brings the time. What always holds: ``describes_per_second`` is what the intervals of all jobs come to.
"""

from __future__ import annotations

from typing import Generic

from airflow_jobflow.polling.subscription import Answer, PolledJob

LAG = 20.0
"""Seconds by which a describe call may lag behind an event: an answer this much younger is taken to know of it."""


class PollIntervals(Generic[Answer]):
    """The intervals of a watcher's jobs."""

    def __init__(self) -> None:
        self.describes_per_second = 0.0
        """What all jobs together ask for."""
        self.slowest = 0.0
        """Seconds between two looks at a job that nothing has called for; 0 for its waits' own."""

    def recompute(self, entry: PolledJob[Answer]) -> None:
        """Set a job's interval by its waits, which have changed, and by whether something has called for looks."""
        self.drop(entry)
        wanted = min((wait.interval for wait in entry.waits), default=float("inf"))
        entry.interval = max(wanted, self.slowest) if entry.woken_at is None else wanted
        self.describes_per_second += 1 / entry.interval

    def drop(self, entry: PolledJob[Answer]) -> None:
        """Count a job no more."""
        self.describes_per_second -= 1 / entry.interval

    def speed_up(self, entry: PolledJob[Answer], now: float) -> None:
        """Look at a job at its waits' own pace for a while."""
        entry.woken_at = now
        self.recompute(entry)

    def answered(self, entry: PolledJob[Answer], sent_at: float) -> None:
        """Slow down, if a call that was sent then knows all that has called for looks."""
        if entry.woken_at is not None and sent_at >= entry.woken_at + LAG:
            entry.woken_at = None
            if self.slowest:
                entry.due = None  # so that it falls into step with the slow round
            self.recompute(entry)
