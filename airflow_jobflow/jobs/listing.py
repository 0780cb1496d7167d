"""Lists what runs in a Batch queue, an ECS cluster or a Glue job, with its owner, and stops it.

What the services do and this module relies on: ListJobs takes one status a call and does not return tags, which
DescribeJobs does; a queue lists arrays and not their children. DescribeTasks returns tags on request. GetJobRuns has no
filter, and returns the newest runs first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from airflow_jobflow.jobs import owner as owners
from airflow_jobflow.jobs.orphans import ListedJob
from airflow_jobflow.jobs.owner import Owner

BATCH_UNFINISHED: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""The statuses of a Batch job that has not ended; a test checks them against botocore's."""

GLUE_UNFINISHED: Final = frozenset({"WAITING", "STARTING", "RUNNING"})
"""The states of a Glue job run that can be stopped; one that is STOPPING needs no second request."""

GLUE_OVER: Final = frozenset({"STOPPING", "STOPPED", "SUCCEEDED", "FAILED", "TIMEOUT", "ERROR", "EXPIRED"})
"""The states of a Glue job run that need not be stopped any more."""

DESCRIBED_AT_ONCE: Final = 100
"""The most jobs or tasks in one describe call."""

GLUE_PAGE: Final = 200
"""The most runs in one response of GetJobRuns."""

GLUE_LONGEST_RUN: Final = 8 * 24 * 3600.0
"""Seconds after which no older run is read: Glue ends a run, or starts a streaming run again, after seven days."""

REASON_LENGTH: Final = 255
"""The most characters of a reason that ECS takes; what Batch takes is not documented, and this is taken."""


class Call(Protocol):
    """Makes one API call of a service and returns its response; raises CallError if there is none."""

    def __call__(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Make a call.

        :param operation: boto3's name of it, such as ``list_jobs``.
        :param parameters: as boto3 takes them.
        """


class NotStopped(Exception):
    """The service did not stop a job, with its reason."""


def batch_jobs(call: Call, queue: str) -> list[ListedJob]:
    """List the jobs and arrays of a queue that have not ended: ListJobs for each status, DescribeJobs for ours.

    Jobs that are not named as ours are returned without an owner and are not described.
    """
    listed = {
        job["jobId"]: job
        for status in BATCH_UNFINISHED
        for job in _pages(call, "list_jobs", "jobSummaryList", "nextToken", jobQueue=queue, jobStatus=status)
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


def ecs_tasks(call: Call, cluster: str) -> list[ListedJob]:
    """List the tasks of a cluster that are to run: ListTasks, and DescribeTasks with their tags."""
    arns = list(_pages(call, "list_tasks", "taskArns", "nextToken", cluster=cluster, desiredStatus="RUNNING"))
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

    :param now: in seconds since the epoch.
    """
    found = []
    for run in _pages(call, "get_job_runs", "JobRuns", "NextToken", JobName=job_name, MaxResults=GLUE_PAGE):
        started_at = _seconds(run.get("StartedOn"))
        if started_at is not None and now - started_at > GLUE_LONGEST_RUN:
            break
        if run["JobRunState"] not in GLUE_UNFINISHED:
            continue
        argument = run.get("Arguments", {}).get(owners.ARGUMENT, "")
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


def stop_batch_job(call: Call, queue: str, job_id: str, reason: str) -> None:  # noqa: ARG001
    """Terminate a Batch job, and with an array its children; one that has ended stays as it is."""
    call("terminate_job", jobId=job_id, reason=reason[:REASON_LENGTH])


def stop_ecs_task(call: Call, cluster: str, task_arn: str, reason: str) -> None:
    """Stop an ECS task; one that has ended stays as it is."""
    call("stop_task", cluster=cluster, task=task_arn, reason=reason[:REASON_LENGTH])


def stop_glue_run(call: Call, job_name: str, run_id: str, reason: str) -> None:  # noqa: ARG001
    """Stop a Glue job run; one that has ended stays as it is. Glue takes no reason.

    :raises NotStopped: Glue did not stop it, though it runs.
    """
    errors = call("batch_stop_job_run", JobName=job_name, JobRunIds=[run_id]).get("Errors")
    if errors and call("get_job_run", JobName=job_name, RunId=run_id)["JobRun"]["JobRunState"] not in GLUE_OVER:
        detail = errors[0].get("ErrorDetail", {})
        raise NotStopped(f"{detail.get('ErrorCode', 'Error')}: {detail.get('ErrorMessage', 'no message')}")


@dataclass(frozen=True, slots=True)
class ServiceOfOrphans:
    """How the jobs of a service are listed and stopped.

    :param client: boto3's name of the service.
    :param display_name: of one job.
    :param location_name: of what holds jobs.
    :param list_jobs: by a call, a location and the time in seconds since the epoch.
    :param stop: by a call, a location, a job id and a reason.
    """

    client: str
    display_name: str
    location_name: str
    list_jobs: Callable[[Call, str, float], list[ListedJob]]
    stop: Callable[[Call, str, str, str], None]


SERVICES: Final[Mapping[str, ServiceOfOrphans]] = {
    "batch": ServiceOfOrphans(
        "batch", "Batch job", "queue", lambda call, queue, _now: batch_jobs(call, queue), stop_batch_job
    ),
    "ecs": ServiceOfOrphans(
        "ecs", "ECS task", "cluster", lambda call, cluster, _now: ecs_tasks(call, cluster), stop_ecs_task
    ),
    "glue_run": ServiceOfOrphans("glue", "Glue job run", "job", glue_runs, stop_glue_run),
}
"""What can be listed, by our names of the services. Crawls are not: they cannot carry an owner."""


def _pages(call: Call, operation: str, member: str, token: str, **parameters: Any) -> Iterator[Any]:
    """Yield the entries of all pages of a response.

    :param member: what holds the entries.
    :param token: what names the next page, in the response and, spelled alike, in the request.
    """
    page: Mapping[str, Any] = {}
    while True:
        after = {token: page[token]} if page.get(token) else {}
        page = call(operation, **parameters, **after)
        yield from page.get(member, [])
        if not page.get(token):
            return


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), DESCRIBED_AT_ONCE):
        yield list(ids[start : start + DESCRIBED_AT_ONCE])


def _seconds(moment: datetime | float | None, unit: float = 1.0) -> float | None:
    """Return a time as seconds since the epoch.

    :param moment: as boto3 parses it, or the number that the service sent.
    :param unit: how many of the service's units a second has.
    """
    return moment.timestamp() if isinstance(moment, datetime) else None if moment is None else moment / unit
