"""What is asked of a run and what came out of it: plain data that travels between the benchmark's processes as JSON.

Standard library only, because the Amazon provider's side loads it in another environment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["jobflow", "amazon"]

NAMES: dict[Side, str] = {"jobflow": "airflow-jobflow", "amazon": "Amazon provider"}

Call = tuple[float, str, int]
"""A call that was answered: seconds since the clock started, the operation, and the number of jobs in its answer."""


@dataclass(frozen=True)
class Scenario:
    """Jobs that all start when the clock does, and how they are waited for; of a map, the items.

    :param waits: how many jobs there are, with one wait for each; of a map, how many items it has.
    :param shortest, longest: seconds that jobs take; evenly spread by the seed.
    :param interval: poll interval in seconds.
    :param budget: describe calls a second that our watcher may make; means nothing to the other side.
    :param throttle: calls that the stand-in answers in any one second; None for all of them.
    :param service: see ``benchmarks.services``; ``batch_map`` for a map.
    :param scopes: over how many Glue jobs the runs are spread.
    :param latency: seconds that the stand-in takes for each answer.
    :param outage: what fails for a while, one of ``benchmarks.faults.plan.KINDS``; empty for nothing.
    :param outage_from, outage_to: when it does, in seconds after the clock started.
    :param conn_id: the Airflow connection that our side uses; None for boto3's own credentials.
    :param lines_per_second: how many lines each job writes to its log in a second.
    """

    waits: int
    shortest: float
    longest: float
    interval: int
    budget: float = 5.0
    throttle: int | None = None
    seed: int = 1
    service: str = "batch"
    scopes: int = 1
    latency: float = 0.0
    outage: str = ""
    outage_from: float = 0.0
    outage_to: float = 0.0
    conn_id: str | None = None
    lines_per_second: float = 0.0

    def fails_at(self, seconds: float) -> bool:
        """Return whether the outage is on, so many seconds after the clock started."""
        return bool(self.outage) and self.outage_from <= seconds < self.outage_to


@dataclass(frozen=True)
class Meter:
    """What the stand-in counted."""

    calls: list[Call]
    throttled: int
    cpu: float
    """CPU seconds of the stand-in itself."""
    slowest: float
    """The longest it took to make an answer, in seconds."""
    answer_bytes: int
    """The mean size of one job in an answer."""
    started: int = 0
    """How many items of a map had a job started."""
    twice: int = 0
    """How many had more than one."""
    refused: list[float] = field(default_factory=list)
    """When calls were rejected because of an outage, in seconds since the clock started."""
    credential_requests: list[float] = field(default_factory=list)
    """When credentials were requested, answered or not."""
    stops: int = 0
    """Calls that stop or cancel jobs."""
    foreign: int = 0
    """Calls with credentials of another account."""
    by_scope: dict[str, int] = field(default_factory=dict)
    """Calls by Glue job or ECS cluster, while all jobs were running."""

    @property
    def total(self) -> int:
        """Calls made, answered or not."""
        return len(self.calls) + self.throttled + len(self.refused)

    @property
    def by_operation(self) -> dict[str, int]:
        """Calls that were answered, by operation."""
        return dict(Counter(operation for _, operation, _ in self.calls))

    def times(self, operation: str | None = None) -> list[float]:
        """When calls were answered, of one operation or of all."""
        return [at for at, each, _ in self.calls if operation in (None, each)]

    def per_sweep(self, scenario: Scenario) -> float:
        """Calls to describe every job once, while all of them were running."""
        sizes = [size for at, _, size in self.calls if at < scenario.shortest]
        return scenario.waits * len(sizes) / sum(sizes) if sizes else math.nan

    def busiest(self, operation: str | None = None) -> int:
        """The most calls that were answered within one second."""
        times = self.times(operation)
        most = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def rate(self, operation: str) -> float:
        """Calls a second, from the first to the last."""
        times = self.times(operation)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else math.nan


@dataclass(frozen=True)
class Process:
    """What a process measured of itself, counted from after its imports."""

    cpu: float
    """CPU seconds, all threads."""
    seconds: float
    memory: float
    """MB by which its resident memory grew, at the most."""
    resident: float
    """MB of resident memory at the most, with all that is imported."""
    blocked: float
    """The longest step on the event loop: how long it did not get to what was due, in seconds, without the time for
    which the garbage collector stopped it."""
    collected: float
    """The longest pause for Python's garbage collector, which stops every thread, in seconds."""
    collected_before: float
    """What one full garbage collection took after the imports, before there was anything to do."""
    versions: dict[str, str]
    late_imports: list[str]
    """Modules that were loaded only afterwards, and therefore counted."""
    blocked_cpu: float = 0.0
    """CPU seconds of the loop's thread in its longest step; the rest of it went to other threads or processes."""
    collected_in_all: float = 0.0
    """The sum of all pauses for the garbage collector, in seconds."""
    collected_cpu: float = 0.0
    """CPU seconds of the garbage collector."""


