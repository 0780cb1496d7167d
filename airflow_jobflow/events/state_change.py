"""Converts a job's state change to the payload of an asset event, in the same shape for all services. Pure.

Light to import, because DAG files import it: the modules in ``jobs/`` are loaded when the first event is converted.

Invariants:

- An event with an unexpected value converts to None. Converting never raises.
- The payload has only the documented members, as short plain values, so that it can be stored whatever the event holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_jobflow.events.eventbridge import GLUE_CRAWL, JobEvent

Json = dict[str, Any]

END_STATES = ("SUCCEEDED", "FAILED")
"""The states, the same for every service, of a job that has ended."""

MAX_TEXT = 1024
"""Characters of a text that are kept. AWS's own texts are shorter."""

ECS_TIMES = ("createdAt", "startedAt", "stoppedAt")
"""Members of an ECS task that are ISO 8601 in an event and numbers in a DescribeTasks response."""

OPTIONAL = ("reason", "exit_code", "created_at", "started_at", "stopped_at", "definition", "queue")
"""Members of the payload that only some services have."""


def job_payload(event: JobEvent) -> Json | None:
    """Return what an asset event says about a job.

    ``service``, ``job_id``, ``name``, ``state``, ``status``, ``reason``, ``exit_code``, ``created_at``,
    ``started_at`` and ``stopped_at`` are as in an operator's outcome. ``array`` is ``{size, succeeded, failed}`` for an
    array, ``{parent, index}`` for a child, and None for other jobs; the counts may lag. ``definition`` and ``queue``
    are ARNs; for an ECS task those of the task definition and the cluster. ``account``, ``region``, ``time`` and
    ``event_id`` are the event's own. ``key`` is the same each time the same state change is delivered.

    :param event: a parsed event.
    :return: the payload; None if the event lacks a member or has one that cannot be read.
    """
    envelope = event.envelope
    try:
        job = READERS[event.service](envelope["detail"])
        event_id = _text(envelope["id"])
        own = {name: _plain(envelope.get(name)) for name in ("account", "region", "time")}
        # Only an end with a job id happens once: a crawl has no id, and a retried job can run again.
        happens_once = job["state"] in END_STATES and event.service != GLUE_CRAWL
        key = f"{event.service}/{job['job_id']}/{job['status']}" if happens_once else event_id
        return {"key": key, "service": event.service, **job, **own, "event_id": event_id}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError):
        return None  # a member has an unexpected type or value, such as a time out of range


def _batch(detail: Mapping[str, Any]) -> Json:
    from airflow_jobflow.jobs.batch import snapshot

    array = detail.get("arrayProperties", {})
    job = _from_snapshot(snapshot(detail))
    if "index" in array:
        job["array"] = {"parent": job["job_id"].partition(":")[0], "index": _plain(array["index"])}
    return job


def _ecs(detail: Mapping[str, Any]) -> Json:
    """Read a task. Every container counts as essential, because an event does not say which are."""
    from airflow_jobflow.jobs.ecs_snapshot import Definition, snapshot

    times = {name: datetime.fromisoformat(detail[name]).timestamp() for name in ECS_TIMES if name in detail}
    return _from_snapshot(snapshot({**detail, **times}, Definition()))


def _from_snapshot(snapshot: Any) -> Json:
    array = snapshot.array
    return {
        **_job(snapshot.job_id, snapshot.name, snapshot.state.value, snapshot.status),
        **{name: _plain(getattr(snapshot, name)) for name in OPTIONAL},
        "array": array and {name: _plain(getattr(array, name)) for name in ("size", "succeeded", "failed")},
    }


def _glue_run(detail: Mapping[str, Any]) -> Json:
    from airflow_jobflow.jobs.glue_run import STATES

    job = _job(detail["jobRunId"], detail["jobName"], str(STATES.get(detail["state"], "RUNNING")), detail["state"])
    return {**job, "reason": _plain(detail.get("message"))}


def _glue_crawl(detail: Mapping[str, Any]) -> Json:
    status = detail["state"].upper()
    states = {"SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED", "STOPPED": "FAILED"}
    job = _job(detail["crawlerName"], detail["crawlerName"], states.get(status, "RUNNING"), status)
    return {**job, "reason": _plain(detail.get("errorMessage") or detail.get("message"))}


READERS = {"batch": _batch, "ecs": _ecs, "glue_run": _glue_run, GLUE_CRAWL: _glue_crawl}


def _job(job_id: Any, name: Any, state: str, status: Any) -> Json:
    optional = dict.fromkeys((*OPTIONAL, "array"))
    return {"job_id": _text(job_id), "name": _text(name), "state": state, "status": _text(status), **optional}


def _text(value: Any) -> str:
    """Return a text that can be stored.

    :raises TypeError: it is not a string.
    """
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    # Airflow's database and its messages between processes accept neither NUL nor lone surrogates.
    return value[:MAX_TEXT].replace("\0", "").encode(errors="replace").decode()


def _plain(value: Any) -> str | int | float | None:
    """Return a text or a number that can be stored; None for other values and for numbers beyond 2**53."""
    if isinstance(value, str):
        return _text(value)
    return value if isinstance(value, int | float) and abs(value) < 2**53 else None
