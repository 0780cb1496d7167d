"""Runs a schedule on a local AWS and a small Airflow, and checks the result."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from airflow_jobflow.aws import Access, forget_clients
from airflow_jobflow.local import LocalAws
from airflow_jobflow.reaper import stop_orphans
from tests.chaos.core import PICK_UP, Airflow
from tests.chaos.judge import DEPLOYMENT, Counts, Orphan, judge, orphans
from tests.chaos.schedules import AWS_FAULTS, PROCESS_FAULTS, AwsFaults, Kill, RunSpec, Schedule, tasks_of
from tests.chaos.state import Run
from tests.stack.ledger import Ledger

PATIENCE: Final = 60.0
"""Seconds in which every task must end after the end of all faults."""
STOPPED_WITHIN: Final = 12.0
"""Seconds in which stops in the background must be done: repeated stops have pauses of two seconds."""
AGE: Final = 700.0
"""Seconds by which the reaper's clock is ahead, because jobs younger than ten minutes are never stopped."""

REAPS_EVERY: Final = 1.0
"""Seconds between two runs of a reaper that runs all the time."""
AFTER_KILL: Final = 6.0
"""Seconds after a kill in which a worker may stop its job."""

_numbers = itertools.count(1)


class Player:
    """Runs one schedule.

    :param reaps: whether the orphan reaper runs all the time, including for young jobs. Then few orphans are left to
        count; it must not stop other jobs.
    """

    def __init__(
        self, aws: LocalAws, ledger: Ledger, schedule: Schedule, directory: Path, *, reaps: bool = False
    ) -> None:
        self._aws = aws
        self._ledger = ledger
        self._schedule = schedule
        self._faults = AwsFaults(aws)
        self._dice = random.Random(schedule.seed)
        self._directory = directory
        self._reaps = reaps
        self._runs: dict[int, Run] = {}
        self.runs: list[Run] = []

    def play(self) -> Counts:
        """Run the schedule, end all faults, and check the result."""
        environment = self._aws.environment(self._schedule.credentials)  # type: ignore[arg-type]
        counts = Counts(schedules=1)
        tokens = [f"t{next(_numbers):04}-" for _ in self._schedule.runs]
        for token, spec in zip(tokens, self._schedule.runs, strict=True):
            if spec.kind == "crawl":
                self._ledger.provision_crawler(token)
        with Airflow(self._directory, environment) as airflow:
            with self._reaping(airflow):
                self._run_events(airflow, tokens)
                self._end_faults(airflow)
                self._await(airflow.settled, PATIENCE)
            self._await(lambda: not orphans(self._ledger, self.runs), STOPPED_WITHIN, every=0.5)
            left = orphans(self._ledger, self.runs)
            counts.before = [self._described(each) for each in left if each.moment != PICK_UP and each.job.is_marked]
            counts.in_pick_up = [
                self._described(each) for each in left if each.moment == PICK_UP and each.job.is_marked
            ]
            counts.unmarked = [self._described(each) for each in left if not each.job.is_marked]
            self._reap(airflow, counts, {each.job.job_id for each in left})
            judge(self._ledger, self.runs, counts)
            counts.wrong += [f"the small Airflow has failed: {error!r}" for error in airflow.errors]
        return counts

    def _described(self, orphan: Orphan) -> str:
        faults = self._faults.around(orphan.at, AFTER_KILL)
        return f"{orphan}; then AWS: {', '.join(faults) or 'well'}; seed {self._schedule.seed}"

    def _run_events(self, airflow: Airflow, tokens: list[str]) -> None:
        events: list[tuple[float, Callable[[], object]]] = []
        for number, spec in enumerate(self._schedule.runs):
            events.append((spec.at, partial(self._trigger, airflow, number, tokens[number], spec)))
        for kill in self._schedule.kills:
            events.append((kill.at, partial(self._kill, airflow, kill)))
            if kill.outage:
                name, begins, ends = kill.outage
                events.append((begins, partial(self._faults.begin, name, ends - begins)))
                events.append((ends, partial(self._faults.end, name)))
        for fault in self._schedule.faults:
            begin: Callable[[], object]
            end: Callable[[], object]
            if fault.name in AWS_FAULTS:
                begin = partial(self._faults.begin, fault.name, fault.lasts)
                end = partial(self._faults.end, fault.name)
            else:
                first, last = PROCESS_FAULTS[fault.name]
                begin, end = partial(first, airflow, self._dice), partial(last, airflow, self._dice)
            events += [(fault.at, begin), (fault.at + fault.lasts, end)]
        began = time.monotonic()
        for at, event in sorted(events, key=lambda each: each[0]):
            time.sleep(max(0.0, began + at - time.monotonic()))
            event()

    def _trigger(self, airflow: Airflow, number: int, token: str, spec: RunSpec) -> None:
        code = spec.code if spec.kind not in ("crawl", "deadline") else 0
        run = airflow.run(f"dag_{spec.kind}", token, code, tasks_of(spec.kind, token, spec.seconds, code))
        self._runs[number] = run
        self.runs.append(run)

    def _kill(self, airflow: Airflow, kill: Kill) -> None:
        run = self._runs[kill.run]
        if kill.act == "run failed":
            airflow.mark_run_failed(run)
            return
        open_tis = [ti for ti in run.tis if not ti.finished]
        if open_tis:
            ti = self._dice.choice(open_tis)
            if kill.act == "clear":
                airflow.clear(ti)
            else:
                airflow.mark(ti, kill.act)

    def _end_faults(self, airflow: Airflow) -> None:
        self._faults.clear()
        airflow.slots, airflow.api_fails = 4, False
        for number in (1, 2):
            airflow.start_triggerer(number)

    @contextlib.contextmanager
    def _reaping(self, airflow: Airflow) -> Iterator[None]:
        """Run the reaper repeatedly during the block, if requested."""
        over = threading.Event()

        def reap() -> None:
            while not over.wait(REAPS_EVERY):
                self._stop_orphans(airflow)

        reaper = threading.Thread(target=reap)
        if self._reaps:
            reaper.start()
        yield
        over.set()
        if self._reaps:
            reaper.join()

    def _stop_orphans(self, airflow: Airflow) -> dict[str, Any]:
        """Run the reaper of the package."""
        os.environ.update(self._aws.environment())
        return stop_orphans(
            job_queues=["hello-world-queue"],
            clusters=["jobflow"],
            glue_jobs=["stack-job"],
            access=Access(None, "us-east-1", None, None),
            dry_run=False,
            deployment_id=DEPLOYMENT,
            states=airflow.states,
            now=lambda: time.time() + AGE,
        )

    def _reap(self, airflow: Airflow, counts: Counts, known: set[str]) -> None:
        forget_clients()
        report = self._stop_orphans(airflow)
        counts.wrong += [
            f"the reaper has stopped {each}"
            for each in report["jobs"]
            if each["action"] == "stopped" and each["job_id"] not in known
        ]
        counts.wrong += [
            f"the reaper could not list or stop: {report}"
            for _ in report["problems"] or range(report["counts"]["stop_failed"])
        ]
        self._await(lambda: not self._marked(), STOPPED_WITHIN, every=0.2)
        counts.after = [self._described(each) for each in self._marked()]

    def _marked(self) -> list[Orphan]:
        """Return the orphans that the reaper can find."""
        return [each for each in orphans(self._ledger, self.runs) if each.job.is_marked]

    @staticmethod
    def _await(look: Callable[[], Any], patience: float, every: float = 0.1) -> None:
        deadline = time.monotonic() + patience
        while not look() and time.monotonic() < deadline:
            time.sleep(every)
