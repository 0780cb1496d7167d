"""The scenario and the results of a run: plain data that the benchmark's processes exchange as JSON.

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
"""A call with a response: seconds since the start of the clock, the operation, and the number of jobs in the response.
"""


@dataclass(frozen=True)
class Scenario:
    """Jobs that all start with the clock, and how they are waited for; for a map, the items.

    :param waits: the number of jobs, with one wait for each; for a map, the number of items.
    :param shortest, longest: durations of jobs in seconds; evenly distributed by the seed.
    :param interval: poll interval in seconds.
    :param budget: maximum describe calls per second of our watcher; ignored by the other side.
    :param throttle: maximum calls per second to which the stand-in responds; None for no limit.
    :param service: see ``benchmarks.services``; ``batch_map`` for a map.
    :param scopes: the number of Glue jobs to which the runs belong.
    :param latency: seconds that the stand-in takes for each response.
    :param outage: what fails for a while, one of ``benchmarks.faults.plan.KINDS``; empty for nothing.
    :param outage_from, outage_to: the time of the outage, in seconds since the start of the clock.
    :param conn_id: the Airflow connection of our side; None for boto3's own credentials.
    :param lines_per_second: number of lines that each job writes to its log per second.
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
        """Return whether the outage is active at a time in seconds."""
        return bool(self.outage) and self.outage_from <= seconds < self.outage_to


@dataclass(frozen=True)
class Meter:
    """The counts of the stand-in."""

    calls: list[Call]
    throttled: int
    cpu: float
    """CPU seconds of the stand-in itself."""
    slowest: float
    """Maximum seconds to build a response."""
    answer_bytes: int
    """Mean size of one job in a response."""
    started: int = 0
    """Number of items of a map for which a job was started."""
    twice: int = 0
    """Number of items with more than one job."""
    refused: list[float] = field(default_factory=list)
    """The times of calls that were rejected because of an outage, in seconds since the epoch."""
    credential_requests: list[float] = field(default_factory=list)
    """The times of requests for credentials, with or without a response."""
    stops: int = 0
    """Calls that stop or cancel jobs."""
    foreign: int = 0
    """Calls with credentials of another account."""
    by_scope: dict[str, int] = field(default_factory=dict)
    """Calls by Glue job or ECS cluster, while all jobs were running."""

    @property
    def total(self) -> int:
        """All calls, with or without a response."""
        return len(self.calls) + self.throttled + len(self.refused)

    @property
    def by_operation(self) -> dict[str, int]:
        """Return the calls with a response, by operation."""
        return dict(Counter(operation for _, operation, _ in self.calls))

    def times(self, operation: str | None = None) -> list[float]:
        """Return the times of calls with a response, of one operation or of all."""
        return [at for at, each, _ in self.calls if operation in (None, each)]

    def per_poll_cycle(self, scenario: Scenario) -> float:
        """Return the calls needed to describe every job once, while all of them were running."""
        sizes = [size for at, _, size in self.calls if at < scenario.shortest]
        return scenario.waits * len(sizes) / sum(sizes) if sizes else math.nan

    def busiest(self, operation: str | None = None) -> int:
        """Return the maximum number of calls with a response within one second."""
        times = self.times(operation)
        most = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def rate(self, operation: str) -> float:
        """Return the calls per second, from the first to the last."""
        times = self.times(operation)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else math.nan


@dataclass(frozen=True)
class Process:
    """The measurements of a process about itself, after its imports."""

    cpu: float
    """CPU seconds, all threads."""
    seconds: float
    memory: float
    """MB by which its resident memory grew, at most."""
    resident: float
    """Maximum MB of resident memory, including all imports."""
    blocked: float
    """The longest step of the event loop in seconds, during which nothing else could run, without the time in which the
    garbage collector stopped it.
    """
    collected: float
    """The longest pause for Python's garbage collector, which stops every thread, in seconds."""
    collected_before: float
    """The duration of one full garbage collection after the imports."""
    versions: dict[str, str]
    late_imports: list[str]
    """Modules that were loaded only afterwards, and are therefore included."""
    blocked_cpu: float = 0.0
    """CPU seconds of the loop's thread in its longest step; the rest of it was used by other threads or processes."""
    collected_in_all: float = 0.0
    """The sum of all pauses for the garbage collector, in seconds."""
    collected_cpu: float = 0.0
    """CPU seconds of the garbage collector."""


@dataclass(frozen=True)
class Waited:
    """The waits of one side."""

    process: Process
    delays: list[float]
    """For each wait with the right result, the seconds from the job's end to the trigger's event; sorted."""
    wrong: int
    """Waits with a wrong result or an error."""

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
        """Return the number of waits with the right result."""
        return len(self.waited.delays)


@dataclass(frozen=True)
class MapPart:
    """One process that executed a part of a map."""

    name: str
    process: Process
    carried: int
    """Bytes of its result: the deferral's message, the trigger's event, or the map's result."""


@dataclass(frozen=True)
class MapRunner:
    """A map, from the worker that defers through the triggerer to the worker that returns the result."""

    scenario: Scenario
    parts: list[MapPart]
    right: int
    """Items whose outcome is in the result."""
    kills: int
    """How often the triggerer was killed, and another one continued."""
    meter: Meter


@dataclass(frozen=True)
class Import:
    """The cost of importing a side's operators in a process that has loaded ``airflow.sdk``."""

    module: str
    milliseconds: float
    """The median of several new processes."""
    boto3: bool
    """Whether it loads boto3."""


@dataclass(frozen=True)
class Results:
    """All data of a report."""

    date: str
    machine: dict[str, str]
    runs: list[Run]
    maps: list[MapRunner]
    imports: dict[Side, Import]
    minutes: float
    quick: bool

    def run(self, side: Side, service: str, waits: int, scopes: int | None = None) -> Run | None:
        """Return a run that was not throttled."""
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
        """Return the numbers of waits of a service that both sides had, in order."""
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
        """Return the runs of our side only."""
        return [run for run in self.runs if run.scenario.waits not in self.compared(run.scenario.service)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Results:
        """Build it from the result of ``to_dict``."""
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
    """Build it from the result of ``asdict``."""
    return Waited(**{**data, "process": Process(**data["process"])})


def map_part(data: dict[str, Any]) -> MapPart:
    """Build it from the result of ``asdict``."""
    return MapPart(**{**data, "process": Process(**data["process"])})
