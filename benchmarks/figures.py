"""What is asked of a run and what came out of it: plain data that travels between the benchmark's processes as JSON.

Standard library only, for the Amazon provider's side loads it in another environment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["jobflow", "amazon"]

NAMES: dict[Side, str] = {"jobflow": "airflow-jobflow", "amazon": "Amazon provider"}

BATCH = 100
"""The most jobs that one DescribeJobs call looks at."""


@dataclass(frozen=True)
class Scenario:
    """Jobs that all start when the clock does, and how they are waited for.

    :param waits: how many jobs there are, with one wait for each.
    :param shortest, longest: seconds that jobs take; evenly spread by the seed.
    :param interval: seconds between two looks at one job.
    :param budget: describe calls a second that our watcher may make; means nothing to the other side.
    :param throttle: calls that the stand-in answers in any one second; None for all of them.
    """

    waits: int
    shortest: float
    longest: float
    interval: int
    budget: float = 5.0
    throttle: int | None = None
    seed: int = 1


@dataclass(frozen=True)
class Meter:
    """What the stand-in counted."""

    calls: list[tuple[float, int]]
    """The calls that were answered: seconds since the clock started, and how many jobs each asked for."""
    throttled: int
    cpu: float
    """CPU seconds of the stand-in itself."""
    slowest: float
    """The longest it took to answer a call, in seconds."""
    answer_bytes: int
    """The mean size of one job in an answer."""

    @property
    def total(self) -> int:
        """Calls made, answered or not."""
        return len(self.calls) + self.throttled

    def per_sweep(self, scenario: Scenario) -> float:
        """Calls it took to look once at every job, while all of them were running."""
        sizes = [size for at, size in self.calls if at < scenario.shortest]
        return scenario.waits * len(sizes) / sum(sizes) if sizes else math.nan

    def busiest(self) -> int:
        """The most calls that were answered within one second."""
        times = [at for at, _ in self.calls]
        most = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most


@dataclass(frozen=True)
class Waited:
    """What one side measured of itself, counted from after its imports."""

    cpu: float
    """CPU seconds of the process, all threads."""
    memory: float
    """MB by which its resident memory grew, at the most."""
    blocked: float
    """The longest that the event loop did not get round to what was due, in seconds."""
    collected: float
    """The longest pause for Python's garbage collector, which stops every thread, in seconds."""
    collected_before: float
    """What one full garbage collection took after the imports, before there was anything to wait for."""
    delays: list[float]
    """For each wait that was answered rightly, the seconds from the job's end to the trigger's event; sorted."""
    wrong: int
    """Waits that were told something else than what had become of the job, or that raised."""
    versions: dict[str, str]
    late_imports: list[str] = field(default_factory=list)
    """Packages that were loaded only while waiting, and therefore counted."""

    def delay(self, part: float) -> float:
        """The delay that the given part of all waits does not exceed."""
        return self.delays[max(0, math.ceil(part * len(self.delays)) - 1)] if self.delays else math.nan


@dataclass(frozen=True)
class Run:
    """One side in one scenario."""

    side: Side
    scenario: Scenario
    waited: Waited
    meter: Meter

    @property
    def answered(self) -> int:
        """How many waits were answered rightly."""
        return len(self.waited.delays)


@dataclass(frozen=True)
class Import:
    """What importing a side's operators costs a process that has loaded ``airflow.sdk``."""

    module: str
    milliseconds: float
    """The median of several fresh processes."""
    boto3: bool
    """Whether it loads boto3."""


@dataclass(frozen=True)
class Results:
    """Everything that a report is made of."""

    date: str
    machine: dict[str, str]
    runs: list[Run]
    imports: dict[Side, Import]
    minutes: float
    quick: bool

    def run(self, side: Side, waits: int, throttle: int | None = None) -> Run | None:
        """Find a run."""
        wanted = (side, waits, throttle)
        return next((r for r in self.runs if (r.side, r.scenario.waits, r.scenario.throttle) == wanted), None)

    @property
    def compared(self) -> Sequence[int]:
        """The numbers of waits that both sides had, in order."""
        return sorted({r.scenario.waits for r in self.runs if r.side == "amazon"})

    @property
    def many(self) -> Sequence[Run]:
        """The runs that only our side had."""
        return [r for r in self.runs if r.scenario.waits not in self.compared]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Results:
        """Build it from what ``to_dict`` gave."""
        runs = [
            Run(run["side"], Scenario(**run["scenario"]), Waited(**run["waited"]), Meter(**run["meter"]))
            for run in data["runs"]
        ]
        imports: dict[Side, Import] = {side: Import(**figure) for side, figure in data["imports"].items()}
        return cls(**{**data, "runs": runs, "imports": imports})
