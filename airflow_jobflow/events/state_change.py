"""What EventBridge's state changes say of a job, in one shape for all services, and which of them somebody wants.

Pure, and light to import, for DAG files do: the services' own modules, which read a job, are loaded when there is one
to be read.

What always holds: what is no state change of a job reads as None, whatever it is; of one, only what is named here is
taken, and as short plain values, so that whatever a message holds can be stored; a filter that could never match is
refused when it is made.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_jobflow.events.eventbridge import KINDS
from airflow_jobflow.jobs import service as job_service

Json = dict[str, Any]

ENDS = ("SUCCEEDED", "FAILED")
"""Our words for an end, which hold for every service."""

STATUSES = {
    "batch": ("PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"),
    "ecs": (
        *("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
        *("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
    ),
    "glue_run": (
        *("WAITING", "STARTING", "RUNNING", "STOPPING"),
        *("STOPPED", "SUCCEEDED", "FAILED", "ERROR", "TIMEOUT", "EXPIRED"),
    ),
    "glue_crawl": ("STARTED", "SUCCEEDED", "FAILED", "STOPPED"),
}
"""The services' own words, as events have them; Batch tells of no job that is just SUBMITTED. A test holds them
against the services' tables."""

ARRAYS = ("all", "parents", "children")

APPLIES = {
    "job_queue": ("batch", "ecs"),
    "job_definition": ("batch", "ecs"),
    "job_name": ("batch", "glue_run", "glue_crawl"),
    "array": ("batch",),
}
"""The services whose events tell what a filter asks for."""

OF_PARENTS = {"PENDING", *ENDS}
"""The statuses of an array as a whole: it is pending until the last of its children has ended."""

ARNS = {"job_queue": ("job-queue", "cluster"), "job_definition": ("job-definition", "task-definition")}
"""What a filter's ARN may be one of; other names have none."""

LONGEST = 1024
"""The most characters of a text that are taken; AWS's own are shorter."""

TIMES = ("createdAt", "startedAt", "stoppedAt")
"""Of an ECS task: ISO 8601 in an event, where DescribeTasks has numbers."""


