"""Run Glue job runs in slots for processes.

Invariants: every change of a run's state happens under one lock and by `move`. A run that is ended from outside has an
`ending`; the first one is reported.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.command import Command, Exit
from airflow_jobflow.local.glue import events, model, tables
from airflow_jobflow.local.glue.region import Region, now
from airflow_jobflow.local.glue.run import JobRun
from airflow_jobflow.local.glue.runner import ERROR
from airflow_jobflow.local.job_environment import job_environment
from airflow_jobflow.local.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


Json = dict[str, Any]

RUNNER: Final = str(Path(__file__).with_name("runner.py"))
"""Run with ``-P``, so that no module beside it hides one of the standard library."""
RETRY_DELAY: Final = 30.0
"""Seconds from the failure of a run to its retry."""
KEPT_LINES: Final = 1000
"""The number of last lines of standard error in which the exception is searched."""


class Executions:
    """Runs the job runs of one region.

    :param region: what the parts of Glue share.
    """

    def __init__(self, region: Region) -> None:
        self._resources = region.resources
        self._store = region.store
        self._processes = region.processes
        self._events = region.events
        self._ledger = region.ledger
        self._settings = region.settings
        self.lock = threading.RLock()
        self.runs: defaultdict[str, list[JobRun]] = defaultdict(list)
        """The runs by job, oldest first."""

    def close(self) -> None:
        """Cancel timers, and remove scripts of runs that never started."""
        with self.lock:
            for run in (run for runs in self.runs.values() for run in runs):
                self._release(run)

    def create(
        self,
        job: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        after: JobRun | None = None,
        previous: str | None = None,
    ) -> JobRun | None:
        """Create a run, which starts as soon as a slot is free; return None if the job has too many runs.

        :param job: the job.
        :param request: the request of StartJobRun.
        :param after: the failed run that is retried. Default: none.
        :param previous: the id of the previous run. Default: none.
        """
        with self.lock:
            runs = self.runs[job["Name"]]
            run = JobRun(job, request, len(runs), previous=previous)
            if after is not None:
                run.attempt, run.previous = after.attempt + 1, after.run_id
                run.run_id = f"{after.run_id.partition('_attempt_')[0]}_attempt_{run.attempt}"
            elif self._full(job):
                if not request.get("JobRunQueuingEnabled"):
                    return None
                run.state = model.WAITING
                self._end_after(run, model.QUEUED_DAYS * 24 * 60, model.EXPIRED, "Job run expired in the queue")
            runs.append(run)
            self._ledger.record("glue", {"job": run.name, "run_id": run.run_id})
            if run.state == model.STARTING:
                self._processes.put(_Run(self, run))
            return run

    def end(self, run: JobRun, state: str, error: str | None = None) -> bool:
        """End a run from outside; return False if it is ending or has ended.

        :param run: the run.
        :param state: its final state.
        :param error: its error message. Default: none.
        """
        with self.lock:
            if run.ended or run.ending is not None:
                return False
            run.ending = (state, error)
            if run.process is None:
                self.move(run, state, error)
                return True
            if state == model.STOPPED:
                self.move(run, model.STOPPING)
            run.process.stop(self._settings.stop_grace if state == model.STOPPED else 0)
            return True

    def move(self, run: JobRun, state: str, error: str | None = None) -> None:
        """Change the state of a run, publish its event and start other runs.

        :param run: the run.
        :param state: the new state.
        :param error: its error message. Default: none.
        """
        with self.lock:
            run.state, run.error, run.changed_at = state, error, now()
            if not run.ended:
                return
            run.ended_at = run.changed_at
            self._release(run)
            self._events.publish(events.JOB, events.job_detail(run.name, run.run_id, state, error))
            if state == model.FAILED and run.retries_left:
                self._after(run, RETRY_DELAY, self.create, run.job, run.request, after=run)
            self._start_waiting(run.job)

    def _full(self, job: Mapping[str, Any]) -> bool:
        limit: int = (job.get("ExecutionProperty") or {}).get("MaxConcurrentRuns", 1)
        return sum(run.state in model.COUNTED for run in self.runs[job["Name"]]) >= limit

    def _start_waiting(self, job: Mapping[str, Any]) -> None:
        """Start waiting runs of a job as far as its limit allows, oldest first."""
        for run in self.runs[job["Name"]]:
            if run.state == model.WAITING and not self._full(job):
                self._release(run)
                self.move(run, model.STARTING)
                self._processes.put(_Run(self, run))

    def _end_after(self, run: JobRun, minutes: float, state: str, error: str) -> None:
        """End a run after some minutes, if it has not ended by then."""
        self._after(run, minutes * 60, self.end, run, state, error)

    def _after(self, run: JobRun, seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function for a run after some seconds, scaled by `Settings.time_scale`."""
        scaled = min(seconds * self._settings.time_scale, threading.TIMEOUT_MAX)
        run.timer = threading.Timer(scaled, function, args, kwargs)
        run.timer.daemon = True
        run.timer.start()

    def _release(self, run: JobRun) -> None:
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        if run.script is not None:
            run.script.unlink(missing_ok=True)

    def begin(self, run: JobRun) -> Command | None:
        """Return the command of a run, as a slot is free; None if it must not run.

        :param run: the run.
        """
        location = model.script_location(run.job, run.request.get("Arguments") or {})
        script = self.script(location)
        with self.lock:
            if run.ended:
                return None
            if script is None:
                self.move(run, model.FAILED, f"Failed to download {location}: it does not exist, or cannot be read")
                return None
            with tempfile.NamedTemporaryFile(prefix="jobflow-glue-", delete=False) as file:
                file.write(script)
            run.script = Path(file.name)
        arguments = model.arguments(run.job, run.request.get("Arguments") or {})
        name = location.rpartition("/")[2]
        variables = job_environment(self._resources.region)
        return Command([sys.executable, "-P", RUNNER, file.name, name, *arguments], variables)

    def script(self, location: str) -> bytes | None:
        """Return a script in S3, or None.

        :param location: its S3 URL.
        """
        try:
            return self._store.read(*tables.split_url(location))
        except ValueError:
            return None

    def started(self, run: JobRun, process: Process) -> None:
        """Record that the process of a run has started.

        :param run: the run.
        :param process: the process.
        """
        with self.lock:
            for stream in ("output", "error"):
                self._resources.open_log(f"{run.log_group}/{stream}", run.run_id)
            run.ran_from, run.process = now(), process
            if run.ended:  # stopped while its process started
                process.stop()
                return
            self.move(run, model.RUNNING)
            self._end_after(run, run.timeout, model.TIMEOUT, "Job run timed out")

    def lines(self, run: JobRun, lines: Sequence[str]) -> None:
        """Write lines to the logs of a run.

        :param run: the run.
        :param lines: the lines, each with the tag of its stream.
        """
        errors = [line[1:] for line in lines if line.startswith(ERROR)]
        output = [line[1:] for line in lines if not line.startswith(ERROR)]
        run.errors = [*run.errors, *errors][-KEPT_LINES:]
        for stream, written in (("output", output), ("error", errors)):
            if written:
                self._resources.write_log(f"{run.log_group}/{stream}", run.run_id, written)

    def ended(self, run: JobRun, end: Exit) -> None:
        """Record that the process of a run has ended, or could not be started.

        :param run: the run.
        :param end: how it ended.
        """
        with self.lock:
            run.process = None
            if run.ended:
                return
            if run.ending is not None:
                self.move(run, *run.ending)
            elif end.error is not None:
                self.move(run, model.FAILED, end.error)
            elif end.code == 0:
                self.move(run, model.SUCCEEDED)
            else:
                self.move(run, model.FAILED, model.failure(end.code, run.errors))


class _Run:
    """A run that waits for a slot or runs."""

    def __init__(self, executions: Executions, run: JobRun) -> None:
        self._executions = executions
        self._run = run

    def begin(self) -> Command | None:
        return self._executions.begin(self._run)

    def started(self, process: Process) -> None:
        self._executions.started(self._run, process)

    def lines(self, lines: Sequence[str]) -> None:
        self._executions.lines(self._run, lines)

    def ended(self, exit: Exit) -> None:
        self._executions.ended(self._run, exit)
