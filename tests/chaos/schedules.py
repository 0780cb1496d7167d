"""Random schedules: DAG runs of all kinds, kills, outages and faults, at times that a seed decides.

Durations are a tenth of real ones, see `lines.SCALE`: an outage of 1 to 9 s corresponds to one of 10 to 90 s.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from airflow_jobflow.local import Faults, LocalAws
from airflow_jobflow.local.faults import PROXY_PAGE, CannedResponse
from tests.aws_actions import DESCRIBES, LISTS, STARTS, STOPS, TAGGING, wrapped_throttling
from tests.chaos.core import Airflow
from tests.chaos.state import TaskSpec

RUNS: Final = 6
LENGTH: Final = 10.0
"""Seconds in which kills and faults start."""

AWS_FAULTS: Final[Mapping[str, Faults]] = {
    "AWS refuses connections": Faults(outage=True, lasts=1),
    "AWS hangs": Faults(hang=30),
    "AWS throttles": Faults(calls_per_second=2),
    "throttling comes as another error": Faults(
        respond_with=wrapped_throttling("batch.*", "ecs.*", calls_per_second=3)
    ),
    "a third of the calls fail": Faults(error_every=3),
    "a third of the calls is cut off": Faults(drop_every=3),
    "answers to starts are lost": Faults(lose_answers=3, actions=STARTS),
    "describes are denied": Faults(denied=DESCRIBES),
    "stops are denied": Faults(denied=STOPS),
    "lists are denied": Faults(denied=LISTS),
    "everything is denied": Faults(denied=("*",)),
    "TagResource is denied": Faults(denied=TAGGING),
    "the metadata service is down": Faults(denied=("metadata.*",), expired_calls=4),
    "a proxy answers with HTML": Faults(respond_with=(CannedResponse(status=403, body=PROXY_PAGE),)),
    "a gateway answers with HTML": Faults(respond_with=(CannedResponse(status=502, body=PROXY_PAGE),)),
    "starts are visible late": Faults(visible_after=1.0),
    "ECS has no capacity": Faults(run_task_failures=2),
}
"""The possible faults of AWS; their durations are in the schedule."""

OUTAGES: Final = (
    "AWS refuses connections",
    "AWS hangs",
    "stops are denied",
    "everything is denied",
    "a third of the calls fail",
)
"""The possible faults around a kill."""

Begin = Callable[[Airflow, random.Random], object]


def _signal(number: int, what: int) -> Begin:
    return lambda airflow, _: airflow.signal_triggerer(number, what)


def _set(name: str, value: Any) -> Begin:
    return lambda airflow, _: setattr(airflow, name, value)


def _start(airflow: Airflow, _: random.Random) -> None:
    for number in (1, 2):
        airflow.start_triggerer(number)


def _all_triggerers(airflow: Airflow, _: random.Random) -> None:
    for number in (1, 2):
        airflow.signal_triggerer(number, signal.SIGKILL)


PROCESS_FAULTS: Final[Mapping[str, tuple[Begin, Begin]]] = {
    "a task's process is killed": (lambda airflow, dice: airflow.kill_worker(dice), lambda *_: None),
    "the workers are shut down": (lambda airflow, _: airflow.end_workers(), lambda *_: None),
    "triggerer 1 is killed": (_signal(1, signal.SIGKILL), _start),
    "triggerer 2 is told to end": (_signal(2, signal.SIGTERM), _start),
    "triggerer 1 freezes": (_signal(1, signal.SIGSTOP), _start),
    "both triggerers are killed": (_all_triggerers, _start),
    "all workers are busy": (_set("slots", 0), _set("slots", 4)),
    "the API server fails": (_set("api_fails", True), _set("api_fails", False)),
}
"""The possible faults of Airflow: how each starts and ends."""

KINDS: Final = (
    "batch",
    "array",
    "fargate",
    "glue",
    "crawl",
    "batch_map",
    "fargate_map",
    "mapped",
    "on_worker",
    "deadline",
)


def tasks_of(kind: str, token: str, seconds: float, code: int) -> list[TaskSpec]:
    """Return the tasks of a run of a kind."""
    common: dict[str, Any] = {"token": token, "seconds": seconds, "code": code}
    quiet = {**common, "raise_on_failure": False}
    here = {**quiet, "deferrable": False}
    special = {
        "array": [TaskSpec("job", "batch", {**quiet, "array_size": 3})],
        "mapped": [TaskSpec("each", "batch", quiet, mapped=3)],
        "on_worker": [TaskSpec("job", "batch", here), TaskSpec("fargate", "fargate", here)],
        "deadline": [TaskSpec("job", "batch", {**common, "seconds": 600, "job_timeout": 4}, retries=0)],
        "batch_map": [TaskSpec("map", kind, common)],
        "fargate_map": [TaskSpec("map", kind, common)],
        "crawl": [TaskSpec("crawl", kind, common)],
    }
    return special.get(kind) or [TaskSpec("job", kind, quiet)]


@dataclass(frozen=True)
class RunSpec:
    """A run to trigger."""

    at: float
    kind: str
    seconds: float
    code: int


@dataclass(frozen=True)
class Kill:
    """An action of a user.

    :param run: number of the run.
    :param act: ``run failed``, ``failed``, ``success`` or ``clear``.
    :param outage: the fault of AWS around it, with start and end; None for none.
    """

    at: float
    run: int
    act: str
    outage: tuple[str, float, float] | None


@dataclass(frozen=True)
class Fault:
    """A fault."""

    at: float
    name: str
    lasts: float


@dataclass(frozen=True)
class Schedule:
    """The events of a schedule by time; the same seed gives the same schedule."""

    seed: int
    credentials: str
    runs: Sequence[RunSpec]
    kills: Sequence[Kill]
    faults: Sequence[Fault]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Generate a schedule."""
        dice = random.Random(seed)
        runs = sorted(
            (
                RunSpec(
                    round(dice.uniform(0, 6), 2),
                    dice.choice(KINDS),
                    dice.choice([0, 1, 2, 4, 30, 30]),
                    dice.choice([0, 0, 0, 3]),
                )
                for _ in range(RUNS)
            ),
            key=lambda each: each.at,
        )
        kills = []
        for number, run in enumerate(runs):
            # A long run is killed, because no test waits for its end.
            long = run.seconds >= 30 and run.kind not in ("deadline", "crawl")
            if long or dice.random() < 0.4:
                # Many kinds of states occur in the first seconds.
                at = run.at + (dice.uniform(0, 1.5) if dice.random() < 0.4 else dice.uniform(0, LENGTH - run.at))
                outage = None
                if dice.random() < 0.4:
                    begins = at - dice.uniform(0, 1)
                    outage = (dice.choice(OUTAGES), round(begins, 2), round(begins + dice.uniform(1, 9), 2))
                act = dice.choice(["run failed", "run failed", "failed", "success", *([] if long else ["clear"])])
                kills.append(Kill(round(at, 2), number, act, outage))
                if long and act in ("failed", "success"):
                    kills.append(Kill(round(at + dice.uniform(0, 3), 2), number, "run failed", None))
        faults = [
            Fault(round(dice.uniform(0.5, LENGTH), 2), dice.choice(sorted(AWS_FAULTS)), round(dice.uniform(0.5, 4), 1))
            for _ in range(dice.choice([0, 1, 1, 2]))
        ]
        faults += [
            Fault(
                round(dice.uniform(0.5, LENGTH), 2), dice.choice(sorted(PROCESS_FAULTS)), round(dice.uniform(0.5, 5), 1)
            )
            for _ in range(dice.choice([0, 1, 1, 2]))
        ]
        credentials = dice.choice(["static", "static", "instance", "container"])
        return cls(
            seed, credentials, runs, sorted(kills, key=lambda each: each.at), sorted(faults, key=lambda each: each.at)
        )

    def __str__(self) -> str:
        lines = [(each.at, f"run {number}: {each}") for number, each in enumerate(self.runs)]
        lines += [(each.at, f"kill of run {each.run}: {each.act}, with {each.outage}") for each in self.kills]
        lines += [(each.at, f"{each.name}, for {each.lasts} s") for each in self.faults]
        said = (f"{at:5.2f} s  {words}" for at, words in sorted(lines))
        return "\n".join([f"seed {self.seed}, {self.credentials} credentials", *said])


class AwsFaults:
    """The active faults of AWS: only the last one applies, because there is one set of faults."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._on: list[str] = []
        self._history: list[tuple[float, tuple[str, ...]]] = []
        """The earlier faults by their start."""

    def around(self, at: float, after: float) -> list[str]:
        """Return the faults that were active at a time, or started in the seconds after it."""
        before = [names for since, names in self._history if since <= at][-1:]
        later = [names for since, names in self._history if at < since <= at + after]
        return sorted({name for names in (*before, *later) for name in names})

    def begin(self, name: str, lasts: float) -> None:
        """Start a fault."""
        self._on.append(name)
        self._apply(lasts)

    def end(self, name: str) -> None:
        """End a fault."""
        if name in self._on:
            self._on.remove(name)
        self._apply(5.0)

    def clear(self) -> None:
        """End all faults."""
        self._on.clear()
        self._history.append((time.time(), ()))
        self._aws.set_faults(Faults())

    def _apply(self, lasts: float) -> None:
        self._history.append((time.time(), tuple(self._on[-1:])))
        faults = AWS_FAULTS[self._on[-1]] if self._on else Faults()
        self._aws.set_faults(replace(faults, lasts=lasts) if faults.outage else faults)
