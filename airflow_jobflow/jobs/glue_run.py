"""Runs of Glue jobs.

This module relies on the following behaviour of Glue: no call describes several runs by id. GetJobRuns returns the runs
of a job, newest first, 200 a page; GetJobRun returns one. StartJobRun has no client token, so a run is found by an
argument that only our runs carry. The scope is the name of the job. Retries by Glue itself are runs of their own, which
are followed under the id of the first: see ``glue_retries``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from airflow_jobflow.faults import CallError, Fault, classify_failure
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.calls import Call, member, pages
from airflow_jobflow.jobs.environment import RESULT_ARGUMENT
from airflow_jobflow.jobs.glue_retries import (
    MAX_RETRIES,
    RETRIED,
    chain,
    first_id,
    max_retries,
    may_follow,
    merged,
    next_id,
)
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, iso_seconds
from airflow_jobflow.jobs.owner import ARGUMENT, read_argument
from airflow_jobflow.jobs.reattach import Found

CLIENT = "glue"
DISPLAY_NAME = "Glue job run"
BATCH_SIZE = 1000
RETENTION = "90 days"

RUNS_PER_PAGE = 200
"""The most runs in a response of GetJobRuns."""

MAX_PAGES = 5
"""The most pages that are read of a job's runs. Glue allows a job a thousand concurrent runs; older ones are described
alone."""

STATES = {
    "WAITING": JobState.SUBMITTED,
    "STARTING": JobState.SUBMITTED,
    "RUNNING": JobState.RUNNING,
    "STOPPING": JobState.RUNNING,
    "STOPPED": JobState.FAILED,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "ERROR": JobState.FAILED,
    "TIMEOUT": JobState.FAILED,
    "EXPIRED": JobState.FAILED,
}
"""All states of Glue; a test compares them with botocore's."""

BY_REQUEST = ("STOPPING", "STOPPED")

AWAITS_RETRY = "WAITING"
"""The status of a run that has failed and that Glue is about to retry. Glue has none for it."""

LAST_RUN = "run_id"
"""The detail with the id of the last retry by Glue, if there was one."""

DPUS_PER_WORKER = {"G.025X": 0.25, "G.1X": 1.0, "G.2X": 2.0, "G.4X": 4.0, "G.8X": 8.0, "G.12X": 12.0, "G.16X": 16.0}
"""The DPUs of a worker by its type, for runs without ``MaxCapacity``. Workers of other types count as one."""

OUTPUT_LOGS, ERROR_LOGS = "/output", "/error"
"""The suffixes of a run's log groups for its standard output and error, each in a stream named after the run's id."""


def describe(call: Call, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot | None]:
    """Describe runs of a job: several with GetJobRuns, a single one with GetJobRun.

    More calls are made only for a run that has failed: GetJobRun for its retry, GetJob for how many there may be.

    :param call: makes the API calls.
    :param job_ids: the runs' ids.
    :param scope: name of the job.
    :return: snapshots by id; None for runs that must be described alone.
    :raises CallError: EntityNotFoundException if there is no such job.
    """
    job = scope or ""
    if len(job_ids) == 1:
        return _one(call, job_ids[0], job)
    snapshots: dict[str, Snapshot | None] = dict.fromkeys(job_ids)
    wanted, by_first = set(job_ids), defaultdict[str, list[Any]](list)
    for page in _newest(call, job):
        for run in page["JobRuns"]:
            by_first[first_id(run["Id"])].append(run)
        for run_id in wanted & {run["Id"] for run in page["JobRuns"]}:  # its retries, which are newer, came before
            snapshots[run_id] = _followed(call, job, run_id, chain(run_id, by_first[first_id(run_id)]))
            wanted.remove(run_id)
        if not wanted:
            break
    return snapshots


def _newest(call: Call, job: str) -> Iterator[Any]:
    """Yield the pages with a job's newest thousand runs. One GetJobRuns call for each 200."""
    return islice(pages(call, "get_job_runs", "NextToken", JobName=job, MaxResults=RUNS_PER_PAGE), MAX_PAGES)


def _one(call: Call, run_id: str, job: str) -> dict[str, Snapshot | None]:
    if (run := _get(call, job, run_id)) is None:
        call("get_job_runs", JobName=job, MaxResults=1)  # raises an error if the job does not exist either
        return {}
    runs = [run]
    while runs[-1]["JobRunState"] in RETRIED and len(runs) <= MAX_RETRIES:
        if (run := _get(call, job, next_id(runs[-1]["Id"]))) is None:
            break
        runs.append(run)
    return {run_id: _followed(call, job, run_id, runs)}


