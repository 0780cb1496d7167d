"""Which job an event of EventBridge is about, and whether it says that the job has ended. Pure.

What always holds: an event is a hint of where to look. So little of it is read that what AWS adds to it changes
nothing; and whatever a message holds, reading it raises nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

GLUE_CRAWL = "glue_crawl"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of event tells of a job.

    :param service: our name of the service.
    :param job_id: the member of its detail that names the job; for a crawl, the crawler.
    :param status: the one that says how the job is.
    :param ends: its words for a job that has ended.
    """

    service: str
    job_id: str
    status: str
    ends: frozenset[str]


KINDS = {
    ("aws.batch", "Batch Job State Change"): Kind("batch", "jobId", "status", frozenset({"SUCCEEDED", "FAILED"})),
    ("aws.ecs", "ECS Task State Change"): Kind("ecs", "taskArn", "lastStatus", frozenset({"STOPPED"})),
    ("aws.glue", "Glue Job State Change"): Kind(
        "glue_run",
        "jobRunId",
        "state",
        frozenset({"SUCCEEDED", "STOPPED", "FAILED", "ERROR", "TIMEOUT", "EXPIRED"}),
    ),
    ("aws.glue", "Glue Crawler State Change"): Kind(
        GLUE_CRAWL, "crawlerName", "state", frozenset({"Succeeded", "Failed", "Stopped"})
    ),
}
"""Every kind of event that tells of a job, by source and detail-type; a test holds the ends against the services'."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What an event says.

    :param service: our name of the service.
    :param job_id: the job, as AWS names it; for a crawl, the crawler.
    :param ended: whether it says that the job has ended.
    """

    service: str
    job_id: str
    ended: bool


def parse(body: str) -> dict[str, Any] | None:
    """Read a message as an event with a detail; None if it is none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):  # the latter for brackets in brackets, ten thousand deep
        return None
    return event if isinstance(event, dict) and isinstance(event.get("detail"), dict) else None


def read(body: str) -> JobEvent | None:
    """Read what a message says of a job; None if it is no event, or none that tells of a job."""
    event = parse(body) or {}
    source, detail_type = event.get("source"), event.get("detail-type")
    if not (isinstance(source, str) and isinstance(detail_type, str)):
        return None
    kind = KINDS.get((source, detail_type))
    if kind is None:
        return None
    job_id, status = event["detail"].get(kind.job_id), event["detail"].get(kind.status)
    if not (isinstance(job_id, str) and job_id):
        return None
    return JobEvent(kind.service, job_id, isinstance(status, str) and status in kind.ends)


def about(event: JobEvent, service: str, known: Collection[str]) -> Mapping[str, bool]:
    """Tell which jobs that are waited for an event is about.

    A job is known by its id, an ECS task also by the last part of its ARN, and a crawl by its crawler. The state of a
    child is a part of its array's, which is worth a look, too, but not one for each of ten thousand children at once.
    What a describe call is confined to, such as a cluster, need not be compared: the ids of AWS are unique, and a job
    that is taken for another costs a look.

    :param event: the event.
    :param service: our name of the service whose jobs are waited for.
    :param known: their ids.
    :return: whether to look at once, by id.
    """
    if event.service != service:
        return {}
    if service == GLUE_CRAWL:
        return {job_id: event.ended for job_id in known if job_id.startswith(f"{event.job_id}@")}
    array, _, child = event.job_id.partition(":") if service == "batch" else ("", "", "")
    names = {event.job_id: event.ended, event.job_id.rpartition("/")[2]: event.ended}
    if child:
        names[array] = False
    return {job_id: at_once for job_id, at_once in names.items() if job_id in known}
