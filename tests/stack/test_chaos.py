"""Random schedules of faults: DAG runs of all kinds, and whatever can go wrong, at moments that a seed decides.

Several schedules are played at once, each a few seconds after the one before, in one stack. ``SEED`` and ``SCHEDULES``
say which and how many; ``make chaos`` sets them. What fails names the seed of its wave, which repeats it, as far as
processes can be repeated.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.stack import verdicts
from tests.stack.kit import Kit, Run

SCHEDULES: Final = int(os.environ.get("SCHEDULES") or 10)
SEED: Final = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
AT_ONCE: Final = 10
"""Schedules of a wave."""
APART: Final = 3.0
"""Seconds between the beginnings of two of them."""
LENGTH: Final = 10.0
"""Seconds in which the faults of a schedule begin."""
RUNS: Final = 3
FAULTS: Final = 3


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, for a while.

    :param begin: makes it happen.
    :param end: makes it good again; what has ended meanwhile, for want of it, is started with it.
    :param lasts: seconds for which it stays so, at least and at most.
    :param weight: how often it is drawn, against the others.
    """

    begin: Callable[[Kit], None]
    end: Callable[[Kit], None]
    lasts: tuple[float, float] = (1.0, 6.0)
    weight: int = 3


def of_service(how: str, service: str, number: int = 1, **more: Any) -> Fault:
    """Make a fault of doing something to an instance of a service."""
    return Fault(
        lambda kit: getattr(kit.stack, how)(service, number), lambda kit: kit.stack.recover(service, number), **more
    )


def of_aws(**which: Any) -> Fault:
    """Make a fault of having the local AWS fail."""
    return Fault(lambda kit: kit.faults(**which), lambda kit: kit.faults())


STARTS: Final = ["batch.SubmitJob", "ecs.RunTask", "glue.StartJobRun", "glue.StartCrawler"]

KINDS: Final[Mapping[str, Fault]] = {
    "worker 1 is killed": of_service("kill", "worker"),
    "triggerer 1 is killed": of_service("kill", "triggerer"),
    "triggerer 2 is told to end": of_service("stop", "triggerer", 2),
    "triggerer 1 freezes": of_service("pause", "triggerer", lasts=(2.0, 15.0)),
    "the scheduler is killed": of_service("kill", "scheduler"),
    "the API server freezes": of_service("pause", "api-server", lasts=(1.0, 4.0)),
    "Postgres is restarted": Fault(
        lambda kit: kit.stack.stop("postgres"), lambda kit: kit.stack.revive(), (1.0, 3.0), weight=1
    ),
    "AWS cannot be reached": Fault(lambda kit: kit.stack.gate.close(), lambda kit: kit.stack.gate.open()),
    "AWS freezes": of_service("pause", "aws"),
    "AWS throttles": of_aws(calls_per_second=2),
    "a third of the calls fail": of_aws(error_every=3),
    "a third of the calls is cut off": of_aws(drop_every=3),
    "answers to starts are lost": of_aws(lose_answers=2, actions=STARTS),
}
"""What may go wrong."""

DAGS: Final = ("stack_batch_again", "stack_batch_many", "stack_services", "stack_crawl", "stack_maps")


@dataclass(frozen=True)
class Schedule:
    """What happens when; two of the same seed are the same.

    :param runs: the DAG runs to trigger, with their conf, by the second at which.
    :param faults: names of faults, and for how long, by the second at which.
    """

    seed: int
    runs: Sequence[tuple[float, str, Mapping[str, Any]]]
    faults: Sequence[tuple[float, str, float]]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Draw one."""
        dice = random.Random(seed)
        runs = sorted(
            (
                dice.uniform(0, LENGTH / 2),
                dice.choice(DAGS),
                {"seconds": dice.randint(0, 8), "code": dice.choice([0, 0, 3])},
            )
            for _ in range(RUNS)
        )
        names = sorted(KINDS)
        drawn = dice.sample(names, FAULTS, counts=[KINDS[name].weight for name in names])
        faults = sorted(
            (dice.uniform(1, LENGTH), name, round(dice.uniform(*KINDS[name].lasts), 1)) for name in sorted(set(drawn))
        )
        return cls(seed, runs, faults)

    def __str__(self) -> str:
        lines = [(at, f"{dag_id} {dict(conf)}") for at, dag_id, conf in self.runs]
        lines += [(at, f"{name}, for {lasts} s") for at, name, lasts in self.faults]
        return "\n".join([f"seed {self.seed}", *(f"{at:5.1f} s  {words}" for at, words in sorted(lines))])


class Wave:
    """Schedules that are played at once.

    :param seed: of the first one; the next one's is the next.
    """

    def __init__(self, kit: Kit, seed: int, size: int) -> None:
        self._kit = kit
        self._schedules = [Schedule.of(seed + number) for number in range(size)]
        self.runs: list[tuple[Run, int]] = []
        """The DAG runs, and the code with which the jobs of each end."""

    def play(self) -> None:
        """Let it happen; at the end all is whole again."""
        happenings: list[tuple[float, Callable[[], None]]] = []
        for number, schedule in enumerate(self._schedules):
            for at, dag_id, conf in schedule.runs:
                run = self._kit.new_run(dag_id)
                self.runs.append((run, conf["code"]))
                happenings.append((number * APART + at, lambda run=run, conf=conf: self._trigger(run, conf)))  # type: ignore[misc]
            for at, name, lasts in schedule.faults:
                fault = KINDS[name]
                happenings.append((number * APART + at, lambda fault=fault: fault.begin(self._kit)))  # type: ignore[misc]
                happenings.append((number * APART + at + lasts, lambda fault=fault: fault.end(self._kit)))  # type: ignore[misc]
        begun = time.monotonic()
        for at, happens in sorted(happenings, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            happens()
        self._kit.mend()
        self._kit.stack.repair()

    def _trigger(self, run: Run, conf: Mapping[str, Any]) -> None:
        for service in ("postgres", "api-server"):  # without them nobody could be told
            self._kit.stack.recover(service)
        run.trigger(**conf)

    def __str__(self) -> str:
        return "\n".join(str(schedule) for schedule in self._schedules)


counted: Counter[str] = Counter()
"""What all waves so far came to."""


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_a_wave_of_random_schedules(kit: Kit, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs started are the attempts meant, none runs unwanted, no task waits for ever, every outcome is its job's."""
    size, began = min(AT_ONCE, SCHEDULES - first), time.monotonic()
    wave = Wave(kit, SEED + first, size)
    again = f"SEED={SEED + first} SCHEDULES={size}\n{wave}"
    with capsys.disabled():
        print(f"\n{first + size} of {SCHEDULES}: {again}")  # noqa: T201 -- to repeat it by
    wave.play()
    breaches = [breach for run, code in wave.runs for breach in verdicts.breaches(kit, run, code)]
    counted.update(
        {"schedule": size, "DAG run": len(wave.runs), "job": sum(len(run.started) for run, _ in wave.runs)},
        **Counter(breach.kind for breach in breaches),
    )
    told = ", ".join(f"{counted[name]} {name}s" for name in ("schedule", "DAG run", "job", *verdicts.KINDS))
    with capsys.disabled():
        print(f"So far {told}; this wave took {time.monotonic() - began:.0f} s")  # noqa: T201 -- the figures
    assert not breaches, "\n".join([*map(str, breaches), again])
    kit.is_quiet()


def test_a_seed_gives_one_schedule() -> None:
    """A failure can be repeated."""
    assert str(Schedule.of(SEED)) == str(Schedule.of(SEED))
