"""How often jobs are looked at: at their waits' own pace, or, where events tell of changes, at a slow one.

What a call answers may lag behind an event, and an event may come before its wait joins. So after either the job keeps
its waits' own pace, until an answer is ``LAG`` younger.

Pure: the caller brings the time. What always holds: ``looks_per_second`` is what the intervals of all jobs come to.
"""

from __future__ import annotations

from typing import Generic

from airflow_jobflow.watch.waits import Answer, Entry

LAG = 20.0
"""Seconds by which a describe call may lag behind an event: an answer this much younger is taken to know of it."""


class Tempo(Generic[Answer]):
    """The intervals of a watcher's jobs."""

    def __init__(self) -> None:
        self.looks_per_second = 0.0
        """What all jobs together ask for."""
        self.slowest = 0.0
        """Seconds between two looks at a job that nothing has called for; 0 for its waits' own."""

    def reckon(self, entry: Entry[Answer]) -> None:
        """Set a job's interval by its waits, which have changed, and by whether something has called for looks."""
        self.drop(entry)
        wanted = min((wait.interval for wait in entry.waits), default=float("inf"))
        entry.interval = max(wanted, self.slowest) if entry.woken_at is None else wanted
        self.looks_per_second += 1 / entry.interval

    def drop(self, entry: Entry[Answer]) -> None:
        """Count a job no more."""
        self.looks_per_second -= 1 / entry.interval

    def quicken(self, entry: Entry[Answer], now: float) -> None:
        """Look at a job at its waits' own pace for a while."""
        entry.woken_at = now
        self.reckon(entry)

    def answered(self, entry: Entry[Answer], sent_at: float) -> None:
        """Slow down, if a call that was sent then knows all that has called for looks."""
        if entry.woken_at is not None and sent_at >= entry.woken_at + LAG:
            entry.woken_at = None
            if self.slowest:
                entry.due = None  # so that it falls into step with the slow round
            self.reckon(entry)