def _get(call: Call, job: str, run_id: str) -> Any:
    """Return a run, or None if Glue does not know it."""
    try:
        return call("get_job_run", JobName=job, RunId=run_id)["JobRun"]
    except CallError as error:
        if error.code != "EntityNotFoundException":
            raise
        return None


def _followed(call: Call, job: str, run_id: str, runs: Sequence[Mapping[str, Any]]) -> Snapshot:
    """Return the snapshot of a run that Glue may retry: that of its last retry, under the id of the run.

    :param runs: the run and its retries, in their order.
    """
    last = runs[-1]
    seen = replace(snapshot(merged(runs), call), job_id=run_id)
    if len(runs) > 1:
        previous = iso_seconds(runs[-2].get("CompletedOn"))
        details = {**(seen.details or {}), LAST_RUN: last["Id"]}
        seen = replace(seen, previous_attempt_ended_at=previous, details=details)
    is_in_doubt = may_follow(last, None)
    if len(runs) == 1 and not is_in_doubt:
        return seen
    try:
        allowed = max_retries(call, job)
    except CallError:
        if is_in_doubt:  # the describe call is repeated
            raise
        allowed = None
    seen = replace(seen, max_attempts=max(seen.attempt, (allowed or 0) + 1))
    if not may_follow(last, allowed):
        return seen
    failure = f": {seen.reason}" if seen.reason else ""
    reason = f"attempt {seen.attempt} {seen.status}{failure}; waiting for Glue's retry"
    return replace(
        seen, state=JobState.RUNNING, status=AWAITS_RETRY, code=None, reason=reason, resources=None, stopped_at=None
    )


def snapshot(run: Mapping[str, Any], call: Call) -> Snapshot:
    """Convert a run. A run with an unknown state counts as running.

    :param run: the run as Glue describes it.
    :param call: for the region and partition, which are not in the response.
    """
    status = run["JobRunState"]
    state = STATES.get(status, JobState.RUNNING)
    attempt = run.get("Attempt", 0) + (state is not JobState.SUBMITTED)
    group = run.get("LogGroupName")
    figures = {"execution_seconds": run.get("ExecutionTime"), "dpu_seconds": run.get("DPUSeconds")}
    return Snapshot(
        job_id=run["Id"],
        name=run["JobName"],
        state=state,
        status=status,
        code=status if state is JobState.FAILED else None,
        reason=run.get("ErrorMessage") or run.get("StateDetail"),
        attempt=attempt,
        max_attempts=max(attempt, 1),
        stopped_by_request=status in BY_REQUEST,
        created_at=iso_seconds(run.get("StartedOn")),
        started_at=iso_seconds(run.get("StartedOn")),
        stopped_at=iso_seconds(run.get("CompletedOn")),
        log=LogStream(group + ERROR_LOGS, run["Id"]) if group else None,
        region=call.region,
        partition=call.partition,
        attempt_timeout=run["Timeout"] * 60 if "Timeout" in run else None,
        **_used(run, state),
        details={name: figure for name, figure in figures.items() if figure is not None} or None,
    )


def _used(run: Mapping[str, Any], state: JobState) -> dict[str, Any]:
    """Return the members of a snapshot that say what a run used, and the address for its result."""
    used: dict[str, Any] = {"result_uri": run.get("Arguments", {}).get(RESULT_ARGUMENT)}
    if not state.ended:
        return used
    seconds = float(run.get("ExecutionTime") or 0)
    counted, dpus = run.get("DPUSeconds"), run.get("MaxCapacity")
    if dpus is None and "NumberOfWorkers" in run:
        dpus = run["NumberOfWorkers"] * DPUS_PER_WORKER.get(run.get("WorkerType", ""), 1.0)
    if counted is not None and seconds:
        dpus = counted / seconds
    return used | {
        "resources": None if dpus is None else {"dpu": float(dpus)},
        "run_seconds": seconds,
        "capacity": run.get("ExecutionClass"),
    }


def with_final_details(call: Call, snapshot: Snapshot) -> Snapshot:  # noqa: ARG001
    """Return the snapshot: ``describe`` returns everything.

    :param call: ignored.
    :param snapshot: the last one of a run that has ended.
    """
    return snapshot


def log_streams(snapshot: Snapshot) -> dict[str, LogStream]:
    """Return where a run writes its standard output and its standard error.

    :param snapshot: of the run.
    """
    if snapshot.log is None:
        return {}
    group = snapshot.log.group.removesuffix(ERROR_LOGS)
    return {"output": replace(snapshot.log, group=group + OUTPUT_LOGS), "error": snapshot.log}


