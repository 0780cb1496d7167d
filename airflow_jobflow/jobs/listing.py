"""Lists the jobs in a Batch queue, an ECS cluster or a Glue job that have not ended, with their owners.

This module relies on the following behaviour of AWS: ListJobs takes one status a call and lists arrays, not their
children. It does not return tags, but DescribeJobs does. DescribeTasks returns tags on request. GetJobRuns has no
filter, and returns the newest runs first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_jobflow.jobs import owner as owners
from airflow_jobflow.jobs.calls import Call, pages
from airflow_jobflow.jobs.glue_retries import first_id
from airflow_jobflow.jobs.glue_run import RUNS_PER_PAGE
from airflow_jobflow.jobs.orphans import ListedJob
from airflow_jobflow.jobs.owner import Owner

BATCH_UNFINISHED: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""The statuses of a Batch job that has not ended; a test compares them with botocore's."""

GLUE_UNFINISHED: Final = frozenset({"WAITING", "STARTING", "RUNNING"})
"""The states of a Glue job run that can be stopped; one that is STOPPING needs no second request."""

DESCRIBED_AT_ONCE: Final = 100
"""The most jobs or tasks in one describe call."""

GLUE_LONGEST_RUN: Final = 8 * 24 * 3600.0
"""Seconds of age from which no run can still run: Glue ends a run, or restarts a streaming run, after seven days."""


def batch_jobs(call: Call, queue: str, now: float) -> list[ListedJob]:  # noqa: ARG001
    """List the jobs and arrays of a queue that have not ended: ListJobs for each status, DescribeJobs for ours.

    Jobs whose names are not ours are returned without an owner and are not described.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param now: ignored.
    """
    listed = {
        job["jobId"]: job
        for status in BATCH_UNFINISHED
        for page in pages(call, "list_jobs", jobQueue=queue, jobStatus=status)
        for job in page["jobSummaryList"]
        if not {":", "#"} & set(job["jobId"])  # a child of an array, a node of a job: stopped with the whole
    }
    ours = [job_id for job_id, job in listed.items() if owners.group_in_name(job["jobName"])]
    tags = {
        job["jobId"]: job.get("tags", {}) for ids in _chunks(ours) for job in call("describe_jobs", jobs=ids)["jobs"]
    }
    return [
        ListedJob(
            service="batch",
            location=queue,
            job_id=job_id,
            status=job.get("status", ""),
            created_at=_seconds(job.get("createdAt"), unit=1000.0),
            owner=Owner.from_tags(tags.get(job_id, {})),
            group=owners.group_in_name(job["jobName"]),
        )
        for job_id, job in listed.items()
    ]


def ecs_tasks(call: Call, cluster: str, now: float) -> list[ListedJob]:  # noqa: ARG001
    """List the tasks of a cluster that have not ended: ListTasks, and DescribeTasks with their tags.

    :param call: makes the API calls.
    :param cluster: name or ARN of the cluster.
    :param now: ignored.
    """
    listed = pages(call, "list_tasks", cluster=cluster, desiredStatus="RUNNING")
    arns = [arn for page in listed for arn in page["taskArns"]]
    return [
        ListedJob(
            service="ecs",
            location=cluster,
            job_id=task["taskArn"],
            status=task["lastStatus"],
            created_at=_seconds(task.get("createdAt")),
            owner=Owner.from_tags({tag["key"]: tag.get("value", "") for tag in task.get("tags", []) if "key" in tag}),
            group=task.get("startedBy"),
        )
        for chunk in _chunks(arns)
        for task in call("describe_tasks", cluster=cluster, tasks=chunk, include=["TAGS"])["tasks"]
    ]


def glue_runs(call: Call, job_name: str, now: float) -> list[ListedJob]:
    """List the runs of a Glue job that have not ended: GetJobRuns, until the runs are older than any that can run.

    :param call: makes the API calls.
    :param job_name: name of the job.
    :param now: the time in seconds since the epoch.
    """
    found: list[ListedJob] = []
    runs: list[Mapping[str, Any]] = []
    arguments: dict[str, str] = {}
    listed = pages(call, "get_job_runs", "NextToken", JobName=job_name, MaxResults=RUNS_PER_PAGE)
    for run in (run for page in listed for run in page["JobRuns"]):
        started_at = _seconds(run.get("StartedOn"))
        if started_at is not None and now - started_at > GLUE_LONGEST_RUN:
            break
        arguments[run["Id"]] = run.get("Arguments", {}).get(owners.ARGUMENT, "")
        if run["JobRunState"] in GLUE_UNFINISHED:
            runs.append(run)
    for run in runs:
        started_at = _seconds(run.get("StartedOn"))
        argument = arguments[run["Id"]] or arguments.get(first_id(run["Id"]), "")  # of a retry by Glue
        group = owners.read_argument(argument).get("group")
        found.append(
            ListedJob(
                service="glue_run",
                location=job_name,
                job_id=run["Id"],
                status=run["JobRunState"],
                created_at=started_at,
                owner=Owner.from_argument(argument),
                group=group if isinstance(group, str) else None,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Listing:
    """How the jobs of a service are listed.

    :param location_name: what the service calls the location of jobs, such as ``queue``.
    :param list_jobs: lists the jobs, given a call, a location and the time in seconds since the epoch.
    """

    location_name: str
    list_jobs: Callable[[Call, str, float], list[ListedJob]]


LISTINGS: Final[Mapping[str, Listing]] = {
    "batch": Listing("queue", batch_jobs),
    "ecs": Listing("cluster", ecs_tasks),
    "glue_run": Listing("Glue job", glue_runs),
}
"""By our names of the services. Without crawls, which cannot carry an owner."""


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), DESCRIBED_AT_ONCE):
        yield list(ids[start : start + DESCRIBED_AT_ONCE])


def _seconds(time: datetime | float | None, unit: float = 1.0) -> float | None:
    """Return a time as seconds since the epoch.

    :param time: as boto3 parses it, or the number that the service sent.
    :param unit: how many of the service's units a second has.
    """
    return time.timestamp() if isinstance(time, datetime) else None if time is None else time / unit
