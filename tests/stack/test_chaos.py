"""Random schedules of faults: several DAG runs at once, and whatever can go wrong, at moments that a seed decides.

``SEED`` and ``SCHEDULES`` say which and how many; ``make chaos`` sets them. A failure names the seed of its schedule:
``SEED=<that> SCHEDULES=1`` repeats it, as far as processes can be repeated.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.stack.kit import Kit, Run

SCHEDULES: Final = int(os.environ.get("SCHEDULES") or 10)
SEED: Final = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
LENGTH: Final = 10.0
"""Seconds in which the faults of a schedule begin."""
RUNS: Final = 3
FAULTS: Final = 3


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, until the harness repairs it.

    :param begin: makes it happen.
    :param lasts: seconds for which it stays so, at least and at most.
    """

    begin: Callable[[Kit], None]
    lasts: tuple[float, float] = (1.0, 6.0)


KINDS: Final[Mapping[str, Fault]] = {
    "triggerer 1 is killed": Fault(lambda kit: kit.stack.kill("triggerer", 1)),
    "triggerer 2 is told to end": Fault(lambda kit: kit.stack.stop("triggerer", 2)),
    "triggerer 1 freezes": Fault(lambda kit: kit.stack.pause("triggerer", 1), (2.0, 15.0)),
    "the scheduler is killed": Fault(lambda kit: kit.stack.kill("scheduler")),
    "the API server freezes": Fault(lambda kit: kit.stack.pause("api-server"), (1.0, 4.0)),
    "AWS cannot be reached": Fault(lambda kit: kit.stack.gate.close()),
    "AWS freezes": Fault(lambda kit: kit.stack.pause("aws")),
    "AWS throttles": Fault(lambda kit: kit.faults(calls_per_second=2)),
    "a third of the calls fail": Fault(lambda kit: kit.faults(error_every=3)),
    "a third of the calls is cut off": Fault(lambda kit: kit.faults(drop_every=3)),
    "answers to starts are lost": Fault(
        lambda kit: kit.faults(lose_answers=2, actions=["batch.SubmitJob", "ecs.RunTask", "glue.StartJobRun"])
    ),
}
"""What may go wrong. The death of a worker is not among them: that wants attempts that find what they have started."""

DAGS: Final = ("stack_batch_again", "stack_batch_many", "stack_services")


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
        faults = sorted(
            (dice.uniform(1, LENGTH), name, round(dice.uniform(*KINDS[name].lasts), 1))
            for name in dice.sample(sorted(KINDS), FAULTS)
        )
        return cls(seed, runs, faults)

    def __str__(self) -> str:
        lines = [f"{at:5.1f} s  {dag_id} {dict(conf)}" for at, dag_id, conf in self.runs]
        lines += [f"{at:5.1f} s  {name}, for {lasts} s" for at, name, lasts in self.faults]
        return "\n".join([f"SEED={self.seed} SCHEDULES=1", *sorted(lines)])

    def play(self, kit: Kit) -> list[Run]:
        """Let it happen; at the end all is whole again."""
        begun = time.monotonic()
        made: list[Run] = []
        happenings: list[tuple[float, Callable[[], None]]] = [
            (at, lambda dag_id=dag_id, conf=conf: made.append(self._trigger(kit, dag_id, conf)))  # type: ignore[misc]
            for at, dag_id, conf in self.runs
        ]
        for at, name, lasts in self.faults:
            happenings.append((at, lambda name=name: KINDS[name].begin(kit)))  # type: ignore[misc]
            happenings.append((at + lasts, kit.mend))
        for at, happens in sorted(happenings, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            happens()
        kit.mend()
        kit.stack.repair()
        return made

    def _trigger(self, kit: Kit, dag_id: str, conf: Mapping[str, Any]) -> Run:
        kit.stack.unpause("api-server")  # it could not be told
        return kit.run(dag_id, **conf)


def holds(kit: Kit, run: Run, code: int) -> None:
    """Hold what must hold of a run, whatever went wrong around it."""
    assert run.ends() == "success", run.states
    outcomes: dict[str, dict[str, Any]] = {}
    for name in run.states:
        task_id, _, index = name.rstrip("]").partition("[")
        outcomes[name] = run.returned(task_id, map_index=int(index or -1))
    assert all(outcomes.values()), "an outcome is missing"
    started = run.started
    assert sorted(each.job_id for each in started) == sorted(each["job_id"] for each in outcomes.values())
    for name, outcome in outcomes.items():
        succeeds = code == 0 or name.startswith("each")
        if name == "array":
            assert outcome["array"]["size"] == 3
            assert outcome["array"]["succeeded"] == (3 if succeeds else 0)
            assert outcome["name"].startswith(run.token)
        else:
            own = run.token + (name[len("each[") : -1] if name.startswith("each") else "")
            run.outcome_is_its_own(outcome, own, succeeds=succeeds)
    run.is_settled()


@pytest.mark.parametrize("number", range(SCHEDULES))
def test_a_random_schedule(kit: Kit, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs started are the attempts meant, none runs unwanted, no task waits for ever, every outcome is its job's."""
    schedule = Schedule.of(SEED + number)
    with capsys.disabled():
        print(f"\n{number + 1} of {SCHEDULES}: {schedule}")  # noqa: T201 -- the seed is what a failure is repeated by
    runs = schedule.play(kit)
    codes = [conf["code"] for _, _, conf in schedule.runs]
    for run, code in zip(runs, codes, strict=True):
        holds(kit, run, code)
    kit.is_quiet()


def test_a_seed_gives_one_schedule() -> None:
    """A failure can be repeated."""
    assert str(Schedule.of(SEED)) == str(Schedule.of(SEED))
