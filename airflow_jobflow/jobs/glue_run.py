"""Runs of Glue jobs.

What Glue does and this module relies on: no call describes several runs by id; GetJobRuns gives a job's runs, newest
first, 200 a page, and GetJobRun one of them. StartJobRun has no client token, so a run is found again by an argument
that nothing else carries. Which job a run is of, the scope says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_jobflow.faults import CallError, classify_failure
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.calls import Call, member, pages
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, iso_seconds, unchanged
from airflow_jobflow.jobs.owner import ARGUMENT, read_argument
from airflow_jobflow.jobs.reattach import Found

CLIENT = "glue"
DISPLAY_NAME = "Glue job run"
BATCH_SIZE = 1000
RETENTION = "90 days"

PAGE = 200
"""The most runs in an answer of GetJobRuns."""

MAX_PAGES = 5
"""The most pages that are read of a job's runs: a thousand runs are as many as Glue lets a job have at a time. A run
that lies deeper is asked for alone."""

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
"""Every state Glue has; a test holds it against botocore's."""

BY_REQUEST = ("STOPPING", "STOPPED")

ERROR_LOGS = "/error"
"""What Glue appends to a run's log group for what it writes to standard error, in a stream named as the run."""


def describe(call: Call, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot | None]:
    """Look at runs of a job, the scope: several by reading its newest runs, one by asking for it.

    :raises CallError: EntityNotFoundException where there is no such job.
    """
    job = scope or ""
    if len(job_ids) == 1:
        return _one(call, job_ids[0], job)
    seen: dict[str, Snapshot | None] = dict.fromkeys(job_ids)
    wanted = set(job_ids)
    page: Mapping[str, Any] = {"NextToken": None}
    for _ in range(MAX_PAGES):
        page = call("get_job_runs", JobName=job, MaxResults=PAGE, **_after(page))
        on_page = {run["Id"]: run for run in page["JobRuns"] if run["Id"] in wanted}
        seen |= {run_id: snapshot(run, call) for run_id, run in on_page.items()}
        wanted -= on_page.keys()
        if not wanted or not page.get("NextToken"):
            break
    return seen


def _after(page: Mapping[str, Any]) -> dict[str, Any]:
    return {"NextToken": page["NextToken"]} if page.get("NextToken") else {}


def _one(call: Call, run_id: str, job: str) -> dict[str, Snapshot | None]:
    try:
        return {run_id: snapshot(call("get_job_run", JobName=job, RunId=run_id)["JobRun"], call)}
    except CallError as error:
        if error.code != "EntityNotFoundException":
            raise
        call("get_job_runs", JobName=job, MaxResults=1)  # says so if it is the job that is not there
        return {}


def snapshot(run: Mapping[str, Any], call: Call) -> Snapshot:
    """Read one run. A state no table knows is a run that is still going.

    :param call: tells region and partition, which a run does not.
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
        details={name: figure for name, figure in figures.items() if figure is not None} or None,
    )


with_final_details = unchanged


def start(call: Call, request: Mapping[str, Any]) -> str:
    """Start a run, and return its id. One StartJobRun call, which has no token: repeated, it starts a second run.

    :raises CallError: it was not started, or the response was lost.
    """
    return str(member(call("start_job_run", **request), "JobRunId", "StartJobRun"))


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:  # noqa: ARG001
    """Stop a run; one that has ended, or is stopping, stays as it is. Glue takes no reason."""
    answer = call("batch_stop_job_run", JobName=scope or "", JobRunIds=[job_id])
    if not answer.get("Errors"):
        return
    seen = _one(call, job_id, scope or "").get(job_id)
    if seen is None or not (seen.state.ended or seen.stopped_by_request):
        detail = answer["Errors"][0].get("ErrorDetail", {})
        why = f"{detail.get('ErrorMessage')} (run {job_id})"
        code = detail.get("ErrorCode", "")
        raise CallError(classify_failure(code, why), f"BatchStopJobRun: {code}: {why}", code, "BatchStopJobRun")


def find(call: Call, job: str, token: str) -> str | None:
    """Return the id of the run that an attempt has started, or None. One GetJobRuns call.

    :param job: name of the job.
    :param token: of the attempt.
    """
    runs = call("get_job_runs", JobName=job, MaxResults=PAGE)["JobRuns"]
    return next((run["Id"] for run in runs if _owner(run).get("attempt") == token), None)


def find_group(call: Call, job: str, group: str) -> list[Found]:
    """Return the runs of a group among the newest thousand, with the tries that started them. A call for each 200.

    :param job: name of the job.
    :param group: of the task instance.
    """
    found = []
    for page in islice(pages(call, "get_job_runs", "NextToken", JobName=job, MaxResults=PAGE), MAX_PAGES):
        for run in page["JobRuns"]:
            owner = _owner(run)
            if owner.get("group") == group:
                found.append(Found(snapshot(run, call), Try.read(str(owner.get("try", "")))))
    return found


def _owner(run: Mapping[str, Any]) -> Mapping[str, Any]:
    return read_argument(run.get("Arguments", {}).get(ARGUMENT, ""))


def request(values: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, Any]:
    """Build a StartJobRun request. What is None is not sent, so that the job decides.

    :param values: checked values by our names; ``attempt_timeout`` is in minutes;
        ``run_job_kwargs`` are members as AWS names them.
    :param members: the member of the request for each parameter.
    """
    own = {members[name]: value for name, value in values.items() if name in members}
    if "Arguments" in own:
        own["Arguments"] = {name: str(value) for name, value in own["Arguments"].items()}
    return {**values.get("run_job_kwargs", {}), **own}
