"""Notes for the "Jobs" tab: the XCom ``jobflow_jobs``, which is built here and read by ``page/jobs.js``.

The trigger writes a note on the state of the jobs while it waits for them. The worker writes one on how they ended if
an exception leaves no return value. Pure functions.

Invariants: a note is plain JSON of bounded size. Its version ``v`` is increased when a page for the previous version
would misread it.

::

    {"v": 1, "at": time, "service": "batch", "final": true if no other note follows, "total": number of jobs,
     "links": {key of a button: URL}, read by ``console_links``,
     "jobs": [{id, name, state, status, reason, container_reason, exit_code, attempt, max_attempts, created_at,
               started_at, stopped_at, log, links: {console, log}, seen: [[status, time], …],
               stop_requested_at: when AWS accepted a stop by Airflow; missing if there was none}, …],
     "counts": {state: number of jobs}, if not all of them are listed,
     "array": {"kind": "array" | "map", "size", "counts": {succeeded, failed, running}, "cells": one character a child,
               "failed_jobs": [{index, …}, …], "started_again": how often items were, and why; missing if none was},
     "diagnosis": {cause, blame, summary, advice}, "error": the text of the exception,
     "help": address of the documentation on it}

A cell is one of the characters of ``jobs.map_statuses``, or ``.`` for a child that is not known to have failed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.causes import Diagnosis
from airflow_jobflow.jobs.map_statuses import index_of_line
from airflow_jobflow.jobs.model import Snapshot

KEY = "jobflow_jobs"
"""Key of the XCom."""

VERSION = 1

JOBS = 200
"""Maximum number of jobs that are listed; a task may wait for more."""

MAX_FAILED_CHILDREN = 1000
"""Maximum number of failed children that are listed."""

MAX_REASON = 1000
"""Maximum length of a reason; those of AWS are shorter."""

MAX_ERROR = 10_000
"""Maximum length of an error."""

UNKNOWN = "."
"""The cell of a child whose state is not known."""

Seen = Mapping[str, Sequence[Sequence[str]]]
"""By job id: the statuses the job was seen in, each with the time of the first sighting in ISO 8601."""


def now() -> str:
    """Return the current time in the format of notes."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def of_jobs(
    service: str,
    snapshots: Sequence[Snapshot],
    total: int,
    *,
    seen: Seen,
    links: Mapping[str, Mapping[str, str]],
    failed: Mapping[int, Snapshot],
    buttons: Mapping[str, str],
    stops: Mapping[str, str] | None = None,
    error: str = "",
    final: bool = False,
) -> dict[str, Any]:
    """Return a note on jobs that a task waits for, or that were left when it was killed.

    :param service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :param snapshots: the last known state of the jobs.
    :param total: the number of jobs that the task waits for.
    :param seen: the statuses that each job was seen in.
    :param links: by job id, the pages of the console.
    :param failed: of a single array, the children that are known to have failed, by index.
    :param buttons: the URLs of the task's buttons, by the keys of their links.
    :param stops: by job id, when Airflow stopped it, in ISO 8601. Default: none.
    :param error: the error when the jobs were stopped. Default: none.
    :param final: whether the task no longer waits. Default False.
    """
    jobs = [
        {
            **_job(each),
            "links": links.get(each.job_id, {}),
            "seen": [list(status) for status in seen.get(each.job_id, ())],
        }
        for each in snapshots[:JOBS]
    ]
    note = {**_note(service, _with_stops(jobs, stops or {}), total), "final": final, "links": dict(buttons)}
    if error:
        note["error"] = error[:MAX_ERROR]
    if total > len(jobs):
        note["counts"] = dict(Counter(each.state.value for each in snapshots))
    if total == 1 and snapshots and (counts := snapshots[0].array):
        cells = [UNKNOWN] * counts.size
        for index in failed:
            cells[index] = map_statuses.FAILED
        note["array"] = {
            "kind": "array",
            "size": counts.size,
            "counts": {"succeeded": counts.succeeded, "failed": counts.failed, "running": counts.running},
            "cells": "".join(cells),
            "failed_jobs": _failed_jobs(failed.items()),
        }
    return note


def of_map(
    service: str,
    name: str,
    statuses: str,
    lines: Iterable[str],
    times: Sequence[str | None],
    *,
    started_again: str = "",
    stop_requested_at: str | None = None,
    error: str = "",
) -> dict[str, Any]:
    """Return a note on a running map, or on one whose task was killed.

    :param service: ``batch`` or ``ecs``.
    :param name: name of the map; empty if it is not known.
    :param statuses: one character per item.
    :param lines: ``[index, snapshot]`` as JSON for each item that has ended.
    :param times: when the first job was created, when the first job started, and when the last one ended.
    :param started_again: how often items were started again, and why, as a text. Default: none was.
    :param stop_requested_at: when Airflow stopped the map, in ISO 8601. Default None: it runs.
    :param error: the error when the jobs were stopped. Default: none.
    """
    created, started, _ = times
    running = any(status in statuses for status in (map_statuses.RUNNING, map_statuses.SUCCEEDED, map_statuses.FAILED))
    state = "RUNNING" if running else "SUBMITTED"
    summary = {"id": "", "name": name, "state": state, "status": state, "created_at": created, "started_at": started}
    if stop_requested_at and not error:
        summary["stop_requested_at"] = stop_requested_at
    array = _items(statuses, lines) | ({"started_again": started_again} if started_again else {})
    note = {**_note(service, [summary], 1), "final": stop_requested_at is not None, "array": array}
    return note | ({"error": error[:MAX_ERROR]} if error else {})


