"""``python -m airflow_jobflow.local.demo``: the sample flows, run by Airflow against an AWS on this machine.

What always holds:

- Every scenario has a local AWS, an Airflow home and a database of its own, so that two can run at a time, and what is
  counted in one is its own.
- Nothing is written outside the home, nothing is left running, and a real AWS cannot be reached (see `home`).
- The exit code is 0 only if every scenario ended as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from airflow_jobflow.local import home as private
from airflow_jobflow.local.scenarios import SCENARIOS, LogReader, Result, Scenario
from airflow_jobflow.local.screen import Screen

if TYPE_CHECKING:
    from airflow_jobflow.local.following import JobFollower

AT_ONCE: Final = 2
LOOK_EVERY: Final = 0.2
"""Seconds between two looks at what has happened."""
PATIENCE: Final = 180.0
"""Seconds after which a scenario that has not ended is ended."""
LAST_EVENTS: Final = 5.0
"""Seconds given to the last events to arrive."""
LOG_LINES: Final = 20
"""Last lines of Airflow's log that are shown of a scenario that went wrong."""


def main(arguments: Sequence[str] | None = None, scenarios: Sequence[Scenario] = SCENARIOS) -> int:
    """Run the scenarios; returns the exit code."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    directory: Path = given.home.resolve() / "demo"
    directory.mkdir(parents=True, exist_ok=True)
    screen = Screen()
    with (given.home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            screen.say(f"Another demo is running in {directory}")
            return 2
        shutil.rmtree(directory)
        private.enter(directory)
        return _Demo(directory, screen).run(scenarios)


class _Demo:
    """One run of the demo, in a directory."""

    def __init__(self, directory: Path, screen: Screen) -> None:
        self._directory = directory
        self._screen = screen
        self._stop = threading.Event()

    def run(self, scenarios: Sequence[Scenario]) -> int:
        """Run them, `AT_ONCE` at a time, and say how it went."""
        self._screen.width = max(len(scenario.name) for scenario in scenarios)
        started = time.monotonic()
        self._screen.say("Sample flows, run by Airflow against an AWS on this machine: no account is needed.", bold=True)
        for scenario in scenarios:
            self._screen.say(f"  {scenario.name:<{self._screen.width}}  {scenario.description}")
        self._screen.say(f"All that is written is in {self._directory}\n")
        try:
            results = self._results(scenarios)
        except KeyboardInterrupt:
            self._screen.say("\nStopped; nothing is left running.")
            return 130
        finally:
            left = private.left_running("HOME", str(self._directory))
            private.stop(left)
        self._report(results, time.monotonic() - started)
        for process in left:
            self._screen.say(f"Left running, and now stopped: process {process.pid}")
        return 1 if left or any(result.wrong() for result in results) else 0

    def _results(self, scenarios: Sequence[Scenario]) -> list[Result]:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario")
        try:
            template = pool.submit(self._database)
            import airflow_jobflow.local.server  # noqa: F401 -- takes a second or two, meanwhile

            futures = [pool.submit(self._scenario, scenario, template.result()) for scenario in scenarios]
            return [future.result() for future in futures]
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _database(self) -> Path:
        return private.empty_database(self._directory.parent)

    def _scenario(self, scenario: Scenario, template: Path) -> Result:
        """Run a scenario against an AWS of its own."""
        from airflow_jobflow.local.following import JobFollower
        from airflow_jobflow.local.samples import provision
        from airflow_jobflow.local.server import LocalAws

        home = self._directory / scenario.slug
        private.copy_database(template, home)
        with LocalAws() as aws:
            provision(aws.endpoint_url)
            follower = JobFollower(aws)
            not_airflows = aws.calls
            environment = private.airflow_environment(home, aws.environment())
            log = home.with_suffix(".log")
            started = time.monotonic()
            self._screen.tell(scenario.name, f"starts: airflow dags test {scenario.dag_id}")
            with log.open("wb") as output, _started(scenario, environment, output) as process:
                reader = LogReader(log)
                self._follow(scenario, process, follower, reader)
                exit_code = process.poll()
            seconds = time.monotonic() - started
            self._wait_for_last_events(scenario, follower)
            left = private.left_running("AWS_ENDPOINT_URL", aws.endpoint_url)
            calls = aws.calls
            calls.subtract(not_airflows)
            calls.subtract(follower.calls_since)
        return Result(
            scenario=scenario,
            jobs=tuple(follower.jobs.values()),
            exit_code=exit_code,
            seconds=seconds,
            calls=+calls,
            notifications=tuple(reader.notifications),
            log=log,
            left=tuple(process.pid for process in left),
        )
