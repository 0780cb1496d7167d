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
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.demo import home as private
from airflow_jobflow.local.demo.following import LogReader
from airflow_jobflow.local.demo.scenarios import SCENARIOS, Result, Scenario
from airflow_jobflow.local.demo.screen import Screen

if TYPE_CHECKING:
    from airflow_jobflow.local.demo.following import JobFollower

AT_ONCE: Final = 2
"""Scenarios that run at a time: most of one is the start of Airflow, and a small machine has two cores."""
INTERRUPTED: Final = 130
"""Exit code of what Ctrl-C ended, as shells have it."""
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
    private.interrupt_on_signals()
    directory: Path = given.home.resolve() / "demo"
    screen = Screen()
    try:
        with private.entered(directory):
            return _Demo(directory, screen).run(scenarios)
    except private.InUseError as error:
        screen.say(str(error))
        return 2


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
        self._screen.say(
            "Sample flows, run by Airflow against an AWS on this machine: no account is needed.", bold=True
        )
        for scenario in scenarios:
            self._screen.say(f"  {scenario.name:<{self._screen.width}}  {scenario.description}")
        self._screen.say(f"All that is written is in {self._directory}: Airflow's full log of each run is there too.\n")
        results = None
        with contextlib.suppress(KeyboardInterrupt):
            results = self._results(scenarios)
        with private.uninterrupted():
            left = private.left_running("HOME", str(self._directory))
            private.stop(left)
        if results is None:
            self._screen.say("\nStopped; nothing is left running.")
            return INTERRUPTED
        self._report(results, time.monotonic() - started)
        for process in left:
            self._screen.say(f"Left running, and now stopped: process {process.pid}", bold=True)
        return 1 if left or any(result.wrong() for result in results) else 0

    def _results(self, scenarios: Sequence[Scenario]) -> list[Result]:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario")
        try:
            template = pool.submit(self._database)
            import airflow_jobflow.local.server  # noqa: F401 -- takes a second or two, meanwhile

            futures = [pool.submit(self._scenario, scenario, template.result()) for scenario in scenarios]
            return [future.result() for future in futures]
        finally:
            with private.uninterrupted():
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _database(self) -> Path:
        return private.empty_database(self._directory.parent)

    def _scenario(self, scenario: Scenario, template: Path) -> Result:
        """Run a scenario against an AWS of its own."""
        from airflow_jobflow.local.demo import outputs
        from airflow_jobflow.local.demo.following import JobFollower
        from airflow_jobflow.local.faults import Faults
        from airflow_jobflow.local.samples import provision
        from airflow_jobflow.local.server import LocalAws

        home = self._directory / scenario.slug
        private.copy_database(template, home)
        with LocalAws() as aws:
            provision(aws.endpoint_url)
            aws.set_faults(Faults.from_json(scenario.faults))
            follower = JobFollower(aws, scenario.crowd)
            follower.calls.clear()
            before = aws.calls
            environment = private.airflow_environment(home, aws.environment())
            log = home.with_suffix(".log")
            started = time.monotonic()
            self._screen.tell(scenario.name, f"starts: airflow dags test {scenario.dag_id}")
            with _running(scenario, environment, log) as process, contextlib.closing(LogReader(log)) as reader:
                self._follow(scenario, process, follower, reader)
                exit_code = process.poll()
            seconds, calls = time.monotonic() - started, aws.calls - before - follower.calls
            reads = ""
            if scenario.reads:
                reads = outputs.READERS[scenario.reads[0]](aws)
                self._screen.tell(scenario.name, f"read back: {reads}")
            return Result(
                scenario=scenario,
                jobs=tuple(follower.jobs.values()),
                exit_code=exit_code,
                seconds=seconds,
                calls=calls,
                reads=reads,
                notifications=tuple(reader.notifications),
                log=log,
                left=tuple(each.pid for each in private.left_running("AWS_ENDPOINT_URL", aws.endpoint_url)),
            )

    def _follow(
        self, scenario: Scenario, process: subprocess.Popen[bytes], follower: JobFollower, reader: LogReader
    ) -> None:
        """Tell what happens until the run and its jobs have ended, or it is time to stop."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not self._stop.is_set():
            over = process.poll() is not None
            for change in follower.look():
                self._screen.tell(scenario.name, str(change))
            for said in reader.look():
                self._screen.tell(scenario.name, said)
            if over:
                if follower.over:
                    return
                deadline = min(deadline, time.monotonic() + LAST_EVENTS)
            self._stop.wait(LOOK_EVERY)

    def _report(self, results: Sequence[Result], seconds: float) -> None:
        """The table, and what went wrong."""
        self._screen.say()
        self._screen.table(
            ("Flow", "Jobs", "How they ended", "DAG run", "Seconds", "AWS calls", "As meant"),
            [_row(each) for each in results],
        )
        calls = sum((result.calls for result in results), Counter[str]())
        names = ", ".join(f"{name.partition('.')[2]} {number}" for name, number in calls.most_common())
        self._screen.say(
            f"\nIn all {seconds:.0f} s and {calls.total()} AWS calls, those of the jobs themselves included: {names}."
        )
        if not any(result.wrong() for result in results):
            self._screen.say("Every flow ended as it should.", bold=True)
        for result in results:
            for wrong in result.wrong():
                self._screen.say(f"{result.scenario.name} went wrong: {wrong}", bold=True)
            if result.wrong():
                lines = result.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                self._screen.say("\n".join([f"Airflow's log is {result.log}, its last lines:", *lines]))


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.scenario.name,
        result.jobs_started(),
        result.how_jobs_ended(),
        {None: "stopped", 0: "success"}.get(result.exit_code, "failed"),
        f"{result.seconds:.1f}",
        str(result.calls.total()),
        "NO" if result.wrong() else "yes",
    )


@contextlib.contextmanager
def _running(scenario: Scenario, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``airflow dags test`` of a scenario; it does not outlive the context."""
    command = private.airflow("dags", "test", scenario.dag_id, "-c", json.dumps(scenario.conf))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m airflow_jobflow.local.demo", description="Run the sample flows.")
    parser.add_argument(
        "--home", type=Path, default=private.HOME, help="where everything is written (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
