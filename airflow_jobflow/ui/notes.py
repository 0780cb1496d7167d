"""What the tab is told beside what tasks return: the XCom ``jobflow_jobs``, written here and read by ``page/jobs.js``.

Pure. The trigger notes how jobs stand while it waits for them, and the worker how they ended where an exception leaves
no return value. What always holds: a note is plain JSON, bounded in size whatever it is made of; its ``v`` grows when
a page that knows only the former would misread it.

::

    {"v": 1, "at": time, "service": "batch", "final": whether nothing follows, "total": how many jobs there are,
     "links": {key of a button: URL}, read by ``console_links``,
     "jobs": [{id, name, state, status, reason, container_reason, exit_code, attempt, max_attempts, created_at,
               started_at, stopped_at, log, links: {console, log}, seen: [[status, time], …],
               stop_requested_at: when AWS accepted a stop by Airflow; missing if there was none}, …],
     "counts": {state: how many of the jobs}, where not all of them are listed,
     "array": {"kind": "array" | "map", "size", "counts": {succeeded, failed, running}, "cells": a character a child,
               "told": [{index, …}, …] of what has failed},
     "diagnosis": {cause, blame, summary, advice}, "error": what was raised,
     "help": where the documentation says what to do}

A cell is one of the characters of ``jobs.map_statuses``, or ``.`` for what has not failed as far as is known.
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
"""The most jobs that are told of; a task may wait for more."""

TOLD = 1000
"""The most failed children that are told of."""

WORDS = 1000
"""The most characters of a reason; AWS's own are shorter."""

LINES = 10_000
"""The most characters of an error."""

UNKNOWN = "."

Seen = Mapping[str, Sequence[Sequence[str]]]
"""By the job's id, the statuses it was seen in, each with when it was seen first."""


def now() -> str:
    """Return the time, as notes have it."""
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
    """Note how jobs stand while they are waited for, or how they were left when the task was killed.

    :param snapshots: what was last seen of them.
    :param total: how many are waited for.
    :param seen: which statuses each has been seen in.
    :param links: by the job's id, the console's pages.
    :param failed: of a single array, the children that are known to have failed, by index.
    :param buttons: the URLs of the task's buttons, by the keys of their links.
    :param stops: by the job's id, when Airflow has stopped it, in ISO 8601. Default none.
    :param error: what went wrong when the jobs were stopped. Default nothing.
    :param final: whether the task waits no longer. Default False.
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
        note["error"] = error[:LINES]
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
            "told": _told(failed.items()),
        }
    return note


def of_map(
    service: str,
    name: str,
    statuses: str,
    lines: Iterable[str],
    times: Sequence[str | None],
    *,
    stop_requested_at: str | None = None,
    error: str = "",
) -> dict[str, Any]:
    """Note how the items of a map stand while it runs, or how they were left when the task was killed.

    :param name: what the map is called; empty where that is not known.
    :param statuses: a character an item.
    :param lines: what is told of those that have ended, ``[index, snapshot]`` as JSON.
    :param times: when the first job was created, when the first began, and when the last ended.
    :param stop_requested_at: when Airflow has stopped the map, in ISO 8601. Default None: it runs.
    :param error: what went wrong when the jobs were stopped. Default nothing.
    """
    created, started, _ = times
    running = any(status in statuses for status in (map_statuses.RUNNING, map_statuses.SUCCEEDED, map_statuses.FAILED))
    state = "RUNNING" if running else "SUBMITTED"
    whole = {"id": "", "name": name, "state": state, "status": state, "created_at": created, "started_at": started}
    if stop_requested_at and not error:
        whole["stop_requested_at"] = stop_requested_at
    note = {**_note(service, [whole], 1), "final": stop_requested_at is not None, "array": _items(statuses, lines)}
    return note | ({"error": error[:LINES]} if error else {})


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
    """Note how a task has failed.

    :param error: what a person reads.
    :param outcomes: what is known of the jobs, in the shape that operators return.
    :param children: of an array, its failed children as far as they were looked at, by index.
    :param event: what the trigger saw, for where there are no outcomes.
    :param lines: of a map, what is told of the items, as its trigger's event has it.
    :param help_page: where the documentation says what to do about it.
    :param buttons: the URLs of the task's buttons, by the keys of their links.
    :param stops: by the job's id, when Airflow has stopped it, in ISO 8601. Default none.
    """
    event = event or {}
    jobs: list[dict[str, Any]] = [_outcome(each) for each in outcomes[:JOBS]]
    if not jobs:
        jobs = [_job(Snapshot.from_dict(each)) for each in list(event.get("jobs", {}).values())[:JOBS]]
    jobs = _with_stops(jobs, stops or {})
    note = {**_note(service, jobs, max(len(jobs), len(outcomes), len(event.get("job_ids", ())))), "final": True}
    note |= {"error": error[:LINES], "help": help_page, "links": dict(buttons or {})}
    if diagnosis:
        note["diagnosis"] = {
            "cause": diagnosis.cause,
            "blame": diagnosis.blame.value,
            "summary": diagnosis.summary,
            "advice": diagnosis.advice,
        }
    whole = outcomes[0] if len(outcomes) == 1 else {}
    if "statuses" in whole:
        told = [{"index": each["index"], **_outcome(each)} for each in whole["failed"][:TOLD]]
        note["array"] = {"kind": "map", "size": len(whole["statuses"]), "cells": whole["statuses"], "told": told}
    elif whole.get("array"):
        note["array"] = _array(whole["array"], children or {})
    elif event.get("statuses"):
        note["array"] = _items(event["statuses"], lines)
    return note


def digest(note: Mapping[str, Any]) -> str:
    """Return what is equal for notes that say the same, whenever they were made."""
    jobs = [{**job, "seen": None} for job in note.get("jobs", ())]
    text = json.dumps({**note, "at": None, "jobs": jobs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _note(service: str, jobs: Sequence[Mapping[str, Any]], total: int) -> dict[str, Any]:
    return {"v": VERSION, "at": now(), "service": service, "jobs": list(jobs), "total": total}


def _with_stops(jobs: Sequence[Mapping[str, Any]], stops: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return jobs with the time at which Airflow has stopped each of them."""
    times = [stops.get(job.get("id") or job.get("job_id") or "") for job in jobs]
    return [{**job, "stop_requested_at": at} if at else dict(job) for job, at in zip(jobs, times, strict=True)]


