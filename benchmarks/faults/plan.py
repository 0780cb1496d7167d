"""The measured outages and their requirements: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from benchmarks.figures import Meter, Process, Scenario
from benchmarks.standin.outage import CONNECTION_KEY, CREDENTIALS_PATH

LATENESS = 2.0
"""Maximum poll intervals by which a wait may end after the recovery, or its job's end, whichever is later."""

MAX_THREADS = 20
"""Maximum number of threads, regardless of the number of scopes."""

BUDGET = 5.0
"""Describe calls per second that all scopes of a connection, region and service share; the default."""

LIFETIME = 10.0
"""Seconds after which clients are rebuilt, in scenarios in which an outage includes a rebuild. Default: 900."""


@dataclass(frozen=True)
class Kind:
    """What fails.

    :param title: the title in the report.
    :param environment: additional environment variables of the waiting process.
    :param conn_id: the Airflow connection that is used.
    """

    title: str
    environment: Mapping[str, str] = field(default_factory=dict)
    conn_id: str | None = None

    def variables(self, url: str) -> dict[str, str]:
        """Return the environment variables for a stand-in at this URL."""
        return {name: value.format(url=url) for name, value in self.environment.items()}


CONNECTIONS = {"AIRFLOW__SECRETS__BACKEND": "benchmarks.faults.connections.Connections"}

KINDS: dict[str, Kind] = {
    "denied": Kind("`batch:DescribeJobs` is denied (403 `AccessDeniedException`)"),
    "html": Kind("every call is answered with 403 and an HTML page"),
    "metadata": Kind(
        "the instance's metadata service does not answer",
        {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}",
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        },
    ),
    "container": Kind(
        "the container's credentials endpoint answers 500; credentials expire",
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{{url}}{CREDENTIALS_PATH}",
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        },
    ),
    "connection": Kind("lookups of the Airflow connection fail", CONNECTIONS, "aws_bench"),
    "connection_default": Kind("lookups of `aws_default` fail, which exists", CONNECTIONS, "aws_default"),
}
"""By the name of the outage in a scenario."""

CONNECTION = {
    "conn_type": "aws",
    "login": CONNECTION_KEY,
    "password": "secret",
    "extra": {"region_name": "eu-central-1"},
}


@dataclass(frozen=True)
class Endured:
    """The result of waits with an outage.

    :param told: for each wait with the right result, when its job ended and when the wait did, in seconds since the
        start of the clock.
    :param errors: the errors of the other waits, with their numbers.
    :param logged: warnings and errors in the log, by their message.
    """

    scenario: Scenario
    process: Process
    told: list[tuple[float, float]]
    errors: dict[str, int]
    logged: dict[str, int]
    meter: Meter

    @property
    def lost(self) -> int:
        """Return the number of waits without the right result."""
        return self.scenario.waits - len(self.told)

    @property
    def lateness(self) -> list[float]:
        """Return by how many poll intervals the waits were late, sorted."""
        asked = self.scenario
        late = [told - (max(end, asked.outage_to) if told >= asked.outage_from else end) for end, told in self.told]
        return sorted(max(0.0, seconds) / asked.interval for seconds in late)

    @property
    def calls_meanwhile(self) -> int:
        """Return the number of describe calls during the outage."""
        asked, meter = self.scenario, self.meter
        return sum(asked.fails_at(at) for at in [*meter.refused, *(at for at, _, _ in meter.calls)])

    @property
    def calls_after(self) -> int:
        """Return the number of describe calls in the first minute after it."""
        asked, meter = self.scenario, self.meter
        return sum(0 <= at - asked.outage_to < 60 for at in [*meter.refused, *(at for at, _, _ in meter.calls)])

    @property
    def met(self) -> bool:
        """Whether all requirements are met."""
        return not self.lost and not self.meter.stops and max(self.lateness) <= LATENESS


@dataclass(frozen=True)
class Scoped:
    """How often scopes were described.

    :param threads: the maximum number of threads of the process.
    """

    scenario: Scenario
    process: Process
    answered: int
    threads: int
    meter: Meter

    @property
    def busiest_of_clock(self) -> int:
        """Return the maximum number of calls within one second of the clock."""
        seconds = [int(at) for at in self.meter.times()]
        return max(map(seconds.count, set(seconds)), default=0)

    @property
    def rate(self) -> float:
        """Return the calls per second while all jobs were running."""
        times = [at for at in self.meter.times() if at < self.scenario.shortest]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


@dataclass(frozen=True)
class Delays:
    """The durations of calls of fast connections in seconds, while another connection's client is built slowly or not.

    :param calls: all of them, sorted.
    :param first: the first call of each connection, which includes building its client; sorted.
    :param slow: the duration of the first call of the slow connection; None if there was none.
    """

    calls: list[float]
    first: list[float]
    slow: float | None

    def part(self, part: float) -> float:
        """Return the delay that the given share of all calls does not exceed."""
        return self.calls[max(0, round(part * len(self.calls)) - 1)]


def outages(seed: int, *, quick: bool) -> list[Scenario]:
    """Return the outages to measure."""
    if quick:
        waits = partial(Scenario, 200, shortest=4, longest=24, interval=2, seed=seed)
        minute, half_a_minute, begin = 10.0, 5.0, 6.0
    else:
        waits = partial(Scenario, 1000, shortest=15, longest=150, interval=10, seed=seed)
        minute, half_a_minute, begin = 60.0, 30.0, 20.0
    from_the_start = [("metadata", minute), ("connection", minute), ("connection_default", minute)]
    in_use = [("denied", minute), ("container", minute), ("connection", minute), ("html", half_a_minute)]
    in_use += [("connection_default", minute)]
    return [
        *(_outage(waits, kind, begin, seconds) for kind, seconds in in_use),
        *(_outage(waits, kind, 0.0, seconds) for kind, seconds in from_the_start),
    ]


def _outage(waits: partial[Scenario], kind: str, begin: float, seconds: float) -> Scenario:
    return waits(outage=kind, outage_from=begin, outage_to=begin + seconds, conn_id=KINDS[kind].conn_id)


def scopes(seed: int, *, quick: bool) -> list[Scenario]:
    """Return the runs with many scopes, with one job in each."""
    seconds = 20 if quick else 250
    many = partial(Scenario, 300, shortest=seconds, longest=seconds + 50, interval=10, budget=BUDGET, scopes=300)
    return [many(service="glue_run", seed=seed), many(service="ecs", seed=seed)]