def start(call: Call, request: Mapping[str, Any]) -> str:
    """Start a run, and return its id. One StartJobRun call. It has no token: repeated, it starts a second run.

    :param call: makes the API calls.
    :param request: the StartJobRun request.
    :raises CallError: it was not started, or the response was lost.
    """
    return str(member(call("start_job_run", **request), "JobRunId", "StartJobRun"))


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:  # noqa: ARG001
    """Stop a run, or its retry that runs. Does nothing if it has ended or is stopping.

    :param call: makes the API calls.
    :param job_id: the run's id.
    :param scope: name of the job.
    :param reason: ignored; Glue takes none.
    :raises CallError: it was not stopped; a transient one if it has failed, and its retry does not run yet.
    """
    job = scope or ""
    if (refused := _stop_one(call, job, job_id)) is None:
        return
    current = _one(call, job_id, job).get(job_id)
    if current and (current.state.ended or current.stopped_by_request):
        return
    last = last_run(current) if current else job_id
    if current and current.status == AWAITS_RETRY and current.state is JobState.RUNNING:
        why = f"run {last} has failed, and Glue is about to retry it"
        raise CallError(Fault.TRANSIENT, f"BatchStopJobRun: {why}", operation="BatchStopJobRun")
    if last == job_id or (refused := _stop_one(call, job, last)):
        raise refused


def _stop_one(call: Call, job: str, run_id: str) -> CallError | None:
    """Stop a run; return the error if Glue does not stop it."""
    response = call("batch_stop_job_run", JobName=job, JobRunIds=[run_id])
    if not response.get("Errors"):
        return None
    detail = response["Errors"][0].get("ErrorDetail", {})
    code, why = detail.get("ErrorCode", ""), f"{detail.get('ErrorMessage')} (run {run_id})"
    return CallError(classify_failure(code, why), f"BatchStopJobRun: {code}: {why}", code, "BatchStopJobRun")


def last_run(snapshot: Snapshot) -> str:
    """Return the id of the last retry of a run by Glue, or of the run itself if there was none.

    :param snapshot: of the run.
    """
    return str((snapshot.details or {}).get(LAST_RUN, snapshot.job_id))


def find(call: Call, job: str, token: str) -> str | None:
    """Return the id of the run that an attempt has started, or None. One GetJobRuns call.

    :param call: makes the API calls.
    :param job: name of the job.
    :param token: of the attempt.
    """
    runs = call("get_job_runs", JobName=job, MaxResults=RUNS_PER_PAGE)["JobRuns"]
    return next((first_id(run["Id"]) for run in runs if _owner(run).get("attempt") == token), None)


def find_group(call: Call, job: str, group: str) -> list[Found]:
    """Return the runs of a group among the newest thousand, with the tries that started them. One call for each 200.

    :param call: makes the API calls.
    :param job: name of the job.
    :param group: of the task instance.
    """
    runs = [run for page in _newest(call, job) for run in page["JobRuns"]]
    tries = {first_id(run["Id"]): owner.get("try", "") for run in runs if (owner := _owner(run)).get("group") == group}
    by_first = defaultdict[str, list[Any]](list)
    for run in runs:
        by_first[first_id(run["Id"])].append(run)
    return [
        Found(_followed(call, job, run_id, chain(run_id, by_first[run_id])), Try.read(str(number_of_try)))
        for run_id, number_of_try in tries.items()
    ]


def list_attempts(call: Call, job: str, since: float) -> dict[str, str]:
    """Return the runs of all task instances that start a job, by group and token: ``<group>-<token>``.

    One call for each 200 runs since the given time.

    :param call: makes the API calls.
    :param job: name of the job.
    :param since: runs that were started earlier are left out, in seconds since the epoch.
    """
    attempts: dict[str, str] = {}
    for page in pages(call, "get_job_runs", "NextToken", JobName=job, MaxResults=RUNS_PER_PAGE):
        runs = page["JobRuns"]
        attempts |= {
            f"{owner.get('group')}-{owner.get('attempt')}": first_id(run["Id"])
            for run in runs
            if (owner := _owner(run))
        }
        if runs and runs[-1].get("StartedOn", since) < since:
            break
    return attempts


def _owner(run: Mapping[str, Any]) -> Mapping[str, Any]:
    return read_argument(run.get("Arguments", {}).get(ARGUMENT, ""))


def request(values: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, Any]:
    """Build a StartJobRun request. What is None is not sent, so that the job decides.

    :param values: validated values by our names; ``attempt_timeout`` is in seconds;
        ``run_job_kwargs`` are members as AWS names them.
    :param members: the member of the request for each parameter.
    """
    own = {members[name]: value for name, value in values.items() if name in members}
    if "Arguments" in own:
        own["Arguments"] = {name: str(value) for name, value in own["Arguments"].items()}
    if "attempt_timeout" in values:
        own[members["attempt_timeout"]] = math.ceil(values["attempt_timeout"] / 60)
    return {**values.get("run_job_kwargs", {}), **own}