def _job(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.job_id,
        "name": snapshot.name,
        "state": snapshot.state.value,
        "status": snapshot.status,
        "reason": (snapshot.reason or "")[:WORDS],
        "container_reason": (snapshot.container_reason or "")[:WORDS],
        "exit_code": snapshot.exit_code,
        "attempt": snapshot.attempt,
        "max_attempts": snapshot.max_attempts,
        "created_at": snapshot.created_at,
        "started_at": snapshot.started_at,
        "stopped_at": snapshot.stopped_at,
        "log": snapshot.log and snapshot.log.to_dict(),
    }


def _outcome(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return of an outcome what stands on its own; how children ended is told beside it."""
    whole = ("array", "statuses", "failed", "outcomes", "service")
    told = {name: value for name, value in outcome.items() if name not in whole}
    return {**told, "reason": (told.get("reason") or "")[:WORDS]}


def _told(failed: Iterable[tuple[int, Snapshot]]) -> list[dict[str, Any]]:
    """Tell of failed children, in their order and as many as there is room for."""
    return [{"index": index, **_job(each)} for index, each in sorted(failed)[:TOLD]]


def _array(array: Mapping[str, Any], children: Mapping[int, Snapshot]) -> dict[str, Any]:
    size, failed = array["size"], array["failed_indexes"]
    # Which have failed may not have been found out; then nothing is known of any.
    cells = [map_statuses.SUCCEEDED if len(failed) >= array["failed"] else UNKNOWN] * size
    for index in failed:
        cells[index] = map_statuses.FAILED
    counts = {"succeeded": array["succeeded"], "failed": array["failed"], "running": 0}
    return {"kind": "array", "size": size, "counts": counts, "cells": "".join(cells), "told": _told(children.items())}


def _items(statuses: str, lines: Iterable[str]) -> dict[str, Any]:
    bad = (map_statuses.FAILED, map_statuses.STOPPED)
    failed = [(index, line) for line in lines if line and statuses[index := index_of_line(line)] in bad]
    told = [(index, Snapshot.from_dict(json.loads(line)[1])) for index, line in sorted(failed)[:TOLD]]
    return {"kind": "map", "size": len(statuses), "cells": statuses, "told": _told(told)}
