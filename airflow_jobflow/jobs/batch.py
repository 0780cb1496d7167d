"""AWS Batch: single jobs, array jobs and their children.

This module relies on the following behaviour of Batch:

- DescribeJobs takes 100 ids and omits unknown ones.
- An array parent is PENDING while its children run, and has neither exit code nor log.
- SubmitJob has no client token, so a job whose submit response was lost is found by its name.
- TerminateJob ends a job in any state, unlike CancelJob. It overwrites ``statusReason``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from airflow_jobflow.jobs import batch_containers
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.calls import Call, member, pages
from airflow_jobflow.jobs.containers import deciding
from airflow_jobflow.jobs.environment import RESULT_URI
from airflow_jobflow.jobs.model import (
    ArrayProgress,
    ChildFailure,
    Container,
    JobState,
    Snapshot,
    container_streams,
    iso,
)
from airflow_jobflow.jobs.owner import DIGITS
from airflow_jobflow.jobs.reasons import by_aws
from airflow_jobflow.jobs.reattach import Found

CLIENT = "batch"
DISPLAY_NAME = "Batch job"
BATCH_SIZE = 100
RETENTION = "at least 24 hours"

STATES = {
    "SUBMITTED": JobState.SUBMITTED,
    "PENDING": JobState.SUBMITTED,
    "RUNNABLE": JobState.SUBMITTED,
    "STARTING": JobState.SUBMITTED,
    "RUNNING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
}
"""All statuses of Batch, in order; a test compares them with botocore's."""

NAME_LENGTH = 128
"""The most characters of a job's name."""

SUFFIX_LENGTH = 36
"""Characters of a name that are reserved for what follows the group: try, token, and index of a part or item."""


def describe(call: Call, job_ids: Sequence[str], scope: str | None = None) -> dict[str, Snapshot]:  # noqa: ARG001
    """Describe up to 100 jobs in one DescribeJobs call.

    :param call: makes the API calls.
    :param job_ids: the jobs' ids.
    :param scope: ignored; Batch has no scope.
    :return: snapshots by id, without unknown ids.
    """
    return {job["jobId"]: snapshot(job) for job in call("describe_jobs", jobs=list(job_ids))["jobs"]}


def snapshot(job: Mapping[str, Any]) -> Snapshot:
    """Convert a job of a DescribeJobs response. A job with an unknown status counts as running.

    :param job: the job as Batch describes it.
    """
    _, partition, _, region, *_ = (job.get("jobArn") or "::::").split(":")
    state = STATES.get(job["status"], JobState.RUNNING)
    containers, essential = batch_containers.read(job)
    container = deciding(containers, essential, succeeded=state is JobState.SUCCEEDED)
    nodes = job.get("nodeProperties") if "nodeDetails" not in job else None
    array = _array(job)
    return Snapshot(
        job_id=job["jobId"],
        name=job["jobName"],
        state=state,
        status=job["status"],
        reason=job.get("statusReason"),
        container_reason=container.get("reason"),
        exit_code=container.get("exitCode"),
        attempt=len(batch_containers.attempts(job)) + (job["status"] in ("STARTING", "RUNNING")),
        max_attempts=job.get("retryStrategy", {}).get("attempts", 1),
        stopped_by_request=bool(job.get("isTerminated") or job.get("isCancelled"))
        and not by_aws(job.get("statusReason")),
        created_at=iso(job.get("createdAt")),
        started_at=iso(job.get("startedAt")),
        stopped_at=iso(job.get("stoppedAt")),
        log=batch_containers.log(container, region),
        array=array,
        region=region or None,
        partition=partition or "aws",
        definition=job.get("jobDefinition"),
        queue=job.get("jobQueue"),
        details={"main_node": nodes["mainNode"]} if nodes and "mainNode" in nodes else None,
        resources=batch_containers.resources(job) if state.ended else None,
        run_seconds=_run_seconds(job) if state.ended and not array else None,
        result_uri=batch_containers.variable(job, RESULT_URI),
        previous_attempt_ended_at=_previous_end(job) if state.ended else None,
        containers=tuple(
            Container(each["name"], each.get("exitCode"), each.get("reason"), batch_containers.log(each, region))
            for each in containers
            if "name" in each
        ),
    )


def _previous_end(job: Mapping[str, Any]) -> str | None:
    """Return when the attempt before the last one ended."""
    ended = batch_containers.attempts(job)
    return iso(ended[-2].get("stoppedAt")) if len(ended) > 1 else None


def _run_seconds(job: Mapping[str, Any]) -> float:
    """Return for how long all attempts of a job ran."""
    spans = [each for each in (batch_containers.attempts(job) or [job]) if "startedAt" in each and "stoppedAt" in each]
    return float(sum(each["stoppedAt"] - each["startedAt"] for each in spans)) / 1000


