"""What the benchmark of a whole Airflow measures: plain data that travels between its processes as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Side

Kind = Literal["sensor", "operator"]

NOT_COUNTED = ("aws", "init")
"""Services of the stack that are not part of what is measured."""


@dataclass(frozen=True)
class Waits:
    """One DAG run of mapped waits, on one side."""

    side: Side
    kind: Kind
    waits: int
    succeeded: int
    """Task instances that waited and succeeded."""
    on_workers: int
    """Those of them for which a worker ran."""
    seconds: float
    """From the trigger of the DAG run to its end."""
    cpu: dict[str, float]
    """CPU seconds by service, from the trigger of the DAG run until it had ended."""
    idle: dict[str, float]
    """CPU seconds a second by service, when nothing ran."""
    memory: dict[str, float]
    """MB at the most by service."""
    memory_together: float
    """MB at the most, of all at the same moment."""
    calls: dict[str, int]
    """AWS calls by operation."""
    twice: int
    """Task instances that started more than one job."""
    delays: list[float]
    """Seconds from each job's end to its task's end; sorted."""

    @property
    def counted(self) -> float:
        """All CPU seconds that count."""
        return sum(value for name, value in self.cpu.items() if name not in NOT_COUNTED)

    @property
    def each(self) -> float:
        """CPU seconds for each wait that succeeded."""
        return self.counted / self.succeeded if self.succeeded else math.nan

    @property
    def idle_seconds(self) -> float:
        """CPU seconds that the stack would have used in this time without any wait."""
        return self.seconds * sum(value for name, value in self.idle.items() if name not in NOT_COUNTED)

    @property
    def each_above_idle(self) -> float:
        """CPU seconds for each wait that succeeded, beyond what the stack uses anyhow."""
        return (self.counted - self.idle_seconds) / self.succeeded if self.succeeded else math.nan


def part_of(values: Sequence[float], part: float) -> float:
    """Return what the given part of sorted values does not exceed."""
    return values[max(0, math.ceil(part * len(values)) - 1)] if values else math.nan


@dataclass(frozen=True)
class Held:
    """What a triggerer took to hold many waits of one kind."""

    waits: int
    memory_fresh: dict[str, float]
    """MB of the processes ``supervisor`` and ``runner`` before there was any wait."""
    memory_before: dict[str, float]
    """And when the first few had begun, with all that is loaded once."""
    memory_begun: dict[str, float]
    """And when all had just begun."""
    memory_after: dict[str, float]
    """And in the end."""
    begun_in: float
    """Seconds until all were in the triggerer."""
    steady: float
    """Seconds for which they then were held."""
    cpu: float
    """CPU seconds of the triggerer in that time."""
    blocked_beginning: float
    """The longest that the event loop was blocked while they began, in seconds."""
    blocked_steady: float
    """And afterwards."""

    @property
    def once(self) -> float:
        """MB that the first few waits take."""
        return sum(self.memory_before.values()) - sum(self.memory_fresh.values())

    @property
    def each(self) -> float:
        """KB for each wait, beyond that."""
        before, after = sum(self.memory_before.values()), sum(self.memory_after.values())
        return (after - before) * 1024 / self.waits


@dataclass(frozen=True)
class Many:
    """Ten thousand waits on one triggerer."""

    ours: Held
    idle: Held
    """The same with a trigger that does nothing but sleep."""
    lost: int
    """Waits whose task did not succeed."""
    describes_per_second: float
    busiest: int
    """Describe calls in the busiest second."""
    budget: float
    calls: int
    drain_seconds: float
    blocked_draining: float
    delays: list[float]
