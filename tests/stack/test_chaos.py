"""Random schedules of faults and kills: DAG runs of all kinds, and what can go wrong, at moments that a seed decides.

Several schedules are played at once, each a few seconds after the one before, in one stack. ``SEED`` and ``SCHEDULES``
say which and how many; ``make chaos`` sets them. What fails names the seed of its wave, which repeats it, as far as
processes can be repeated.

A kill is what a user does to a task or a run. Nothing of ours may learn of it, so that an orphan is left: those are
counted and listed by the moment of the kill, then the orphan reaper runs, and none may be left.
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
"""Schedules of a wave."""
APART: Final = 6.0
"""Seconds between the beginnings of two of them."""
LENGTH: Final = 20.0
"""Seconds in which the faults of a schedule begin."""
RUNS: Final = 5
FAULTS: Final = 2
LONG: Final = 600
"""Seconds that a job takes which is not to end by itself: its run is killed."""
OUTAGES: Final = ((10.0, 30.0), (10.0, 30.0), (60.0, 90.0))
"""Seconds for which AWS cannot be reached around a kill, at least and at most: one of these."""
STOPPED_WITHIN: Final = 60.0
"""Seconds after all was mended in which what stops jobs in the background must be done: it pauses for up to 20 s."""
AROUND: Final = 30.0
"""Seconds before and after a kill in which what went wrong is listed with an orphan."""
KILLED_WITHIN: Final = 120.0
"""Seconds in which a run must have come so far that it is killed."""
ENDED_WITHIN: Final = 420.0
"""Seconds in which every run must have ended: a try waits for AWS for a minute, and then for its next one."""


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


def of_aws(lasts: tuple[float, float] = (2.0, 15.0), **which: Any) -> Fault:
    """Make a fault of having the local AWS fail."""
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
"""What may go wrong."""

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
    """What happens when; two of the same seed are the same.

    :param runs: the DAG runs to trigger, with their conf, by the second at which.
    :param kills: what users do to them.
    :param faults: names of faults, and for how long, by the second at which.
    """

    seed: int
    runs: Sequence[tuple[float, str, Mapping[str, Any]]]
    kills: Sequence[Kill]
    faults: Sequence[tuple[float, str, float]]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Draw one."""
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
        """Draw what users do to a run; one whose jobs do not end is killed for good."""
        long = conf["seconds"] == LONG
        if not long and dice.random() < 0.6:
            return []
        after = dice.choice(["the trigger", "a worker", "a worker", *["the deferral"] * 4])
        # Most of the moments that are of interest lie in the first seconds.
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
    """Schedules that are played at once.

    :param seed: of the first one; the next one's is the next.
    """

    def __init__(self, kit: Kit, seed: int, size: int) -> None:
        self._kit = kit
        self._schedules = [Schedule.of(seed + number) for number in range(size)]
        self._users: list[threading.Thread] = []
        """What follows runs, to kill them."""
        self._lock = threading.Lock()
        self._outages = 0
        """How many outages are under way."""
        self.runs: list[tuple[Run, int]] = []
        """The DAG runs, and the code with which the jobs of each end."""
        self.events: list[tuple[float, str]] = []
        """What went wrong when, in seconds since the epoch."""
        self.killed: list[Killed] = []
        """What users did, and how it stood then."""

    def play(self) -> None:
        """Let it happen; at the end all is whole again."""
        happenings: list[tuple[float, Callable[[], object]]] = []
        for number, schedule in enumerate(self._schedules):
            happenings += [(number * APART + at, happens) for at, happens in self._happenings(schedule)]
        begun = time.monotonic()
        for at, happens in sorted(happenings, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            happens()
        for user in self._users:
            user.join()
        self._kit.mend()
        self._kit.stack.repair()

    def _happenings(self, schedule: Schedule) -> list[tuple[float, Callable[[], object]]]:
        happenings: list[tuple[float, Callable[[], object]]] = []
        runs = [(at, self._kit.new_run(dag_id), conf) for at, dag_id, conf in schedule.runs]
        for at, run, conf in runs:
            self.runs.append((run, conf["code"]))
            happenings.append((at, lambda run=run, conf=conf: self._trigger(run, conf)))  # type: ignore[misc]
        for kill in schedule.kills:
            at, run, _ = runs[kill.run]
            happenings.append((at, lambda run=run, kill=kill: self._follow(run, kill)))  # type: ignore[misc]
        for at, name, lasts in schedule.faults:
            fault = KINDS[name]
            happenings.append((at, lambda name=name: self._begin(name)))  # type: ignore[misc]
            happenings.append((at + lasts, lambda fault=fault: self._end(fault)))  # type: ignore[misc]
        return happenings

    def _follow(self, run: Run, kill: Kill) -> None:
        user = threading.Thread(target=self._act, args=(run, kill))
        self._users.append(user)
        user.start()

    def _act(self, run: Run, kill: Kill) -> None:
        """Do what a user does, when a run has come so far."""
        try:
            eventually(lambda: kill.is_due(run), f"{kill.after} of {run}", KILLED_WITHIN)
        except StackError:
            kill = replace(kill, outage=None)  # it never comes so far: now, then
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
        for service in ("postgres", "api-server"):  # without them nobody could be told
            self._kit.stack.recover(service)

    def _trigger(self, run: Run, conf: Mapping[str, Any]) -> None:
        self._reachable()
        run.trigger(**conf)

    def around(self, at: float) -> str:
        """Say what went wrong around a kill."""
        near = [(when - at, words) for when, words in self.events if -AROUND < when - at < AROUND]
        return ", ".join(f"{words} {seconds:+.0f} s" for seconds, words in sorted(near)) or "nothing"

    def __str__(self) -> str:
        return "\n".join(str(schedule) for schedule in self._schedules)


class Result:
    """What a wave came to.

    :param wave: one that was played.
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
        self.before = self._left(lambda _: True)
        stopped = reap(self._kit, self._runs, monkeypatch)
        known = {each.job.job_id for each in self.before}
        self.breaches += [
            verdicts.Breach(verdicts.WRONG, f"the reaper has stopped {job}")
            for job in stopped["jobs"]
            if job["action"] == "stopped" and job["job_id"] not in known
        ]
        after = self._left(lambda each: each.job.is_marked)
        self.breaches += [verdicts.Breach(verdicts.ORPHAN, f"after the reaper: {each}") for each in after]

    def _left(self, counts: Callable[[Orphan], bool]) -> list[Orphan]:
        """Return the orphans that are left when what stops them has had its time."""

        def look() -> list[Orphan]:
            return [each for each in orphans_of(self._kit, self._runs, self._wave.killed) if counts(each)]

        try:
            eventually(lambda: not look(), "the end of all orphans", STOPPED_WITHIN, every=3)
        except StackError:
            return look()
        return []

    def count(self) -> Counter[str]:
        """Return the figures."""
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
"""What all waves so far came to."""
moments: Counter[str] = Counter()
"""Kills by their moment."""
listed: list[str] = []
"""Orphans before the reaper ran."""


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_a_wave_of_random_schedules(
    kit: Kit, first: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs started are the attempts meant, no task waits for ever, every outcome is its job's, and no orphan stays."""
    size, began = min(AT_ONCE, SCHEDULES - first), time.monotonic()
    wave = Wave(kit, SEED + first, size)
    again = f"SEED={SEED + first} SCHEDULES={size} AT_ONCE={size}\n{wave}"
    with capsys.disabled():
        print(f"\n{first + size} of {SCHEDULES}: {again}")  # noqa: T201 -- to repeat it by
    wave.play()
    result = Result(kit, wave)
    result.judge(monkeypatch)
    counted.update(result.count())
    counted["schedules"] += size
    moments.update(each.moment for each in wave.killed)
    listed.extend(f"{each}; around it: {wave.around(each.at)}" for each in result.before)
    with capsys.disabled():
        print("\n".join(f"{number:5} {name}" for name, number in counted.items()))  # noqa: T201 -- the figures
        print(f"{0:5}", ", ".join(sorted(name for name in verdicts.KINDS if not counted[name])))  # noqa: T201
        print("Kills by their moment:", dict(moments))  # noqa: T201
        print("Orphans before the reaper ran:", *listed, sep="\n  ")  # noqa: T201
        print(f"This wave took {time.monotonic() - began:.0f} s")  # noqa: T201
    assert not result.breaches, "\n".join([*map(str, result.breaches), again])
    kit.ledger.stop_all()
    kit.is_quiet()


def test_a_seed_gives_one_schedule() -> None:
    """A failure can be repeated."""
    assert str(Schedule.of(SEED)) == str(Schedule.of(SEED))
