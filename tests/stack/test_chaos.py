"""Random schedules of faults and kills on a whole Airflow: DAG runs of all kinds, with faults at times that a seed
decides.

Several schedules run at the same time in one stack, each some seconds after the previous one. ``SEED`` and
``SCHEDULES`` set which and how many; ``make chaos`` sets them. A failure names the seed of its wave, which reproduces
it as far as processes can be reproduced.

A kill is an action of a user on a task or a run. The package may not receive it, which leaves an orphan: orphans are
counted by the state at the kill, then the orphan reaper runs, and none may be left.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from airflow_jobflow.local.faults import PROXY_PAGE, CannedResponse
from tests.aws_actions import DESCRIBES, STARTS, TAGGING, wrapped_throttling
from tests.stack import verdicts
from tests.stack.errors import StackError, eventually
from tests.stack.kills import PICK_UP, Kill, Killed, Orphan, orphans_of, reap
from tests.stack.kit import Kit, Run

SCHEDULES: Final = int(os.environ.get("SCHEDULES") or 10)
SEED: Final = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
AT_ONCE: Final = int(os.environ.get("AT_ONCE") or 5)
"""The number of schedules in a wave."""
APART: Final = 6.0
"""Seconds between the starts of two schedules."""
LENGTH: Final = 20.0
"""Seconds in which the faults of a schedule start."""
RUNS: Final = 5
FAULTS: Final = 2
LONG: Final = 600
"""The duration in seconds of a job that does not end by itself: its run is killed."""
OUTAGES: Final = ((10.0, 30.0), (10.0, 30.0), (60.0, 90.0))
"""Seconds for which AWS is unreachable around a kill, minimum and maximum: one of these."""
STOPPED_WITHIN: Final = 60.0
"""Seconds after the end of all faults for stops in the background, which pause for up to 20 s."""
AROUND: Final = 30.0
"""Seconds before and after a kill whose faults are listed with an orphan."""
KILLED_WITHIN: Final = 120.0
"""Maximum seconds until a run has reached the point at which it is killed."""
ENDED_WITHIN: Final = 420.0
"""Maximum seconds of a run: a try waits for AWS for a minute, and then for its retry."""


@dataclass(frozen=True)
class Fault:
    """A fault with a duration.

    :param begin: starts it.
    :param end: ends it; services that have ended because of it are restarted.
    :param lasts: minimum and maximum duration in seconds.
    :param weight: its probability relative to the others.
    """

    begin: Callable[[Kit], None]
    end: Callable[[Kit], None]
    lasts: tuple[float, float] = (1.0, 6.0)
    weight: int = 3


def of_service(how: str, service: str, number: int = 1, **more: Any) -> Fault:
    """Return a fault that calls a function for an instance of a service."""
    return Fault(
        lambda kit: getattr(kit.stack, how)(service, number), lambda kit: kit.stack.recover(service, number), **more
    )


def of_aws(lasts: tuple[float, float] = (2.0, 15.0), **which: Any) -> Fault:
    """Return a fault of the local AWS."""
    return Fault(lambda kit: kit.faults(**which), lambda kit: kit.faults(), lasts)


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
    "AWS refuses connections": Fault(
        lambda kit: kit.stack.gate.close(), lambda kit: kit.stack.gate.open(), lasts=(1.0, 10.0)
    ),
    "AWS freezes": of_service("pause", "aws"),
    "AWS throttles": of_aws(calls_per_second=2),
    "a third of the calls fail": of_aws(error_every=3),
    "a third of the calls is cut off": of_aws(drop_every=3),
    "answers to starts are lost": of_aws(lose_answers=2, actions=STARTS),
    "describes are denied": of_aws(denied=DESCRIBES),
    "everything is denied": of_aws(denied=["*"]),
    "TagResource is denied": of_aws(denied=TAGGING),
    "credentials have expired": of_aws(expired_calls=20),
    "throttling comes as another error": of_aws(
        respond_with=wrapped_throttling("batch.SubmitJob", "ecs.RunTask", calls_per_second=1)
    ),
    "a proxy answers with HTML": of_aws(respond_with=(CannedResponse(status=403, body=PROXY_PAGE),)),
    "a gateway answers with HTML": of_aws(respond_with=(CannedResponse(status=502, body=PROXY_PAGE),)),
}
"""The possible faults."""

DAGS: Final = (
    "stack_batch_again",
    "stack_batch_many",
    "stack_batch_many",
    "stack_services",
    "stack_services",
    "stack_crawl",
    "stack_maps",
    "stack_maps",
)


@dataclass(frozen=True)
class Schedule:
    """The events of a schedule by time; the same seed gives the same schedule.

    :param runs: the DAG runs to trigger with their conf, by second.
    :param kills: actions of users on them.
    :param faults: names and durations of faults, by second.
    """

    seed: int
    runs: Sequence[tuple[float, str, Mapping[str, Any]]]
    kills: Sequence[Kill]
    faults: Sequence[tuple[float, str, float]]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Generate a schedule."""
        dice = random.Random(seed)
        runs = sorted(
            (
                (
                    dice.uniform(0, LENGTH / 4),
                    dice.choice(DAGS),
                    {"seconds": dice.choice([0, 3, 8, LONG, LONG, LONG]), "code": dice.choice([0, 0, 3])},
                )
                for _ in range(RUNS)
            ),
            key=lambda each: each[0],
        )
        kills = [kill for number, (_, _, conf) in enumerate(runs) for kill in cls._kill(dice, number, conf)]
        names = sorted(KINDS)
        drawn = dice.sample(names, FAULTS, counts=[KINDS[name].weight for name in names])
        faults = sorted(
            (dice.uniform(1, LENGTH), name, round(dice.uniform(*KINDS[name].lasts), 1)) for name in sorted(set(drawn))
        )
        return cls(seed, runs, kills, faults)

    @staticmethod
    def _kill(dice: random.Random, number: int, conf: Mapping[str, Any]) -> list[Kill]:
        """Generate a user's action on a run; a run whose jobs do not end is always killed."""
        long = conf["seconds"] == LONG
        if not long and dice.random() < 0.6:
            return []
        after = dice.choice(["the trigger", "a worker", "a worker", *["the deferral"] * 4])
        # Most of the interesting states are in the first seconds.
        delay = dice.uniform(0, 4 if after == "the deferral" and dice.random() < 0.5 else 10)
        outage = (dice.uniform(0, 5), dice.uniform(*dice.choice(OUTAGES))) if dice.random() < 0.35 else None
        act = dice.choice(["run failed", "run failed", "failed", "success", "clear"])
        then = dice.uniform(1, LENGTH) if long and act != "run failed" else None
        return [Kill(number, after, delay, act, dice.random(), outage, then)]

    def __str__(self) -> str:
        runs = [at for at, _, _ in self.runs]
        lines = [(at, f"run {number}: {dag} {dict(conf)}") for number, (at, dag, conf) in enumerate(self.runs)]
        lines += [(runs[kill.run], str(kill)) for kill in self.kills]
        lines += [(at, f"{name}, for {lasts} s") for at, name, lasts in self.faults]
        return "\n".join([f"seed {self.seed}", *(f"{at:5.1f} s  {words}" for at, words in sorted(lines))])


