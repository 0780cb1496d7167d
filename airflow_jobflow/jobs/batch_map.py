"""Maps on AWS Batch: one job for each attempt at an item, named after the map, the item's index and its history.

This module relies on the following behaviour of Batch: ListJobs lists the jobs of a queue by name prefix, in any state,
a hundred at a time, and ignores case. SubmitJob has no client token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_jobflow.jobs import batch, batch_request, batch_search
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH, of_item, with_variables
from airflow_jobflow.jobs.maps import INDEX, Found, Start
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.owner import with_owner_tags
from airflow_jobflow.jobs.starting import start_tagged

REPEATABLE = False
CHECKPOINT = 6 * 3600.0

MEMBERS: Final = {
    "container_overrides": "containerOverrides",
    "attempt_timeout": "timeout",
    "job_queue": "jobQueue",
    "retry_strategy": "retryStrategy",
    "share_identifier": "shareIdentifier",
    "scheduling_priority_override": "schedulingPriorityOverride",
}
"""The member of a request for each parameter that a later attempt may change. Sizes are in the overrides."""

_END_OF_NAME: Final = re.compile(r"(?P<index>\d+)(-(?P<history>[a-z]+))?")
"""What follows the map's name in the name of a job."""


def job_group(job_queue: str, name: str, owner: Mapping[str, str], other_queues: Sequence[str] = ()) -> dict[str, Any]:
    """Return how the jobs of a map are named, and where they are listed.

    :param job_queue: name or ARN of the queue.
    :param name: what ``batch_search.attempt_name`` returned; the index of the item follows.
    :param owner: the owner's tags.
    :param other_queues: the queues to which later attempts at an item may be submitted. Default: none.
    """
    queues = [each for each in dict.fromkeys(other_queues) if each != job_queue]
    return {"queue": job_queue, "stem": name, "owner": dict(owner)} | ({"other_queues": queues} if queues else {})


def item(request: dict[str, Any], index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the SubmitJob request of an item, without its name.

    :param request: the SubmitJob request of the item.
    :param index: the item's index.
    :param environment: variables to add to its container.
    """
    overrides = with_variables(request.get("containerOverrides", {}), {**environment, INDEX: index})
    return {**{name: value for name, value in request.items() if name != "jobName"}, "containerOverrides": overrides}


def with_changes(request: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the SubmitJob request of an item with other values.

    :param request: as ``item`` returned it.
    :param values: the new values by our names of parameters.
    """
    overrides = {"container_overrides": request.get("containerOverrides", {})}
    return {**request, **batch_request.request({**overrides, **values}, MEMBERS)}


def start(call: Call, job_group: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
    """Submit an item's job, and return its id. One SubmitJob call.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param request: as ``item`` returned it.
    :param which: the item, and the attempt at it.
    :raises CallError: it was not submitted, or the response was lost.
    """
    request = with_changes(request, which.values)
    request |= {"jobName": _name(job_group, which), "jobQueue": _queue(job_group, which)}
    overrides = with_variables(request["containerOverrides"], which.marks)
    room = MAX_BATCH_OVERRIDES_LENGTH - len(json.dumps(overrides))
    request["containerOverrides"] = of_item(overrides, job_group, which.index, room)
    tags, _ = with_owner_tags(request.get("tags", {}), job_group.get("owner", {}))
    return start_tagged(call, batch.submit, request, {**request, "tags": tags} if tags else request)


def find_submitted(call: Call, job_group: Mapping[str, Any], which: Start) -> str | None:
    """Return the id of the job of an attempt whose submit response was lost, or None. One ListJobs call.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param which: the item, and the attempt at it.
    """
    return batch_search.find(call, _queue(job_group, which), _name(job_group, which))


def _name(job_group: Mapping[str, Any], which: Start) -> str:
    return f"{job_group['stem']}-{which.index}" + (f"-{which.history}" if which.history else "")


def _queues(job_group: Mapping[str, Any]) -> list[str]:
    """Return the queues that may have jobs of the map."""
    return [job_group["queue"], *job_group.get("other_queues", ())]


def _queue(job_group: Mapping[str, Any], which: Start) -> str:
    """Return the queue of an attempt: one where the map's jobs are listed, whatever a later try of the task names."""
    queue: str = which.values.get("job_queue", job_group["queue"])
    return queue if queue in _queues(job_group) else str(job_group["queue"])


def page(
    call: Call, job_group: Mapping[str, Any], cursor: Sequence[str] | None
) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the jobs that a map has started. One ListJobs call.

    :param call: makes the API calls.
    :param job_group: as ``job_group`` returned it.
    :param cursor: where the page begins; None for the first.
    :return: the jobs, and where the next page begins; None if there is none.
    """
    queues, prefix = _queues(job_group), f"{job_group['stem']}-"
    queue, *after = cursor or queues[:1]
    where: Any = {"nextToken": after[0]} if after else {}
    answer = call("list_jobs", jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [f"{prefix}*"]}], **where)
    found = [
        Found(
            int(end["index"]),
            job["jobId"],
            end["history"] or "",
            ended=batch.STATES.get(job["status"], JobState.RUNNING).ended,
        )
        for job in answer["jobSummaryList"]
        if job["jobName"].startswith(prefix) and (end := _END_OF_NAME.fullmatch(job["jobName"].removeprefix(prefix)))
    ]
    if token := answer.get("nextToken"):
        return found, [queue, token]
    return found, queues[queues.index(queue) + 1 :][:1] or None
