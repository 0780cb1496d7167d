"""The measurements of the benchmark of a whole Airflow: plain data that its processes exchange as JSON."""

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
    """Number of task instances that waited and succeeded."""
    on_workers: int
    """Number of those for which a worker ran."""
    seconds: float
    """Seconds from the trigger of the DAG run to its end."""
    cpu: dict[str, float]
    """CPU seconds by service, from the trigger of the DAG run until its end."""
    idle: dict[str, float]
    """CPU seconds per second by service, while nothing ran."""
    memory: dict[str, float]
    """Maximum MB by service."""
    memory_together: float
    """Maximum MB of all services at the same moment."""
    calls: dict[str, int]
    """AWS calls by operation."""
    twice: int
    """Number of task instances that started more than one job."""
    delays: list[float]
    """Seconds from each job's end to its task's end; sorted."""
    picked_up: list[float] = field(default_factory=list)
    """When the triggerer began each start, in seconds from the first; sorted. Of what starts there."""
    submitted: list[float] = field(default_factory=list)
    """When each job was submitted, in seconds from the first of these; sorted."""

    @property
    def counted(self) -> float:
        """Return the CPU seconds of all services that count."""
        return sum(value for name, value in self.cpu.items() if name not in NOT_COUNTED)

    @property
    def each(self) -> float:
        """Return the CPU seconds for each wait that succeeded."""
        return self.counted / self.succeeded if self.succeeded else math.nan

    @property
    def idle_seconds(self) -> float:
        """Return the CPU seconds that the idle stack would have used in this time."""
        return self.seconds * sum(value for name, value in self.idle.items() if name not in NOT_COUNTED)

    @property
    def each_above_idle(self) -> float:
        """Return the CPU seconds for each wait that succeeded, without those of the idle stack."""
        return (self.counted - self.idle_seconds) / self.succeeded if self.succeeded else math.nan


def part_of(values: Sequence[float], part: float) -> float:
    """Return the value that the given share of sorted values does not exceed."""
    return values[max(0, math.ceil(part * len(values)) - 1)] if values else math.nan


@dataclass(frozen=True)
class Held:
    """What a triggerer needed for many waits of one kind."""

    waits: int
    memory_fresh: dict[str, float]
    """MB of the processes ``supervisor`` and ``runner`` before the first wait."""
    memory_before: dict[str, float]
    """The same after the start of the first waits, with all that is loaded once."""
    memory_begun: dict[str, float]
    """The same after the start of all waits."""
    memory_after: dict[str, float]
    """The same at the end."""
    begun_in: float
    """Seconds until all waits were in the triggerer."""
    steady: float
    """Seconds for which they then ran."""
    cpu: float
    """CPU seconds of the triggerer in that time."""
    blocked_beginning: float
    """The longest time in seconds for which the event loop was blocked during the start."""
    blocked_steady: float
    """The same afterwards."""

    @property
    def once(self) -> float:
        """Return the MB that the first waits need."""
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
    """The same with a trigger that only sleeps."""
    lost: int
    """Number of waits whose task did not succeed."""
    describes_per_second: float
    busiest: int
    """Describe calls in the busiest second."""
    budget: float
    calls: int
    drain_seconds: float
    blocked_draining: float
    delays: list[float]