class Wave:
    """Schedules that run at the same time.

    :param seed: the seed of the first one; the seed of the next one is one higher.
    """

    def __init__(self, kit: Kit, seed: int, size: int) -> None:
        self._kit = kit
        self._schedules = [Schedule.of(seed + number) for number in range(size)]
        self._users: list[threading.Thread] = []
        """The threads that wait for a run, and kill it."""
        self._lock = threading.Lock()
        self._outages = 0
        """The number of outages in progress."""
        self.runs: list[tuple[Run, int]] = []
        """The DAG runs with the exit code of their jobs."""
        self.events: list[tuple[float, str]] = []
        """The faults by their time in seconds since the epoch."""
        self.killed: list[Killed] = []
        """The kills, with the state at that time."""

    def run(self) -> None:
        """Run the schedules; at the end, there are no faults."""
        events: list[tuple[float, Callable[[], object]]] = []
        for number, schedule in enumerate(self._schedules):
            events += [(number * APART + at, event) for at, event in self._events_of(schedule)]
        begun = time.monotonic()
        for at, event in sorted(events, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            event()
        for user in self._users:
            user.join()
        self._kit.end_faults()
        self._kit.stack.repair()

    def _events_of(self, schedule: Schedule) -> list[tuple[float, Callable[[], object]]]:
        events: list[tuple[float, Callable[[], object]]] = []
        runs = [(at, self._kit.new_run(dag_id), conf) for at, dag_id, conf in schedule.runs]
        for at, run, conf in runs:
            self.runs.append((run, conf["code"]))
            events.append((at, lambda run=run, conf=conf: self._trigger(run, conf)))  # type: ignore[misc]
        for kill in schedule.kills:
            at, run, _ = runs[kill.run]
            events.append((at, lambda run=run, kill=kill: self._follow(run, kill)))  # type: ignore[misc]
        for at, name, lasts in schedule.faults:
            fault = KINDS[name]
            events.append((at, lambda name=name: self._begin(name)))  # type: ignore[misc]
            events.append((at + lasts, lambda fault=fault: self._end(fault)))  # type: ignore[misc]
        return events

    def _follow(self, run: Run, kill: Kill) -> None:
        user = threading.Thread(target=self._act, args=(run, kill))
        self._users.append(user)
        user.start()

    def _act(self, run: Run, kill: Kill) -> None:
        """Execute a user's action when a run has reached its point."""
        try:
            eventually(lambda: kill.is_due(run), f"{kill.after} of {run}", KILLED_WITHIN)
        except StackError:
            kill = replace(kill, outage=None)  # the run never reaches the point, so it is killed now
        before, lasts = kill.outage or (0.0, 0.0)
        time.sleep(max(0.0, kill.delay - before))
        if kill.outage:
            self._outage(1)
            end = threading.Timer(lasts, self._outage, [-1])
            end.start()
            self._users.append(end)
        time.sleep(min(before, kill.delay))
        self._kill(run, kill)
        if kill.then is not None:
            time.sleep(kill.then)
            self._kill(run, replace(kill, act="run failed"))

    def _kill(self, run: Run, kill: Kill) -> None:
        self._reachable()
        killed = kill.act_on(run)
        with self._lock:
            self.killed += killed

    def _outage(self, change: int) -> None:
        with self._lock:
            self._outages += change
            self.events.append((time.time(), "an outage begins" if change > 0 else "an outage ends"))
            (self._kit.stack.gate.close if self._outages else self._kit.stack.gate.open)()

    def _begin(self, name: str) -> None:
        self.events.append((time.time(), name))
        KINDS[name].begin(self._kit)

    def _end(self, fault: Fault) -> None:
        fault.end(self._kit)
        if self._outages:
            self._kit.stack.gate.close()

    def _reachable(self) -> None:
        for service in ("postgres", "api-server"):  # without triggerers no kill could be delivered
            self._kit.stack.recover(service)

    def _trigger(self, run: Run, conf: Mapping[str, Any]) -> None:
        self._reachable()
        run.trigger(**conf)

    def around(self, at: float) -> str:
        """Return the faults around a kill."""
        near = [(when - at, words) for when, words in self.events if -AROUND < when - at < AROUND]
        return ", ".join(f"{words} {seconds:+.0f} s" for seconds, words in sorted(near)) or "nothing"

    def __str__(self) -> str:
        return "\n".join(str(schedule) for schedule in self._schedules)


class Result:
    """The result of a wave.

    :param wave: a wave that has run.
    """

    def __init__(self, kit: Kit, wave: Wave) -> None:
        self._kit = kit
        self._wave = wave
        self._runs = [run for run, _ in wave.runs]
        self.breaches: list[verdicts.Breach] = []
        self.before: list[Orphan] = []
        """Orphans before the reaper ran."""

    def judge(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait for the ends of all runs, count the orphans, run the reaper, and count again."""
        for run, code in self._wave.runs:
            kills = [each for each in self._wave.killed if each.run == run.token]
            self.breaches += verdicts.breaches(self._kit, run, code, kills=kills, patience=ENDED_WITHIN)
        self.before = self._remaining_orphans(lambda _: True)
        stopped = reap(self._kit, self._runs, monkeypatch)
        known = {each.job.job_id for each in self.before}
        self.breaches += [
            verdicts.Breach(verdicts.WRONG, f"the reaper has stopped {job}")
            for job in stopped["jobs"]
            if job["action"] == "stopped" and job["job_id"] not in known
        ]
        after = self._remaining_orphans(lambda each: each.job.is_marked)
        self.breaches += [verdicts.Breach(verdicts.ORPHAN, f"after the reaper: {each}") for each in after]

    def _remaining_orphans(self, counts: Callable[[Orphan], bool]) -> list[Orphan]:
        """Return the orphans that remain after stops in the background have had enough time."""

        def look() -> list[Orphan]:
            return [each for each in orphans_of(self._kit, self._runs, self._wave.killed) if counts(each)]

        try:
            eventually(lambda: not look(), "the end of all orphans", STOPPED_WITHIN, every=3)
        except StackError:
            return look()
        return []

    def count(self) -> Counter[str]:
        """Return the counts."""
        jobs = {run.token: run.started for run in self._runs}
        killed: dict[str, Killed] = {}
        for kill in self._wave.killed:
            killed |= {job.job_id: kill for job in kill.jobs(jobs[kill.run])}
        marked = [each for each in self.before if each.job.is_marked]
        return Counter(
            {
                "DAG runs": len(jobs),
                "jobs": sum(map(len, jobs.values())),
                "kills of tasks": len(self._wave.killed),
                "killed jobs": len(killed),
                "of them killed before the pick-up": sum(each.moment == PICK_UP for each in killed.values()),
                "orphans of a kill before the pick-up": sum(each.moment == PICK_UP for each in marked),
                "other orphans before the reaper ran": sum(each.moment != PICK_UP for each in marked),
                "orphans without tags": len(self.before) - len(marked),
                **dict.fromkeys(verdicts.KINDS, 0),
            }
        ) + Counter(breach.kind for breach in self.breaches)


counted: Counter[str] = Counter()
"""The counts of all waves so far."""
moments: Counter[str] = Counter()
"""Kills by the state at that time."""
listed: list[str] = []
"""Orphans before the reaper ran."""


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_a_wave_of_random_schedules(
    kit: Kit, first: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job is started twice, no task waits forever, every outcome belongs to its job, and no orphan is left."""
    size, began = min(AT_ONCE, SCHEDULES - first), time.monotonic()
    wave = Wave(kit, SEED + first, size)
    again = f"SEED={SEED + first} SCHEDULES={size} AT_ONCE={size}\n{wave}"
    with capsys.disabled():
        print(f"\n{first + size} of {SCHEDULES}: {again}")  # noqa: T201 -- to reproduce it
    wave.run()
    result = Result(kit, wave)
    result.judge(monkeypatch)
    counted.update(result.count())
    counted["schedules"] += size
    moments.update(each.moment for each in wave.killed)
    listed.extend(f"{each}; around it: {wave.around(each.at)}" for each in result.before)
    with capsys.disabled():
        print("\n".join(f"{number:5} {name}" for name, number in counted.items()))  # noqa: T201 -- the counts
        print(f"{0:5}", ", ".join(sorted(name for name in verdicts.KINDS if not counted[name])))  # noqa: T201
        print("Kills by their moment:", dict(moments))  # noqa: T201
        print("Orphans before the reaper ran:", *listed, sep="\n  ")  # noqa: T201
        print(f"This wave took {time.monotonic() - began:.0f} s")  # noqa: T201
    assert not result.breaches, "\n".join([*map(str, result.breaches), again])
    kit.ledger.stop_all()
    kit.no_job_runs()


def test_a_seed_gives_one_schedule() -> None:
    """Otherwise a failure could not be reproduced."""
    assert str(Schedule.of(SEED)) == str(Schedule.of(SEED))
