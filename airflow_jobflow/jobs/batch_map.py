"""Maps on AWS Batch: one job for each item, under a name made of the map's and the item's index.

What Batch does and this module relies on: ListJobs finds jobs of a queue whose name begins with given letters, in
whatever state, a hundred at a time, and compares without case; SubmitJob has no client token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.environment import with_variables
from airflow_jobflow.jobs.maps import INDEX, Found, Start
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.owner import with_owner_tags
from airflow_jobflow.jobs.tagging import start_tagged

REPEATABLE = False
CHECKPOINT = 6 * 3600.0


def family(job_queue: str, name: str, owner: Mapping[str, str]) -> dict[str, Any]:
    """Return how the jobs of a map are named, and where they are listed.

    :param name: what ``batch.attempt_name`` returned; the index of the item follows.
    :param owner: the tags that say whose the jobs are.
    """
    return {"queue": job_queue, "stem": name, "owner": dict(owner)}


def item(request: dict[str, Any], index: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the SubmitJob request of an item, but for its name."""
    overrides = with_variables(request.get("containerOverrides", {}), {**environment, INDEX: index})
    return {**{name: value for name, value in request.items() if name != "jobName"}, "containerOverrides": overrides}


def start(call: Call, family: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
    """Submit an item's job, and return its id. One SubmitJob call.

    It goes where the map's jobs are listed, also if a later try of the task names another queue.
    """
    request = {**request, "jobName": f"{family['stem']}-{which.index}", "jobQueue": family["queue"]}
    tags, _ = with_owner_tags(request.get("tags", {}), family.get("owner", {}))
    return start_tagged(call, batch.submit, request, {**request, "tags": tags} if tags else request)


def look_up(call: Call, family: Mapping[str, Any], which: Start) -> str | None:
    """Return the id of the job of an item whose submit got no answer, or None. One ListJobs call."""
    return batch.find(call, family["queue"], f"{family['stem']}-{which.index}")


def page(call: Call, family: Mapping[str, Any], cursor: Sequence[str] | None) -> tuple[list[Found], list[str] | None]:
    """List up to a hundred of the jobs a map has started, and say where the next page begins. One ListJobs call."""
    where: Any = {"nextToken": cursor[0]} if cursor else {}
    prefix = f"{family['stem']}-"
    filters: Any = [{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
    answer = call("list_jobs", jobQueue=family["queue"], filters=filters, **where)
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
