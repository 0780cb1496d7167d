"""How many of an array's or a map's jobs may fail. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDING = 1e-6
"""What binary fractions may lose: 18.4 % of 375 is 69, not a little less."""


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
        return failed <= self.count or failed * 100 <= size * self.percentage + ROUNDING
