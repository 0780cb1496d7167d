"""Parses EventBridge's state-change events. Pure, and light to import: DAG files import it.

Wake-ups of waits (``wakeup_queue``) need the service, the job and whether it has ended. Asset events (``state_change``)
also read the detail. Both parse the envelope here.

Invariants:

- Parsing never raises, whatever a message contains. A message that is not a state change of a job parses as None.
- An event is only a hint to describe a job. So few members are read that members which AWS adds change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

GLUE_CRAWL, GLUE_RUN = "glue_crawl", "glue_run"


@dataclass(frozen=True, slots=True)
class EventType:
    """Where an event of this type holds what is read of it.

    :param service: our name of the service.
    :param job_id: the member of the detail with the job's id; for a crawl, with the crawler's name.
    :param status: the member of the detail with the job's status.
    :param ended: the statuses of jobs that have ended.
    """

    service: str
    job_id: str
    status: str
    ended: frozenset[str]


EVENT_TYPES = {
    ("aws.batch", "Batch Job State Change"): EventType("batch", "jobId", "status", frozenset({"SUCCEEDED", "FAILED"})),
    ("aws.ecs", "ECS Task State Change"): EventType("ecs", "taskArn", "lastStatus", frozenset({"STOPPED"})),
    ("aws.glue", "Glue Job State Change"): EventType(
        GLUE_RUN,
        "jobRunId",
        "state",
        frozenset({"SUCCEEDED", "STOPPED", "FAILED", "ERROR", "TIMEOUT", "EXPIRED"}),
    ),
    ("aws.glue", "Glue Crawler State Change"): EventType(
        GLUE_CRAWL, "crawlerName", "state", frozenset({"Succeeded", "Failed", "Stopped"})
    ),
}
"""The events that are state changes of jobs, by source and detail-type. A test checks ``ended`` against the services'
status tables."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A state change of a job.

    :param service: our name of the service.
    :param job_id: AWS's id of the job; for a crawl, the crawler's name.
    :param ended: whether the status is one of a job that has ended.
    :param envelope: the whole event as EventBridge delivered it. Default empty. Not compared.
    """

    service: str
    job_id: str
    ended: bool
    envelope: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def parse_message(body: str) -> JobEvent | None:
    """Parse the body of an SQS message.

    :param body: any text. Members that are null count as missing.
    :return: the event; None if the message is not a state change of a job.
    """
    try:
        return parse_event(json.loads(body, object_hook=_without_nulls))
    except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
        return None


def parse_event(event: Any) -> JobEvent | None:
    """Parse an event.

    :param event: a dict as EventBridge delivers it; anything else parses as None.
    :return: the event; None if it is not a state change of a job.
    """
    if not isinstance(event, dict) or not isinstance(event.get("detail"), dict):
        return None
    source, detail_type = event.get("source"), event.get("detail-type")
    if not (isinstance(source, str) and isinstance(detail_type, str)):
        return None
    event_type = EVENT_TYPES.get((source, detail_type))
    if event_type is None:
        return None
    job_id, status = event["detail"].get(event_type.job_id), event["detail"].get(event_type.status)
    if not (isinstance(job_id, str) and job_id):
        return None
    ended = isinstance(status, str) and status in event_type.ended
    return JobEvent(event_type.service, job_id, ended, event)


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def jobs_to_describe(event: JobEvent, service: str, job_ids: Collection[str]) -> Mapping[str, bool]:
    """Return which of the subscribed jobs an event concerns.

    An id matches a job; the last part of a task's ARN matches an ECS task; a crawler's name matches its crawls; the id
    of a retry by Glue matches the run that it retries. An
    event of a child also concerns its array, but not urgently: ten thousand children may end at once. The scope of
    describe calls, such as a cluster, is not compared: AWS's ids are unique, and a wrong match costs one describe call.

    :param event: the event.
    :param service: our name of the service of the subscribed jobs.
    :param job_ids: the ids of the subscribed jobs.
    :return: by id, whether to describe the job at once.
    """
    if event.service != service:
        return {}
    if service == GLUE_CRAWL:
        return {job_id: event.ended for job_id in job_ids if job_id.startswith(f"{event.job_id}@")}
    array, _, child = event.job_id.partition(":") if service == "batch" else ("", "", "")
    names = {event.job_id: event.ended, event.job_id.rpartition("/")[2]: event.ended}
    if child:
        names[array] = False
    if service == GLUE_RUN:
        from airflow_jobflow.jobs.glue_retries import first_id

        names[first_id(event.job_id)] = event.ended
    return {job_id: at_once for job_id, at_once in names.items() if job_id in job_ids}
