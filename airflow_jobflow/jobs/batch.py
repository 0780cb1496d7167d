"""AWS Batch: single jobs, array jobs and their children.

This module relies on the following behaviour of Batch:

- DescribeJobs takes 100 ids and omits unknown ones.
- An array parent is PENDING while its children run, and has neither exit code nor log.
- SubmitJob has no client token, so a job whose submit response was lost is found by its name, see ``batch_search``.
- TerminateJob ends a job in any state, unlike CancelJob. It overwrites ``statusReason``.
- The main node of a multi-node job decides its result. When it has ended, Batch stops the others. A failure of another
  node stops nothing. Node 2 of job ``a`` is described as ``a#2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

from airflow_jobflow.jobs import batch_containers
from airflow_jobflow.jobs.calls import Call, member, pages
from airflow_jobflow.jobs.causes import KILLED
from airflow_jobflow.jobs.containers import deciding
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.environment import RESULT_URI
from airflow_jobflow.jobs.maps import ATTEMPT
from airflow_jobflow.jobs.model import (
    ArrayProgress,
    ChildFailure,
    Container,
    JobState,
    Snapshot,
    container_streams,
    iso,
)
from airflow_jobflow.jobs.reasons import by_aws

CLIENT = "batch"
DISPLAY_NAME = "Batch job"
BATCH_SIZE = 100
RETENTION = "at least 24 hours"

NODES_SHOWN = 10
"""The most failed nodes of a multi-node job in its details."""

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
    array = _array(job)
    return Snapshot(
        job_id=job["jobId"],
        name=job["jobName"],
        state=state,
        status=job["status"],
        reason=job.get("statusReason") or batch_containers.last_attempt(job).get("statusReason"),
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
        details=batch_containers.details(job),
        resources=batch_containers.resources(job) if state.ended else None,
        run_seconds=_run_seconds(job) if state.ended and not array else None,
        fargate="FARGATE" in job.get("platformCapabilities", ()),
        attempt_timeout=job.get("timeout", {}).get("attemptDurationSeconds"),
        result_uri=batch_containers.variable(job, RESULT_URI),
        previous_attempt_ended_at=_previous_end(job) if state.ended else None,
        containers=tuple(
            Container(each["name"], each.get("exitCode"), each.get("reason"), batch_containers.log(each, region))
            for each in containers
            if "name" in each
        ),
    )


def _previous_end(job: Mapping[str, Any]) -> str | None:
    """Return when the attempt before the last one ended; the attempts at an item of a map share their address."""
    ended = batch_containers.attempts(job)
    if len(ended) > 1:
        return iso(ended[-2].get("stoppedAt"))
    is_later = batch_containers.variable(job, ATTEMPT) is not None and "createdAt" in job
    return iso(job["createdAt"] - 1000) if is_later else None  # at the latest; S3 has whole seconds


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
    """Add what only the nodes of a multi-node job say. Makes no call for other jobs.

    One call adds the log and the result of the main node, if the job itself has none. If the job has failed, another
    call adds the nodes that failed before the main node.

    :param call: makes the API calls.
    :param snapshot: the last one of a job that has ended.
    :raises CallError: the nodes cannot be described.
    """
    node = (snapshot.details or {}).get("main_node")
    if node is None:
        return snapshot
    if not snapshot.log:
        snapshot = _with_main_node(call, snapshot, f"{snapshot.job_id}#{node}")
    if snapshot.state is not JobState.FAILED or snapshot.stopped_by_request:
        return snapshot
    failed = _failed_nodes(call, snapshot, node)
    return replace(snapshot, details={**(snapshot.details or {}), "failed_nodes": failed}) if failed else snapshot


def _with_main_node(call: Call, snapshot: Snapshot, node_id: str) -> Snapshot:
    main = describe(call, [node_id]).get(node_id)
    if main is None:
        return snapshot
    return replace(
        snapshot,
        exit_code=main.exit_code if snapshot.exit_code is None else snapshot.exit_code,
        container_reason=snapshot.container_reason or main.container_reason,
        log=main.log,
        containers=main.containers,
        details={**(main.details or {}), **(snapshot.details or {})},
    )


def _failed_nodes(call: Call, snapshot: Snapshot, main_node: int) -> dict[str, str]:
    """Return how the first nodes failed that failed before the main node, which may have failed because of them."""
    listed = [
        (iso(each.get("stoppedAt")) or "", each["nodeProperties"]["nodeIndex"], each)
        for page in pages(call, "list_jobs", multiNodeJobId=snapshot.job_id, jobStatus="FAILED")
        for each in page["jobSummaryList"]
        if "nodeIndex" in each.get("nodeProperties", {})
    ]
    # Without the time at which the job ended, every failed node may be the cause. Times compare as text.
    earlier = [each for each in sorted(listed) if each[0] < (snapshot.stopped_at or "~") and each[1] != main_node]
    return {str(index): _how_it_failed(node) for _, index, node in earlier[:NODES_SHOWN]}


def _how_it_failed(node: Mapping[str, Any]) -> str:
    container = node.get("container", {})
    code = f"exit code {container['exitCode']}" if "exitCode" in container else ""
    return ", ".join(filter(None, [code, container.get("reason") or node.get("statusReason")]))


log_streams = container_streams


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


def not_succeeded(call: Call, parts: Sequence[tuple[str, Sequence[int]]]) -> list[tuple[Snapshot, list[int]]] | None:
    """Return which children of an array have not succeeded.

    Lists the children that have succeeded, because those of a terminated array may not count as failed yet.

    :param call: makes the API calls.
    :param parts: the arrays and plain jobs that ran it, each with its children's indexes in the whole array.
    :return: for each part its snapshot and the indexes, in order; None if a part still runs or is not known.
    """
    seen = describe(call, [job_id for job_id, _ in parts])
    remaining: list[tuple[Snapshot, list[int]]] = []
    for job_id, indexes in parts:
        part = seen.get(job_id)
        if part is None or not part.state.ended:
            return None
        left = [] if part.state is JobState.SUCCEEDED else list(indexes)
        done = set(indexes_in(call, job_id, "SUCCEEDED")) if left and part.array else set()
        remaining.append((part, [each for index, each in enumerate(left) if index not in done]))
    return remaining


def children(call: Call, parent_id: str, indexes: Sequence[int]) -> list[ChildFailure]:
    """Describe up to 100 children of an array, in one call.

    :param call: makes the API calls.
    :param parent_id: id of the array.
    :param indexes: of the children.
    """
    seen = describe(call, [f"{parent_id}:{index}" for index in indexes])
    pairs = [(index, seen.get(f"{parent_id}:{index}")) for index in indexes]
    return [ChildFailure(index, snapshot) for index, snapshot in pairs if snapshot]


def failed_and_stopped(call: Call, parent_id: str) -> list[ChildFailure]:
    """List an array's failed children by index, with whether somebody stopped them, which ListJobs does not say.

    In addition to the calls of ``failed_children``, one DescribeJobs call for each 100 children that were killed.

    :param call: makes the API calls.
    :param parent_id: the array's job id.
    """
    failed = failed_children(call, parent_id)
    killed = [child.index for child in failed if diagnose(child.snapshot) is KILLED]
    stopped = {
        child.index
        for start in range(0, len(killed), BATCH_SIZE)
        for child in children(call, parent_id, killed[start : start + BATCH_SIZE])
        if child.snapshot.stopped_by_request
    }
    return [
        replace(child, snapshot=replace(child.snapshot, stopped_by_request=child.index in stopped)) for child in failed
    ]


def failed_children(call: Call, parent_id: str, most: int | None = None) -> list[ChildFailure]:
    """List an array's failed children by index, as ListJobs describes them, without logs. One call per 1,000 children.

    :param call: makes the API calls.
    :param parent_id: the array's job id.
    :param most: the maximum number of children. Default None: all.
    """
    listed = (
        ChildFailure(child["arrayProperties"]["index"], snapshot(child))
        for page in pages(call, "list_jobs", arrayJobId=parent_id, jobStatus="FAILED")
        for child in page["jobSummaryList"]
        if "index" in child.get("arrayProperties", {})
    )
    return sorted(islice(listed, most), key=lambda child: child.index)
