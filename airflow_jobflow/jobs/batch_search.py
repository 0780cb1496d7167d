"""Batch jobs found by their names: how the jobs of a task are named, and how they are looked up.

This module relies on the following behaviour of Batch: ListJobs lists the jobs of a queue by name or name prefix, in
any state, newest first, a hundred at a time. It ignores case; the functions here do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.calls import Call, pages
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.owner import DIGITS
from airflow_jobflow.jobs.reattach import Found

NAME_LENGTH = 128
"""The most characters of a job's name."""

SUFFIX_LENGTH = 36
"""Characters of a name that are reserved for what follows the group: try, token, and index of a part or item."""


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
    for start in range(0, len(listed), batch.BATCH_SIZE):
        part = listed[start : start + batch.BATCH_SIZE]
        seen = batch.describe(call, [job["jobId"] for job in part])
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
    """Return the jobs whose names begin with a prefix, newest first.

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
    """Return the id of the job with exactly this name in a queue, or None. One ListJobs call; more if pages are empty.

    The name has the token of an attempt, so no job of an earlier attempt has it.

    :param call: makes the API calls.
    :param queue: name or ARN of the queue.
    :param name: of the job, as ``attempt_name`` returned it, and what follows it for a part or an item.
    """
    listed = pages(call, "list_jobs", jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}])
    return next((job["jobId"] for page in listed for job in page["jobSummaryList"] if job["jobName"] == name), None)
