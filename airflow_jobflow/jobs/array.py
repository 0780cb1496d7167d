"""How many of an array's or a map's jobs may fail. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_jobflow.jobs.model import ArrayProgress


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The failed children that still count as success: whichever of the two allows more.

    :param count: how many; 0 or more.
    :param percentage: how many of a hundred; 0 to 100.
    """

    count: int = 0
    percentage: float = 0.0

    def allows(self, failed: int, size: int) -> bool:
        """Whether so many failures out of so many children still count as success."""
        return failed <= max(self.count, size * self.percentage / 100)

    def covers(self, array: ArrayProgress | None) -> bool:
        """Whether a failed array is a success nevertheless."""
        return array is not None and array.done == array.size and self.allows(array.failed, array.size)
