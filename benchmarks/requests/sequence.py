"""Convert recorded requests to the sequence of one task's requests. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
START: Final = re.compile(r"PATCH task-instances/\{ti\}/run")
HEARTBEAT: Final = "PUT task-instances/{ti}/heartbeat"

SHARED: Final = ("connections/", "variables/")
"""Requests that name no task."""

ASKED_BY: Final[Sequence[tuple[str, str]]] = (
    (r"PATCH task-instances/\{ti\}/(run|state)", "Airflow: start, end or deferral of the process"),
    (r"PUT task-instances/\{ti\}/heartbeat", "Airflow: heartbeat"),
    (r"PUT task-instances/\{ti\}/rtif", "Airflow: rendered fields"),
    (r"DELETE xcoms/", "Airflow: XComs of an earlier try"),
    (r"\w+ xcoms/.*/(_link_|jobflow_links)", "finalize: an extra link"),
    (r"\w+ xcoms/.*/return_value", "the returned value"),
    (r"\w+ xcoms/", "ours: progress or failure for the Jobs tab"),
    (r"\w+ store/ti/", "ours: task state store"),
    (r"GET connections/", "ours: the AWS connection"),
    (r"GET task-instances/states", "ours: the task's state"),
)
"""The origin of a request, by the start of its name; the first match counts."""


@dataclass(frozen=True)
class Request:
    """A request of one process."""

    at: float
    """Seconds since the epoch."""
    pid: int
    instance: str
    """The stack's name of the service, such as ``worker-1``."""
    name: str
    """Method and path, with ids replaced."""
    status: int

    @property
    def asked_by(self) -> str:
        """The purpose of the request."""
        return next((who for pattern, who in ASKED_BY if re.match(pattern, self.name)), "other")


@dataclass(frozen=True)
class Phase:
    """The requests of one phase of a task, on a worker or in a triggerer, in order."""

    where: str
    requests: Sequence[Request]

    @property
    def counted(self) -> Sequence[Request]:
        """Return the requests without heartbeats, whose number depends on the duration of the process."""
        return [each for each in self.requests if each.name != HEARTBEAT]


def read(lines: Iterable[str], dag_id: str, run_id: str) -> Iterator[Request]:
    """Parse the recorded requests, without those of a triggerer for other tasks.

    :param dag_id, run_id: those of the task.
    """
    for line in lines:
        entry = json.loads(line)
        url = urlsplit(entry["url"])
        path = unquote(url.path).lstrip("/").removeprefix("execution/")
        path = UUID.sub("{ti}", path).replace(f"/{dag_id}/{run_id}/", "/{dag}/{run}/")
        own = "{dag}/{run}/" in path or f"dag_id={dag_id}" in url.query or path.startswith(SHARED)
        if entry["instance"].startswith("triggerer") and not own:
            continue
        yield Request(entry["at"], entry["pid"], entry["instance"], f"{entry['method']} {path}", entry["status"])


def phases(requests: Iterable[Request]) -> list[Phase]:
    """Split the requests of the only task that ran into its phases, in order.

    On a worker, a phase starts when the process starts the task instance. All requests of a triggerer are one phase.
    """
    ordered = sorted(requests, key=lambda each: each.at)
    found: list[tuple[str, list[Request]]] = []
    open_at: dict[int, list[Request]] = {}
    for each in ordered:
        service = each.instance.rpartition("-")[0]
        started = service == "worker" and START.match(each.name)
        if started or (service == "triggerer" and each.pid not in open_at):
            open_at[each.pid] = []
            found.append((service, open_at[each.pid]))
        if each.pid in open_at and service in ("worker", "triggerer"):
            open_at[each.pid].append(each)
    return [Phase(where, several) for where, several in found]


def table(title: str, stays: Sequence[Phase]) -> str:
    """Return the requests of a task as Markdown."""
    total = sum(len(stay.counted) for stay in stays)
    lines = [f"## {title}: {total} requests, without heartbeats", "", "| # | where | request | status | for |"]
    lines.append("|---|---|---|---|---|")
    number = 0
    for stay in stays:
        for each in stay.counted:
            number += 1
            lines.append(f"| {number} | {stay.where} | `{each.name}` | {each.status} | {each.asked_by} |")
    beats = sum(len(stay.requests) - len(stay.counted) for stay in stays)
    return "\n".join([*lines, "", f"Heartbeats: {beats}."])
