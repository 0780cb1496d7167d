"""Job runs from their start to their end, in slots for processes.

What always holds: every change of a run happens under one lock and goes through `move`; whatever ends a run from
outside says why first, and the first to say so is the one that is reported.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.glue import events, model, tables
from airflow_jobflow.local.glue.region import Region, now
from airflow_jobflow.local.glue.run import JobRun
from airflow_jobflow.local.glue.runner import ERROR
from airflow_jobflow.local.job_environment import job_environment
from airflow_jobflow.local.processes import Command, Exit, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Json = dict[str, Any]

RUNNER: Final = str(Path(__file__).with_name("runner.py"))
"""Run with ``-P``, so that no module beside it hides one of the standard library."""
KEPT_LINES: Final = 1000
"""Of standard error, to find the exception in."""


class Executions:
    """Runs the job runs of one region."""

    def __init__(self, region: Region) -> None:
        self._resources = region.resources
        self._store = region.store
        self._processes = region.processes
        self._events = region.events
        self._ledger = region.ledger
        self._settings = region.settings
        self.lock = threading.RLock()
        self.runs: defaultdict[str, list[JobRun]] = defaultdict(list)
        """By job, oldest first."""

    def close(self) -> None:
        """Take back what was kept for runs that never began."""
        with self.lock:
            for run in (run for runs in self.runs.values() for run in runs):
                self._forget(run)

    def create(
        self,
        job: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        after: JobRun | None = None,
        previous: str | None = None,
    ) -> JobRun | None:
        """A new run, which starts as soon as a slot is free; None if there are too many already.

        :param after: the run that failed and is tried again.
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
                self._later(run, model.QUEUED_DAYS * 24 * 60, model.EXPIRED, "Job run expired in the queue")
            runs.append(run)
            self._ledger.note("glue", {"job": run.name, "run_id": run.run_id})
            if run.state == model.STARTING:
                self._processes.put(_Run(self, run))
            return run

    def end(self, run: JobRun, state: str, error: str | None = None) -> bool:
        """End a run from outside; False if it has ended, or is ending, already."""
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
        """Change a run's state, with all that goes with it."""
        with self.lock:
            run.state, run.error, run.changed_at = state, error, now()
            if not run.ended:
                return
            run.ended_at = run.changed_at
            self._forget(run)
            self._events.tell(events.JOB, events.job_detail(run.name, run.run_id, state, error))
            if state == model.FAILED and run.retries_left:
                self.create(run.job, run.request, after=run)
            self._let_in(run.job)

    def _full(self, job: Mapping[str, Any]) -> bool:
        most: int = (job.get("ExecutionProperty") or {}).get("MaxConcurrentRuns", 1)
        return sum(run.state in model.COUNTED for run in self.runs[job["Name"]]) >= most

    def _let_in(self, job: Mapping[str, Any]) -> None:
        """Start what waits for a run to end, oldest first."""
        for run in self.runs[job["Name"]]:
            if run.state == model.WAITING and not self._full(job):
                self._forget(run)
                self.move(run, model.STARTING)
                self._processes.put(_Run(self, run))

    def _later(self, run: JobRun, minutes: float, state: str, error: str) -> None:
        """End a run, unless it ends before, after so many minutes of this AWS's."""
        seconds = min(minutes * 60 * self._settings.time_scale, threading.TIMEOUT_MAX)
        run.timer = threading.Timer(seconds, self.end, (run, state, error))
        run.timer.daemon = True
        run.timer.start()

    def _forget(self, run: JobRun) -> None:
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        if run.script is not None:
            run.script.unlink(missing_ok=True)

    def begin(self, run: JobRun) -> Command | None:
        """A slot is free for a run: the command to run in it, unless the run is over."""
        location = run.job["Command"].get("ScriptLocation", "")
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
        """A script in S3; None if there is none."""
        try:
            return self._store.read(*tables.split_url(location))
        except ValueError:
            return None

    def started(self, run: JobRun, process: Process) -> None:
        """The process of a run runs."""
        with self.lock:
            for stream in ("output", "error"):
                self._resources.open_log(f"{run.log_group}/{stream}", run.run_id)
            run.ran_from, run.process = now(), process
            if run.ended:  # stopped while its process was being started
                process.stop()
                return
            self.move(run, model.RUNNING)
            self._later(run, run.timeout, model.TIMEOUT, "Job run timed out")

    def lines(self, run: JobRun, lines: Sequence[str]) -> None:
        """Lines of a run for its logs; each begins with the mark of its stream."""
        errors = [line[1:] for line in lines if line.startswith(ERROR)]
        output = [line[1:] for line in lines if not line.startswith(ERROR)]
        run.errors = [*run.errors, *errors][-KEPT_LINES:]
        for stream, written in (("output", output), ("error", errors)):
            if written:
                self._resources.write_log(f"{run.log_group}/{stream}", run.run_id, written)

    def over(self, run: JobRun, end: Exit) -> None:
        """The process of a run ended, or could not be started."""
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
    """A run in the queue for a slot."""

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
        self._executions.over(self._run, exit)