def parse(body: str) -> Json | None:
    """Read the body of a message. None if it is no state change of a job."""
    try:
        return read(json.loads(body, object_hook=_without_nulls, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def read(event: Any) -> Json | None:
    """Read an event, as EventBridge delivers it: what a DAG is told of a job. None if it is no state change of a job.

    ``service``, ``job_id``, ``name``, ``state``, ``status``, ``reason``, ``exit_code``, ``created_at``,
    ``started_at`` and ``stopped_at`` are as in an operator's outcome. ``array`` is ``{size, succeeded, failed}`` of an
    array, ``{parent, index}`` of a child, None of others; the counts may lag. ``definition`` and ``queue`` are ARNs, of
    an ECS task the task definition's and the cluster's. ``account``, ``region``, ``time`` and ``event_id`` are the
    event's own. ``key`` is the same whenever the same is told again.
    """
    try:
        service = KINDS[event["source"], event["detail-type"]].service
        job = READERS[service](event["detail"])
        event_id = _text(event["id"])
        own = {name: _plain(event.get(name)) for name in ("account", "region", "time")}
        # A crawl has no id, and what has not ended may come to where it was once more.
        is_only_end = job["state"] in ENDS and service != "glue_crawl"
        key = f"{service}/{job['job_id']}/{job['status']}" if is_only_end else event_id
        return {"key": key, "service": service, **job, **own, "event_id": event_id}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError):
        return None  # something in it is not what it should be, such as a time that no calendar has


def _batch(detail: Mapping[str, Any]) -> Json:
    array = detail.get("arrayProperties", {})
    seen = _seen(job_service("batch").snapshot(detail))  # type: ignore[attr-defined]
    if "index" in array:
        seen["array"] = {"parent": seen["job_id"].partition(":")[0], "index": _plain(array["index"])}
    return seen


def _ecs(detail: Mapping[str, Any]) -> Json:
    """Read a task. Every container counts as essential, for an event does not say which are."""
    ecs: Any = job_service("ecs")
    times = {name: datetime.fromisoformat(detail[name]).timestamp() for name in TIMES if name in detail}
    return _seen(ecs.snapshot({**detail, **times}, ecs.Definition()))


def _seen(snapshot: Any) -> Json:
    array = snapshot.array
    return {
        **_job(snapshot.job_id, snapshot.name, snapshot.state.value, snapshot.status),
        **{name: _plain(getattr(snapshot, name)) for name in MORE},
        "array": array and {name: _plain(getattr(array, name)) for name in ("size", "succeeded", "failed")},
    }


def _glue_run(detail: Mapping[str, Any]) -> Json:
    states = job_service("glue_run").STATES  # type: ignore[attr-defined]
    job = _job(detail["jobRunId"], detail["jobName"], str(states.get(detail["state"], "RUNNING")), detail["state"])
    return {**job, "reason": _plain(detail.get("message"))}


def _glue_crawl(detail: Mapping[str, Any]) -> Json:
    status = detail["state"].upper()
    states = {"SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED", "STOPPED": "FAILED"}
    job = _job(detail["crawlerName"], detail["crawlerName"], states.get(status, "RUNNING"), status)
    return {**job, "reason": _plain(detail.get("errorMessage") or detail.get("message"))}


READERS = {"batch": _batch, "ecs": _ecs, "glue_run": _glue_run, "glue_crawl": _glue_crawl}

MORE = ("reason", "exit_code", "created_at", "started_at", "stopped_at", "definition", "queue")
"""What only some services tell."""


def _job(job_id: Any, name: Any, state: str, status: Any) -> Json:
    more = dict.fromkeys((*MORE, "array"))
    return {"job_id": _text(job_id), "name": _text(name), "state": state, "status": _text(status), **more}


def _text(value: Any) -> str:
    """Take a text.

    :raises TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text was meant")
    # Airflow's database and its messages between processes take neither a NUL nor half a surrogate pair.
    return value[:LONGEST].replace("\0", "").encode(errors="replace").decode()


def _plain(value: Any) -> str | int | float | None:
    """Take a text or a number of a size that everything takes; nothing for others."""
    if isinstance(value, str):
        return _text(value)
    return value if isinstance(value, int | float) and abs(value) < 2**53 else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _without_nulls(members: Json) -> Json:
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True)
class Filter:
    """Which state changes are wanted: those that match every parameter that is not empty.

    Names match exactly, or by how they begin if they end in ``*``.

    :param service: names of ours, such as ``batch``.
    :param job_queue: names or ARNs of Batch job queues, or of ECS clusters.
    :param job_definition: names or ARNs of Batch job definitions, or of ECS task definitions; one without a revision
        matches all of its revisions.
    :param job_name: of Batch jobs, Glue jobs or Glue crawlers.
    :param status: the service's own words, or ``SUCCEEDED`` and ``FAILED``, which mean any good and any bad end.
    :param array: ``parents``: arrays as a whole; ``children``: their children; ``all``: these, and all other jobs.
    :raises ValueError: it could never match; the message says why.
    """

    service: Collection[str] = ()
    job_queue: Collection[str] = ()
    job_definition: Collection[str] = ()
    job_name: Collection[str] = ()
    status: Collection[str] = ()
    array: str = "all"

    def __post_init__(self) -> None:
        """Refuse what could never match."""
        if self.array not in ARRAYS:
            raise ValueError(f"array={self.array!r}: must be one of {', '.join(ARRAYS)}")
        services = self._services()
        words = {word for service in services for word in STATUSES[service]} | set(ENDS)
        if self.array == "parents":
            services, words = ["arrays as a whole"], OF_PARENTS
        for word in self.status:
            if word.upper() not in words:
                told = f"{' and '.join(services)} tell of {', '.join(sorted(words))}"
                raise ValueError(f"status={word!r}: no event would ever match it: those of {told}")
        for name in ("job_queue", "job_definition", "job_name"):
            for value in getattr(self, name):
                if wrong := _mismatch(value, ARNS.get(name, ())):
                    raise ValueError(f"{name}={value!r}: no name would ever match it; {wrong}")

    def _services(self) -> list[str]:
        """Return the services whose jobs can match."""
        if unknown := [each for each in self.service if each not in STATUSES]:
            raise ValueError(f"service={unknown[0]!r}: must be one of {', '.join(STATUSES)}")
        left = [each for each in STATUSES if not self.service or each in self.service]
        for name, applies in APPLIES.items():
            value = getattr(self, name)
            if not value or value == "all":
                continue
            left = [each for each in left if each in applies]
            if not left or not set(self.service) <= set(left):
                raise ValueError(
                    f"{name}={value!r}: no event would ever match it: with the other filters only jobs of "
                    f"{', '.join(self.service) or 'no service'} could, and it is told of {', '.join(applies)} only"
                )
        return left

    def matches(self, job: Mapping[str, Any]) -> bool:
        """Say whether a state change, as ``read`` gives it, is wanted."""
        array = job["array"] or {}
        return (
            (not self.service or job["service"] in self.service)
            and (not self.status or not {job["status"].upper(), job["state"]}.isdisjoint(map(str.upper, self.status)))
            and (self.array == "all" or ("size" if self.array == "parents" else "index") in array)
            and _named(self.job_queue, _without_path(job["queue"]))
            and _named(self.job_definition, _without_revision(_without_path(job["definition"])))
            and _named(self.job_name, {job["name"]})
        )


def _mismatch(name: str, arns: Collection[str]) -> str | None:
    """Say why nothing that is so called, or begins so, can be told of; None if it can."""
    if not name or "*" in name[:-1]:
        return "'*' may only stand at the end"
    if "{{" in name or "{%" in name:
        return "templates are not rendered here"
    if name.startswith("arn:") and not name.endswith("*") and not any(f":{kind}/" in name for kind in arns):
        return f"it is no ARN of a {' or a '.join(arns)}" if arns else "it is no name, but an ARN"
    return None


def _named(wanted: Collection[str], names: Iterable[str]) -> bool:
    return not wanted or any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in wanted for name in names
    )


def _without_path(arn: object) -> set[str]:
    """Return an ARN, and the name in it."""
    return {arn, arn.rpartition("/")[2]} if isinstance(arn, str) else set()


def _without_revision(names: set[str]) -> set[str]:
    """Return names of definitions, and the same without revisions."""
    return names | {name.rpartition(":")[0] for name in names if name.rpartition(":")[2].isdecimal()}