def _array(job: Mapping[str, Any]) -> ArrayProgress | None:
    properties = job.get("arrayProperties", {})
    if "size" not in properties or "index" in properties:  # not an array, or a child of one
        return None
    counts = properties.get("statusSummary", {})
    return ArrayProgress(
        size=properties["size"],
        running=counts.get("STARTING", 0) + counts.get("RUNNING", 0),
        succeeded=counts.get("SUCCEEDED", 0),
        failed=counts.get("FAILED", 0),
    )


def submit(call: Call, request: Mapping[str, Any]) -> str:
    """Submit a job, and return its id. One SubmitJob call. It has no token: repeated, it starts a second job.

    :param call: makes the API calls.
    :param request: the SubmitJob request.
    :raises CallError: it was not submitted, or the response was lost.
    """
    return str(member(call("submit_job", **request), "jobId", "SubmitJob"))


def container_names(call: Call, job_definition: str) -> list[str] | None:
    """Return the names of a job definition's containers. One DescribeJobDefinitions call.

    :param call: makes the API calls.
    :param job_definition: name, name with revision, or ARN. A name means its newest revision.
    :return: the names; None if there is no such definition.
    """
    name = job_definition.rpartition("/")[2]
    which = {"jobDefinitions": [job_definition]} if ":" in name else {"jobDefinitionName": name, "status": "ACTIVE"}
    found = call("describe_job_definitions", **which)["jobDefinitions"]
    newest = max(found, key=lambda each: int(each.get("revision", 0)), default=None)
    return None if newest is None else batch_containers.names(newest)


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:  # noqa: ARG001
    """Terminate a job; with an array parent its children too. Does nothing to a job that has ended.

    :param call: makes the API calls.
    :param job_id: the job's id.
    :param scope: ignored; Batch has no scope.
    :param reason: becomes the job's ``statusReason``.
    """
    call("terminate_job", jobId=job_id, reason=reason)


def with_final_details(call: Call, snapshot: Snapshot) -> Snapshot:
    """Add the log and the result of a multi-node job's main node, if the job itself has none. At most one call.

    :param call: makes the API calls.
    :param snapshot: the last one of a job that has ended.
    :raises CallError: the main node cannot be described.
    """
    node = (snapshot.details or {}).get("main_node")
    if node is None or snapshot.log:
        return snapshot
    main = describe(call, [f"{snapshot.job_id}#{node}"]).get(f"{snapshot.job_id}#{node}")
    if main is None:
        return snapshot
    exit_code = main.exit_code if snapshot.exit_code is None else snapshot.exit_code
    reason = snapshot.container_reason or main.container_reason
    return replace(snapshot, exit_code=exit_code, container_reason=reason, log=main.log, containers=main.containers)


log_streams = container_streams


def name_prefix(name: str) -> str:
    """Return the name prefix of all jobs with a name, of all groups: the user's name, shortened if necessary.

    :param name: the user's name for the job.
    """
    return f"{name[: NAME_LENGTH - SUFFIX_LENGTH - DIGITS - 1]}-"


def group_prefix(name: str, group: str) -> str:
    """Return the name prefix of all jobs of a group.

    :param name: the user's name for the job.
    :param group: of the task instance.
    """
    return f"{name_prefix(name)}{group}-"


def attempt_name(name: str, group: str, by: Try, token: str) -> str:
    """Return the name of the job of an attempt: ``<name>-<group>-t1m2c0-<token>``.

    :param name: the user's name for the job.
    :param group: of the task instance.
    :param by: the try that starts it.
    :param token: of the attempt.
    """
    return f"{group_prefix(name, group)}{by}-{token}"


def find_group(call: Call, queue: str, prefix: str) -> list[Found]:
    """Return the jobs of a group, with the tries that started them. Two calls for each 100 jobs.

    A listed job counts as started even if it cannot be described yet.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param prefix: as ``group_prefix`` returned it.
    """
    listed = _listed(call, queue, prefix)
    found = []
    for start in range(0, len(listed), BATCH_SIZE):
        part = listed[start : start + BATCH_SIZE]
        seen = describe(call, [job["jobId"] for job in part])
        for job in part:
            unseen = Snapshot(job["jobId"], JobState.SUBMITTED, JobState.SUBMITTED)
            by, _, end = job["jobName"].removeprefix(prefix).partition("-")
            found.append(Found(seen.get(job["jobId"], unseen), Try.read(by), is_part="-" in end))
    return found