def of_failure(
    service: str,
    error: str,
    *,
    outcomes: Sequence[Mapping[str, Any]] = (),
    diagnosis: Diagnosis | None = None,
    children: Mapping[int, Snapshot] | None = None,
    event: Mapping[str, Any] | None = None,
    lines: Iterable[str] = (),
    help_page: str | None = None,
    buttons: Mapping[str, str] | None = None,
    stops: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a note on a failed task.

    :param service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :param error: the text of the exception.
    :param outcomes: what is known about the jobs, as operators return it. Default: nothing.
    :param diagnosis: why the job failed. Default: not known.
    :param children: the failed children of an array that were described, by index. Default: none.
    :param event: the trigger's event, which is used if there are no outcomes. Default: none.
    :param lines: the items of a map, as in its trigger's event. Default: none.
    :param help_page: address of the documentation on the error. Default: none.
    :param buttons: the URLs of the task's buttons, by the keys of their links. Default: none.
    :param stops: by job id, when Airflow stopped it, in ISO 8601. Default: none.
    """
    event = event or {}
    jobs: list[dict[str, Any]] = [_outcome(each) for each in outcomes[:JOBS]]
    if not jobs:
        jobs = [_job(Snapshot.from_dict(each)) for each in list(event.get("jobs", {}).values())[:JOBS]]
    jobs = _with_stops(jobs, stops or {})
    note = {**_note(service, jobs, max(len(jobs), len(outcomes), len(event.get("job_ids", ())))), "final": True}
    note |= {"error": error[:MAX_ERROR], "help": help_page, "links": dict(buttons or {})}
    if diagnosis:
        note["diagnosis"] = {
            "cause": diagnosis.cause,
            "blame": diagnosis.blame.value,
            "summary": diagnosis.summary,
            "advice": diagnosis.advice,
        }
    outcome = outcomes[0] if len(outcomes) == 1 else {}
    if "statuses" in outcome:
        failed = [{"index": each["index"], **_outcome(each)} for each in outcome["failed"][:MAX_FAILED_CHILDREN]]
        cells = outcome["statuses"]
        note["array"] = {"kind": "map", "size": len(cells), "cells": cells, "failed_jobs": failed}
    elif outcome.get("array"):
        note["array"] = _array(outcome["array"], children or {})
    elif event.get("statuses"):
        note["array"] = _items(event["statuses"], lines)
    return note


def digest(note: Mapping[str, Any]) -> str:
    """Return a hash of a note's content that does not depend on when it was written.

    :param note: the note.
    """
    jobs = [{**job, "seen": None} for job in note.get("jobs", ())]
    text = json.dumps({**note, "at": None, "jobs": jobs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _note(service: str, jobs: Sequence[Mapping[str, Any]], total: int) -> dict[str, Any]:
    return {"v": VERSION, "at": now(), "service": service, "jobs": list(jobs), "total": total}


def _with_stops(jobs: Sequence[Mapping[str, Any]], stops: Mapping[str, str]) -> list[dict[str, Any]]:
    """Add the time at which Airflow stopped each job."""
    times = [stops.get(job.get("id") or job.get("job_id") or "") for job in jobs]
    return [{**job, "stop_requested_at": at} if at else dict(job) for job, at in zip(jobs, times, strict=True)]


def _job(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.job_id,
        "name": snapshot.name,
        "state": snapshot.state.value,
        "status": snapshot.status,
        "reason": (snapshot.reason or "")[:MAX_REASON],
        "container_reason": (snapshot.container_reason or "")[:MAX_REASON],
        "exit_code": snapshot.exit_code,
        "attempt": snapshot.attempt,
        "max_attempts": snapshot.max_attempts,
        "created_at": snapshot.created_at,
        "started_at": snapshot.started_at,
        "stopped_at": snapshot.stopped_at,
        "log": snapshot.log and snapshot.log.to_dict(),
    }


def _outcome(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome without the members about children, which are part of the note's ``array``."""
    about_children = ("array", "statuses", "failed", "outcomes", "service")
    job = {name: value for name, value in outcome.items() if name not in about_children}
    return {**job, "reason": (job.get("reason") or "")[:MAX_REASON]}


def _failed_jobs(failed: Iterable[tuple[int, Snapshot]]) -> list[dict[str, Any]]:
    """Return the first failed children, in their order."""
    return [{"index": index, **_job(each)} for index, each in sorted(failed)[:MAX_FAILED_CHILDREN]]


def _array(array: Mapping[str, Any], children: Mapping[int, Snapshot]) -> dict[str, Any]:
    size, failed = array["size"], array["failed_indexes"]
    # Without the list of failed children, the state of none is known.
    cells = [map_statuses.SUCCEEDED if len(failed) >= array["failed"] else UNKNOWN] * size
    for index in failed:
        cells[index] = map_statuses.FAILED
    counts = {"succeeded": array["succeeded"], "failed": array["failed"], "running": 0}
    return {
        "kind": "array",
        "size": size,
        "counts": counts,
        "cells": "".join(cells),
        "failed_jobs": _failed_jobs(children.items()),
    }


def _items(statuses: str, lines: Iterable[str]) -> dict[str, Any]:
    bad = (map_statuses.FAILED, map_statuses.STOPPED, map_statuses.NOT_DESCRIBED)
    failed = [(index, line) for line in lines if line and statuses[index := index_of_line(line)] in bad]
    jobs = [(index, Snapshot.from_dict(json.loads(line)[1])) for index, line in sorted(failed)[:MAX_FAILED_CHILDREN]]
    return {"kind": "map", "size": len(statuses), "cells": statuses, "failed_jobs": _failed_jobs(jobs)}
