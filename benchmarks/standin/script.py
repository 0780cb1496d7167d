"""The common part of the stand-ins of all services: jobs whose states follow the clock, rendered once per state."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from benchmarks.figures import Scenario

REGION = "eu-central-1"
ACCOUNT = "123456789012"

FAILING = 0.05
"""The share of failing jobs, so that a side that does not read the responses is detected."""

Each = TypeVar("Each")


@dataclass
class Script:
    """One scripted job.

    :param key: the key that a side waits for.
    :param name: its name in requests and responses.
    :param scope: its ECS cluster or Glue job, if the service has one.
    :param seconds: its duration.
    :param began: seconds since the epoch.
    """

    key: str
    name: str
    scope: str
    seconds: float
    fails: bool
    began: float = 0.0
    status: str = ""
    rendered: bytes = b""

    @property
    def ends(self) -> float:
        """Return its end in seconds since the epoch."""
        return self.began + self.seconds


@dataclass(frozen=True)
class Answer:
    """The response to a call.

    :param jobs: the number of jobs in it.
    :param error: the error code, if it is an error.
    """

    body: bytes
    jobs: int = 0
    status: str = "200 OK"
    error: str = ""
    content_type: str = "application/json"

    @classmethod
    def refusal(cls, code: str, message: str, status: str = "400 Bad Request") -> Answer:
        """Return the error with which AWS rejects a call."""
        return cls(json.dumps({"__type": code, "message": message}).encode(), status=status, error=code)


class Service(ABC):
    """The stand-in for one service; a subclass defines its jobs and the calls that it supports."""

    PHASES: ClassVar[Sequence[tuple[float, str]]]
    """The statuses of a job by the share of its duration from which on it has them."""
    ENDS: ClassVar[tuple[str, str]]
    """The final statuses of a successful and of a failed job."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed)
        self.jobs: dict[str, Script] = {}
        self.calls: Mapping[str, Callable[[dict[str, Any], float], Answer]] = {}
        """The function for each operation, which gets the request and the time."""

    def add(self, key: str, name: str, scope: str = "") -> Script:
        """Add a job to the script."""
        seconds = self.rng.uniform(self.scenario.shortest, self.scenario.longest)
        job = self.jobs[name] = Script(key, name, scope, seconds, self.rng.random() < FAILING)
        return job

    def start(self, now: float) -> dict[str, tuple[float, bool]]:
        """Start all jobs; return when they will end and whether they fail, by their keys."""
        for job in self.jobs.values():
            job.began, job.status = now, ""
            self.rendered(job, now)  # so that the first responses take no longer than others
        return {job.key: (job.ends, job.fails) for job in self.jobs.values()}

    def rendered(self, job: Script, now: float) -> bytes:
        """Return the current part of a response about a job."""
        status = self.status(job, now)
        if status != job.status:
            job.status = status
            job.rendered = json.dumps(self.detail(job, status)).encode()
        return job.rendered

    def status(self, job: Script, now: float) -> str:
        """Return the current status of a job, as the service names it."""
        if now >= job.ends:
            return self.ENDS[job.fails]
        return next(status for part, status in reversed(self.PHASES) if now - job.began >= part * job.seconds)

    @abstractmethod
    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Return a job with this status as in a describe call."""

    def listed(self, jobs: Iterable[Script], now: float) -> bytes:
        """Render several jobs as a JSON list."""
        return b"[" + b", ".join(self.rendered(job, now) for job in jobs) + b"]"


def parts(known: Mapping[str, Each], names: Iterable[str]) -> tuple[list[Each], list[str]]:
    """Return the known ones of these names, and the unknown names."""
    names = list(names)
    return [known[name] for name in names if name in known], [name for name in names if name not in known]