def list_attempts(call: Call, queue: str, prefix: str, since: float) -> dict[str, str]:
    """Return the jobs with a name prefix, of all task instances, by group and token: ``<group>-<token>``.

    One call for each 100 jobs since the given time.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param prefix: as ``name_prefix`` returned it.
    :param since: jobs that were created earlier are left out, in seconds since the epoch.
    """
    attempts = {}
    for job in _listed(call, queue, prefix, since):
        group, _, rest = job["jobName"].removeprefix(prefix).partition("-")
        attempts[f"{group}-{rest.partition('-')[2]}"] = job["jobId"]
    return attempts


def _listed(call: Call, queue: str, prefix: str, since: float = 0.0) -> list[Mapping[str, Any]]:
    """Return the jobs whose names begin with a prefix, newest first. AWS ignores case; this function does not.

    :param queue: name or ARN of the queue.
    :param since: where to end: the first page with an older job is the last one. Default 0: all are listed.
    """
    filters = [{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
    listed = []
    for page in pages(call, "list_jobs", jobQueue=queue, filters=filters):
        jobs = page["jobSummaryList"]
        listed += [job for job in jobs if job["jobName"].startswith(prefix)]
        if jobs and jobs[-1].get("createdAt", since * 1000) < since * 1000:
            break
    return listed


def find_of_any_try(call: Call, queue: str, prefix: str, end: str) -> str | None:
    """Return the id of the newest job of a group whose name has a given end, or None. One call for each 100 jobs.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param prefix: as ``group_prefix`` returned it.
    :param end: what follows the try in the name: the token of an attempt, and the number of a part.
    """
    listed = _listed(call, queue, prefix)
    return next((job["jobId"] for job in listed if job["jobName"].removeprefix(prefix).partition("-")[2] == end), None)


def find(call: Call, queue: str, name: str) -> str | None:
    """Return the id of the newest job with exactly this name in a queue, or None. One ListJobs call.

    AWS ignores case; this function does not.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param name: of the job.
    """
    answer = call("list_jobs", jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}])
    return next((job["jobId"] for job in answer["jobSummaryList"] if job["jobName"] == name), None)


def queue_position(call: Call, queue: str, job_ids: Sequence[str]) -> str:
    """Return the position of jobs, or children of arrays, in a queue, as a sentence. One GetJobQueueSnapshot call.

    AWS lists the first hundred RUNNABLE jobs.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param job_ids: ids of jobs or arrays.
    """
    front = call("get_job_queue_snapshot", jobQueue=queue).get("frontOfQueue", {}).get("jobs", [])
    first_ids = [job["jobArn"].rpartition("/")[2] for job in front]
    positions = [
        position for position, each in enumerate(first_ids, 1) if each in job_ids or each.split(":")[0] in job_ids
    ]
    name = queue.rpartition("/")[2]
    if positions:
        return f"It was number {positions[0]} in queue {name}."
    return f"It was not among the first {len(first_ids)} in queue {name}."


def indexes_in(call: Call, parent_id: str, status: Literal["SUCCEEDED", "FAILED"]) -> list[int]:
    """Return the indexes of an array's children that have a status, in order. One ListJobs call for each 1,000.

    :param call: makes the API calls.
    :param parent_id: id of the array.
    :param status: of the children.
    """
    return sorted(
        child["arrayProperties"]["index"]
        for page in pages(call, "list_jobs", arrayJobId=parent_id, jobStatus=status)
        for child in page["jobSummaryList"]
        if "index" in child.get("arrayProperties", {})
    )


def not_succeeded(call: Call, parts: Sequence[tuple[str, Sequence[int]]]) -> list[int] | None:
    """Return which children of an array have not succeeded.

    Lists the children that have succeeded, because those of a terminated array may not count as failed yet.

    :param call: makes the API calls.
    :param parts: the arrays and plain jobs that ran it, each with its children's indexes in the whole array.
    :return: the indexes, in order; None if a part still runs or is not known.
    """
    seen = describe(call, [job_id for job_id, _ in parts])
    remaining: list[int] = []
    for job_id, indexes in parts:
        snapshot = seen.get(job_id)
        if snapshot is None or not snapshot.state.ended:
            return None
        if snapshot.state is not JobState.SUCCEEDED:
            done = set(indexes_in(call, job_id, "SUCCEEDED")) if snapshot.array else set()
            remaining += [each for index, each in enumerate(indexes) if index not in done]
    return sorted(remaining)


def children(call: Call, parent_id: str, indexes: Sequence[int]) -> list[ChildFailure]:
    """Describe up to 100 children of an array, in one call.

    :param call: makes the API calls.
    :param parent_id: id of the array.
    :param indexes: of the children.
    """
    seen = describe(call, [f"{parent_id}:{index}" for index in indexes])
    pairs = [(index, seen.get(f"{parent_id}:{index}")) for index in indexes]
    return [ChildFailure(index, snapshot) for index, snapshot in pairs if snapshot]
