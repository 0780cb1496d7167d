"""What the stand-ins of all services share: jobs whose states come by the clock, rendered once for each state."""

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
"""The part of the jobs that fail, so that a side which does not read the answers is found out."""

Each = TypeVar("Each")


@dataclass
class Script:
    """One scripted job.

    :param key: what a side waits for.
    :param name: what requests and answers call it.
    :param scope: what it belongs to, where the service has such a thing.
    :param seconds: how long it takes.
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
        """When it ends, in seconds since the epoch."""
        return self.began + self.seconds


@dataclass(frozen=True)
class Answer:
    """What a call is answered with.

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
        """Refuse a call as AWS does."""
        return cls(json.dumps({"__type": code, "message": message}).encode(), status=status, error=code)


class Service(ABC):
    """The stand-in for one service; a subclass defines its jobs and the calls that it answers."""

    PHASES: ClassVar[Sequence[tuple[float, str]]]
    """From what part of a job's time on it has which status."""
    ENDS: ClassVar[tuple[str, str]]
    """The status of a job that has ended well, and of one that has failed."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed)
        self.jobs: dict[str, Script] = {}
        self.calls: Mapping[str, Callable[[dict[str, Any], float], Answer]] = {}
        """What answers which operation, given the request and the time."""

    def add(self, key: str, name: str, scope: str = "") -> Script:
        """Script a job."""
        seconds = self.rng.uniform(self.scenario.shortest, self.scenario.longest)
        job = self.jobs[name] = Script(key, name, scope, seconds, self.rng.random() < FAILING)
        return job

    def start(self, now: float) -> dict[str, tuple[float, bool]]:
        """Start all jobs; return when they will end and whether they fail, by their keys."""
        for job in self.jobs.values():
            job.began, job.status = now, ""
            self.rendered(job, now)  # so that the first answers take no longer than the others
        return {job.key: (job.ends, job.fails) for job in self.jobs.values()}

    def rendered(self, job: Script, now: float) -> bytes:
        """Return a job's part of an answer, as it is now."""
        status = self.status(job, now)
        if status != job.status:
            job.status = status
            job.rendered = json.dumps(self.detail(job, status)).encode()
        return job.rendered

    def status(self, job: Script, now: float) -> str:
        """Say how a job stands now, in the service's word."""
        if now >= job.ends:
            return self.ENDS[job.fails]
        return next(status for part, status in reversed(self.PHASES) if now - job.began >= part * job.seconds)

    @abstractmethod
    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Describe a job as the service does when it has this status."""

    def listed(self, jobs: Iterable[Script], now: float) -> bytes:
        """Render several jobs as a JSON list."""
        return b"[" + b", ".join(self.rendered(job, now) for job in jobs) + b"]"


def parts(known: Mapping[str, Each], names: Iterable[str]) -> tuple[list[Each], list[str]]:
    """Return what is known of these, and the names that are not."""
    names = list(names)
    return [known[name] for name in names if name in known], [name for name in names if name not in known]
