"""What the benchmark of a whole Airflow measures: plain data that travels between its processes as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.figures import Side

Kind = Literal["sensor", "operator", "started", "fargate", "floor_start", "floor_defer"]
"""What is mapped: a sensor; an operator, started on workers, or in the triggerer (``fargate``: of Fargate tasks); and
Airflow's own floor, a timer that starts and ends in the triggerer, or is deferred by a worker and ends there."""

KINDS: Final[Mapping[Side, Sequence[Kind]]] = {
    "jobflow": ("sensor", "operator", "started", "fargate", "floor_start", "floor_defer"),
    "amazon": ("sensor", "operator"),
}
"""What each side runs, one after the other."""

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
    picked_up: list[float] = field(default_factory=list)
    """When the triggerer began each start, in seconds from the first; sorted. Of what starts there."""
    submitted: list[float] = field(default_factory=list)
    """When each job was submitted, in seconds from the first of these; sorted."""

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
class Starts:
    """Many operators that started in one triggerer, which was killed twice meanwhile."""

    waits: int
    succeeded: int
    on_workers: int
    """Those for which a worker ran."""
    started: int
    """Jobs that were started, duplicates included."""
    twice: int
    """Task instances that started more than one job."""
    killed_at: list[int]
    """How many jobs were submitted when the triggerer was killed, each time."""
    seconds: float
    """From the trigger of the first DAG run to the end of the last."""
    blocked: float
    """The longest that the event loop was blocked, in seconds."""
    floor_blocked: float
    """The same for as many timers of Airflow, which start there and do nothing."""
    calls: dict[str, int]
    """AWS calls by operation."""

    @property
    def lost(self) -> int:
        """Tasks that did not succeed."""
        return self.waits - self.succeeded


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
