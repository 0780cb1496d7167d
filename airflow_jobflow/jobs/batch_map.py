"""Maps on AWS Batch: one job for each item, named after the map and the item's index.

This module relies on the following behaviour of Batch: ListJobs lists the jobs of a queue by name prefix, in any state,
a hundred at a time, and ignores case. SubmitJob has no client token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs import batch, batch_search
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH, of_item, with_variables
from airflow_jobflow.jobs.maps import INDEX, Found, Start
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.owner import with_owner_tags
from airflow_jobflow.jobs.starting import start_tagged

REPEATABLE = False
CHECKPOINT = 6 * 3600.0


def job_group(job_queue: str, name: str, owner: Mapping[str, str]) -> dict[str, Any]:
    """Return how the jobs of a map are named, and where they are listed.

    :param job_queue: name or ARN of the queue.
    :param name: what ``batch_search.attempt_name`` returned; the index of the item follows.
    :param owner: the owner's tags.
    """
    return {"queue": job_queue, "stem": name, "owner": dict(owner)}


def item(request: dict[str, Any], index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the SubmitJob request of an item, without its name.

    :param request: the SubmitJob request of the item.
    :param index: the item's index.
    :param environment: variables to add to its container.
    """
    overrides = with_variables(request.get("containerOverrides", {}), {**environment, INDEX: index})
    return {**{name: value for name, value in request.items() if name != "jobName"}, "containerOverrides": overrides}


def start(call: Call, job_group: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
    """Submit an item's job, and return its id. One SubmitJob call.

    It is submitted to the queue where the map's jobs are listed, even if a later try of the task names another one.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param request: as ``item`` returned it.
    :param which: the item, and the attempt at it.
    :raises CallError: it was not submitted, or the response was lost.
    """
    request = {**request, "jobName": f"{job_group['stem']}-{which.index}", "jobQueue": job_group["queue"]}
    overrides = request.get("containerOverrides", {})
    own = of_item(overrides, job_group, which.index, MAX_BATCH_OVERRIDES_LENGTH - len(json.dumps(overrides)))
    if own:
        request["containerOverrides"] = own
    tags, _ = with_owner_tags(request.get("tags", {}), job_group.get("owner", {}))
    return start_tagged(call, batch.submit, request, {**request, "tags": tags} if tags else request)


def find_submitted(call: Call, job_group: Mapping[str, Any], which: Start) -> str | None:
    """Return the id of the job of an item whose submit response was lost, or None. One ListJobs call.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param which: the item, and the attempt at it.
    """
    return batch_search.find(call, job_group["queue"], f"{job_group['stem']}-{which.index}")


def page(
    call: Call, job_group: Mapping[str, Any], cursor: Sequence[str] | None
) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the jobs that a map has started. One ListJobs call.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param cursor: where the page begins; None for the first.
    :return: the jobs, and where the next page begins; None if there is none.
    """
    where: Any = {"nextToken": cursor[0]} if cursor else {}
    prefix = f"{job_group['stem']}-"
    filters: Any = [{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
    answer = call("list_jobs", jobQueue=job_group["queue"], filters=filters, **where)
    found = [
        Found(
            int(job["jobName"].removeprefix(prefix)),
            job["jobId"],
            ended=batch.STATES.get(job["status"], JobState.RUNNING).ended,
        )
        for job in answer["jobSummaryList"]
        if job["jobName"].startswith(prefix) and job["jobName"].removeprefix(prefix).isdecimal()
    ]
    token = answer.get("nextToken")
    return found, [token] if token else None