@dataclass(frozen=True)
class Waited:
    """How one side waited."""

    process: Process
    delays: list[float]
    """For each wait that was answered rightly, the seconds from the job's end to the trigger's event; sorted."""
    wrong: int
    """Waits with a wrong result, or that raised."""

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
class MapPart:
    """One process that had a hand in a map."""

    name: str
    process: Process
    carried: int
    """Bytes of what it handed on: the deferral's message, the trigger's event, the result."""


@dataclass(frozen=True)
class MapRunner:
    """A map, from the worker that defers through the triggerer to the worker that returns the result."""

    scenario: Scenario
    parts: list[MapPart]
    right: int
    """Items whose outcome is in the result."""
    kills: int
    """How often the triggerer was killed, and another one went on."""
    meter: Meter


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
    maps: list[MapRunner]
    imports: dict[Side, Import]
    minutes: float
    quick: bool

    def run(self, side: Side, service: str, waits: int, scopes: int | None = None) -> Run | None:
        """Find a run that was not throttled."""
        return next(
            (
                run
                for run in self.runs
                if (run.side, run.scenario.service, run.scenario.waits) == (side, service, waits)
                and scopes in (None, run.scenario.scopes)
                and not run.scenario.throttle
            ),
            None,
        )

    def compared(self, service: str = "batch") -> Sequence[int]:
        """The numbers of waits of a service that both sides had, in order."""
        theirs, ours = (
            {run.scenario.waits for run in self.runs if run.side == side and run.scenario.service == service}
            for side in NAMES
        )
        return sorted(theirs & ours)

    def pairs(self, service: str, waits: int) -> list[tuple[Run, Run]]:
        """Our runs of so many waits of a service, each with the one of the other side."""
        theirs = self.run("amazon", service, waits)
        ours = [
            run
            for run in self.runs
            if (run.side, run.scenario.service, run.scenario.waits) == ("jobflow", service, waits)
        ]
        return [(run, theirs) for run in ours] if theirs else []

    @property
    def alone(self) -> Sequence[Run]:
        """The runs that only our side had."""
        return [run for run in self.runs if run.scenario.waits not in self.compared(run.scenario.service)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Results:
        """Build it from what ``to_dict`` gave."""
        runs = [
            Run(run["side"], Scenario(**run["scenario"]), waited(run["waited"]), Meter(**run["meter"]))
            for run in data["runs"]
        ]
        maps = [
            MapRunner(
                Scenario(**each["scenario"]),
                [map_part(part) for part in each["parts"]],
                each["right"],
                each["kills"],
                Meter(**each["meter"]),
            )
            for each in data["maps"]
        ]
        imports: dict[Side, Import] = {side: Import(**figure) for side, figure in data["imports"].items()}
        return cls(**{**data, "runs": runs, "maps": maps, "imports": imports})


def waited(data: dict[str, Any]) -> Waited:
    """Build it from what ``asdict`` gave."""
    return Waited(**{**data, "process": Process(**data["process"])})


def map_part(data: dict[str, Any]) -> MapPart:
    """Build it from what ``asdict`` gave."""
    return MapPart(**{**data, "process": Process(**data["process"])})
