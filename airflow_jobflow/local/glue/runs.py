"""Glue's calls for job runs, in one account and region. moto creates jobs.

Invariants: the runs of a job are listed newest first. An invalid request is rejected before anything is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.glue import model
from airflow_jobflow.local.glue import store as glue_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local.fault_box import FaultBox
    from airflow_jobflow.local.glue.executions import Executions
    from airflow_jobflow.local.glue.run import JobRun
    from airflow_jobflow.local.glue.store import Store

Json = dict[str, Any]


class Runs:
    """The API of Glue for the job runs of one account and region.

    :param store: the jobs.
    :param executions: the runs.
    :param faults: the active faults.
    """

    def __init__(self, store: Store, executions: Executions, faults: FaultBox) -> None:
        self._store = store
        self._executions = executions
        self._faults = faults
        self.actions: dict[str, Callable[[Json, int], Json]] = {
            "StartJobRun": self._start_job_run,
            "GetJobRun": self._get_job_run,
            "GetJobRuns": self._get_job_runs,
            "BatchStopJobRun": self._batch_stop_job_run,
            "UpdateJob": self._update_job,
        }
        """Handlers by action."""

    def interrupt(self, run_id: str, message: str = "Internal service error") -> bool:
        """End a run in ERROR with an internal error; return whether it was running.

        :param run_id: the run.
        :param message: the error message. Default: ``Internal service error``.
        """
        with self._executions.lock:
            found = [run for runs in self._executions.runs.values() for run in runs if run.run_id == run_id]
            return bool(found) and self._executions.end(found[0], model.ERROR, message)

    def _start_job_run(self, request: Json, _length: int) -> Json:
        """StartJobRun."""
        name = model.required(request, "JobName")
        stored = self._store.job(name)
        if stored is None:
            raise glue_store.not_found("Failed to start job run due to missing metadata")
        job = glue_store.describe(stored)
        script = self._executions.script(model.script_location(job, request.get("Arguments") or {}))
        if why := model.capacity_error(request) or model.cannot_run(job, request, script):
            raise model.rejected(why)
        previous: str | None = request.get("JobRunId")
        with self._executions.lock:
            if previous is not None and self._found(name, previous) is None:
                raise glue_store.not_found(f"Job run {previous} of job {name} not found")
            run = self._executions.create(job, request, previous=previous)
        if run is None:
            raise AwsError("ConcurrentRunsExceededException", f"Concurrent runs exceeded for {name}")
        return {"JobRunId": run.run_id}

    def _get_job_run(self, request: Json, _length: int) -> Json:
        """GetJobRun."""
        name, run_id = model.required(request, "JobName"), model.required(request, "RunId")
        self._check_job(name)
        with self._executions.lock:
            run = self._found(name, run_id)
            if run is None or self._faults.hides(run.age(), run_id):
                raise glue_store.not_found(f"Job run {run_id} of job {name} not found")
            return {"JobRun": run.shown()}

    def _get_job_runs(self, request: Json, _length: int) -> Json:
        """GetJobRuns: newest first."""
        name = model.required(request, "JobName")
        self._check_job(name)
        with self._executions.lock:
            runs = [
                run for run in reversed(self._executions.runs[name]) if not self._faults.hides(run.age(), run.run_id)
            ]
            shown, token = model.page(runs, lambda run: -run.number, request, model.MAX_RUNS_PAGE, model.MAX_RUNS_PAGE)
            answer: Json = {"JobRuns": [run.shown() for run in shown]}
        return answer if token is None else {**answer, "NextToken": token}

    def _batch_stop_job_run(self, request: Json, _length: int) -> Json:
        """BatchStopJobRun: lists the runs that cannot be stopped."""
        name, run_ids = model.required(request, "JobName"), request.get("JobRunIds") or []
        if not 1 <= len(run_ids) <= model.MAX_STOPPED:
            raise model.rejected(f"JobRunIds must contain between 1 and {model.MAX_STOPPED} ids")
        answer: Json = {"SuccessfulSubmissions": [], "Errors": []}
        for run_id in run_ids:
            named: Mapping[str, Any] = {"JobName": name, "JobRunId": run_id}
            error = self._stop(name, run_id)
            if error is None:
                answer["SuccessfulSubmissions"].append(named)
            else:
                answer["Errors"].append({**named, "ErrorDetail": error})
        return answer

    def _update_job(self, request: Json, _length: int) -> Json:
        """UpdateJob: replaces the whole job, which moto cannot. What the request leaves out is reset."""
        name, update = model.required(request, "JobName"), request.get("JobUpdate") or {}
        self._check_job(name)
        if why := model.capacity_error(update):
            raise model.rejected(why)
        for member in ("Role", "Command"):
            if not update.get(member):
                raise model.rejected(f"{member} must be set")
        self._store.update_job(name, update)
        return {"JobName": name}

    def _stop(self, name: str, run_id: str) -> Json | None:
        """Stop a run, or return why it cannot be stopped."""
        with self._executions.lock:
            run = self._found(name, run_id)
            if run is None:
                return {"ErrorCode": "EntityNotFoundException", "ErrorMessage": f"Job run {run_id} not found"}
            if not self._executions.end(run, model.STOPPED):
                return {
                    "ErrorCode": "InvalidInputException",
                    "ErrorMessage": f"Job run {run_id} is in state {run.state} and cannot be stopped",
                }
        return None

    def _found(self, name: str, run_id: str) -> JobRun | None:
        return next((run for run in self._executions.runs[name] if run.run_id == run_id), None)

    def _check_job(self, name: str) -> None:
        if self._store.job(name) is None:
            raise glue_store.not_found(f"Job {name} not found.")
