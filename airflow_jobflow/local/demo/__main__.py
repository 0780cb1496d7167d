"""``python -m airflow_jobflow.local.demo``: run the sample flows with Airflow against the local AWS.

Invariants:

- Every scenario has its own local AWS, Airflow home and database. Two scenarios can run in parallel, and the jobs and
  calls counted for one are its own.
- Nothing is written outside the home directory, no process is left running, and a real AWS cannot be reached (see
  `home`).
- The exit code is 0 only if every scenario ended as expected.
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
from airflow_jobflow.local.demo.follower import LogReader
from airflow_jobflow.local.demo.scenarios import SCENARIOS, Result, Scenario
from airflow_jobflow.local.demo.screen import Screen

if TYPE_CHECKING:
    from airflow_jobflow.local.demo.follower import JobFollower

MAX_PARALLEL: Final = 2
"""The number of scenarios that run in parallel. Most of a scenario is Airflow's start, which needs a core."""
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as in shells: 128 + SIGINT."""
CHECK_INTERVAL: Final = 0.2
"""Seconds between two checks for new events and log lines."""
TIMEOUT: Final = 180.0
"""Seconds after which a running scenario is stopped."""
LAST_EVENTS: Final = 5.0
"""Seconds to wait for the last events after the DAG run has ended."""
LOG_LINES: Final = 20
"""The number of lines of Airflow's log to print for a scenario that did not end as expected."""


def main(arguments: Sequence[str] | None = None, scenarios: Sequence[Scenario] = SCENARIOS) -> int:
    """Run the scenarios.

    :param arguments: the command line. Default: this process's.
    :param scenarios: what to run. Default: all.
    :return: the exit code: 0 if all ended as expected, 1 if not, 2 if another demo is running, 130 after Ctrl-C.
    """
    given = _parser().parse_args(arguments)
    private.interrupt_on_signals()
    directory: Path = given.home.resolve() / "demo"
    screen = Screen()
    try:
        with private.exclusive(directory):
            return _Demo(directory, screen).run(scenarios)
    except private.InUseError as error:
        screen.print(str(error))
        return 2


class _Demo:
    """One run of the demo.

    :param directory: where to write; it is emptied first.
    :param screen: where to print.
    """

    def __init__(self, directory: Path, screen: Screen) -> None:
        self._directory = directory
        self._screen = screen
        self._stop = threading.Event()

    def run(self, scenarios: Sequence[Scenario]) -> int:
        """Run the scenarios, `MAX_PARALLEL` at a time, print the results, and return the exit code."""
        self._screen.width = max(len(scenario.name) for scenario in scenarios)
        started = time.monotonic()
        self._screen.print(
            "Running the sample flows with Airflow against the local AWS. No AWS account is needed.", bold=True
        )
        for scenario in scenarios:
            self._screen.print(f"  {scenario.name:<{self._screen.width}}  {scenario.description}")
        self._screen.print(f"All files, including Airflow's full log of each run, are in {self._directory}.\n")
        results = None
        with contextlib.suppress(KeyboardInterrupt):
            results = self._results(scenarios)
        with private.signals_ignored():
            left = private.left_running("HOME", str(self._directory))
            private.stop(left)
        if results is None:
            self._screen.print("\nStopped. No processes are left running.")
            return INTERRUPTED
        self._report(results, time.monotonic() - started)
        for process in left:
            self._screen.print(f"Process {process.pid} was still running and has been stopped.", bold=True)
        return 1 if left or any(result.problems() for result in results) else 0

    def _results(self, scenarios: Sequence[Scenario]) -> list[Result]:
        pool = ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="scenario")
        try:
            template = pool.submit(self._database)
            import airflow_jobflow.local.server  # noqa: F401 -- a second or two, in parallel

            futures = [pool.submit(self._scenario, scenario, template.result()) for scenario in scenarios]
            return [future.result() for future in futures]
        finally:
            with private.signals_ignored():
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _database(self) -> Path:
        return private.empty_database(self._directory.parent)

    def _scenario(self, scenario: Scenario, template: Path) -> Result:
        """Run a scenario against its own local AWS."""
        from airflow_jobflow.local.demo import outputs
        from airflow_jobflow.local.demo.follower import JobFollower
        from airflow_jobflow.local.faults import Faults
        from airflow_jobflow.local.samples import provision
        from airflow_jobflow.local.server import LocalAws

        home = self._directory / scenario.slug
        private.copy_database(template, home)
        with LocalAws() as aws:
            provision(aws.endpoint_url)
            aws.set_faults(Faults.from_json(scenario.faults))
            follower = JobFollower(aws, scenario.summarized_family)
            follower.calls.clear()
            before = aws.calls
            environment = private.airflow_environment(home, aws.environment())
            log = home.with_suffix(".log")
            started = time.monotonic()
            self._screen.event(scenario.name, f"starting: airflow dags test {scenario.dag_id}")
            with _running(scenario, environment, log) as process, contextlib.closing(LogReader(log)) as reader:
                self._follow(scenario, process, follower, reader)
                exit_code = process.poll()
            seconds, calls = time.monotonic() - started, aws.calls - before - follower.calls
            reads = ""
            if scenario.reads:
                reads = outputs.READERS[scenario.reads[0]](aws)
                self._screen.event(scenario.name, f"output: {reads}")
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
        """Print what happens until the DAG run and its jobs have ended, the timeout passes, or the demo is stopped."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and not self._stop.is_set():
            has_ended = process.poll() is not None
            for change in follower.poll():
                self._screen.event(scenario.name, str(change))
            for line in reader.poll():
                self._screen.event(scenario.name, line)
            if has_ended:
                if follower.all_ended:
                    return
                deadline = min(deadline, time.monotonic() + LAST_EVENTS)
            self._stop.wait(CHECK_INTERVAL)

    def _report(self, results: Sequence[Result], seconds: float) -> None:
        """Print the table of results, and what is not as expected."""
        self._screen.print()
        self._screen.table(
            ("Flow", "Jobs", "Job results", "DAG run", "Seconds", "AWS calls", "As expected"),
            [_row(each) for each in results],
        )
        calls = sum((result.calls for result in results), Counter[str]())
        names = ", ".join(f"{name.partition('.')[2]} {number}" for name, number in calls.most_common())
        self._screen.print(
            f"\nTotal: {seconds:.0f} s, {calls.total()} AWS calls (including those of the jobs themselves): {names}."
        )
        if not any(result.problems() for result in results):
            self._screen.print("Every flow ended as expected.", bold=True)
        for result in results:
            for problem in result.problems():
                self._screen.print(f"{result.scenario.name} did not end as expected: {problem}", bold=True)
            if result.problems():
                lines = result.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
                self._screen.print("\n".join([f"The last lines of Airflow's log, {result.log}:", *lines]))


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.scenario.name,
        result.jobs_started(),
        result.how_jobs_ended(),
        {None: "stopped", 0: "success"}.get(result.exit_code, "failed"),
        f"{result.seconds:.1f}",
        str(result.calls.total()),
        "no" if result.problems() else "yes",
    )


@contextlib.contextmanager
def _running(scenario: Scenario, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``airflow dags test`` for a scenario; kill it when the context ends."""
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
        "--home", type=Path, default=private.HOME, help="directory for all files (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
