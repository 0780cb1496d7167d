"""The lines that a job wrote to CloudWatch Logs: the last ones, for an error message, or page by page from the first.

GetLogEvents splits a stream by time: a page may have fewer events than requested, or none, and the stream continues
until the token repeats. The lines of a short job arrive seconds after its end, and its stream may not exist before.

Invariants:

- ``last_lines`` is never empty: if there are no lines, one line says why. By default it has at most 16 KB, because it
  becomes part of XComs and database rows.
- No line has control characters.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import LogStream

CLIENT = "logs"

EVENTS_PER_PAGE = 10_000
"""The most events that one GetLogEvents call returns."""

STREAMED_EVENTS_PER_PAGE = 2_000
"""The most events in a page of a log that is copied while the job runs. Few enough that parsing them is quick."""

MAX_PAGES = 50
"""The most pages that are read. The lines found until then are the result."""

MAX_PAGES_SEARCHED = 5
"""The most pages in which a line is searched. A page has up to 10,000 lines, or 1 MB."""

ARRIVAL = 3.0
"""Seconds after which a log without lines is read again, once."""

MAX_BYTES = 16_384
"""The most bytes of all lines together, in UTF-8. The newest lines are kept."""

MAX_LINE_BYTES = 2_048
"""The most bytes of one line. The beginning of a longer one is kept."""

MAX_STREAMED_LINE_BYTES = 8_192
"""The same in a log that is copied. AWS allows lines of 1 MB."""

POD_LOGS = "/aws/containerinsights/"
"""The beginning of the log groups of pods on EKS."""

NO_POD_LOG = (
    " Batch does not say where pods log; this is where Fluent Bit writes if the cluster has Container Insights."
)
"""What is added to AWS's message about a pod's log that does not exist."""

NO_STREAM = "ResourceNotFoundException"
"""The error code for a log group or stream that does not exist, or not yet."""

ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Matches the sequences that set colours in a terminal."""

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that logs and databases reject: control characters other than tabs, and lone surrogates."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """One page of a log stream, read from the beginning.

    :param lines: its lines.
    :param token: names the next page; None if there is no such stream.
    :param newest: when its newest event was written, in milliseconds since the epoch; 0 if it has none.
    :param missing: why there is no such stream; empty if there is. Default empty.
    """

    lines: Sequence[str]
    token: str | None
    newest: int
    missing: str = ""


def next_page(call: Call, log: LogStream, token: str | None, since: int) -> LogPage:
    """Return the next page of a log stream, oldest lines first; it may be empty, also if there are more. One call.

    :param call: makes the API call of CloudWatch Logs, in the log's region.
    :param log: the log stream.
    :param token: the one of the previous page; None for the first page.
    :param since: if there is no token, the time of the first events to return, in milliseconds since the epoch.
    :raises CallError: the log could not be read.
    """
    where: dict[str, Any] = {"nextToken": token} if token else {"startTime": since} if since else {}
    try:
        page = call(
            "get_log_events",
            logGroupName=log.group,
            logStreamName=log.stream,
            startFromHead=True,
            limit=STREAMED_EVENTS_PER_PAGE,
            **where,
        )
    except CallError as error:
        if error.code != NO_STREAM:
            raise
        return LogPage((), None, since, f"{error.message}{about_missing(log)}")
    lines = [_cut(line, MAX_STREAMED_LINE_BYTES, note=True) for event in page["events"] for line in _lines(event, log)]
    newest = max((event.get("timestamp", 0) for event in page["events"]), default=0)
    return LogPage(lines, page.get("nextForwardToken"), newest)


def last_lines(
    call: Call,
    log: LogStream,
    count: int,
    arrival: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
    *,
    most_bytes: int = MAX_BYTES,
) -> list[str]:
    """Return the last lines of a log stream, oldest first, or one line that says why there are none. Blocks.

    If they have more than ``most_bytes`` together, long lines are cut and the oldest ones omitted; then the first line
    says so.

    :param call: makes the API calls of CloudWatch Logs, in the log's region.
    :param log: the log stream.
    :param count: how many lines, at least 1.
    :param arrival: seconds after which a log without lines is read again; 0 for never. Default ``ARRIVAL``.
    :param sleep: sleeps for some seconds. Default ``time.sleep``.
    :param most_bytes: the most bytes of all lines together. Default ``MAX_BYTES``.
    :raises CallError: the log could not be read.
    """
    arrival = ARRIVAL if arrival is None else arrival
    lines, missing = _read(call, log, count, most_bytes)
    if not lines and arrival > 0:
        sleep(arrival)
        lines, missing = _read(call, log, count, most_bytes)
    if lines:
        return _fit(lines, most_bytes)
    return [f"(no lines in {log}: {missing or 'it is empty'}{about_missing(log) if missing else ''})"]


def about_missing(log: LogStream) -> str:
    """Return what to say about a log stream that does not exist, in addition to AWS's message; empty for nothing.

    :param log: the log stream.
    """
    return NO_POD_LOG if log.group.startswith(POD_LOGS) else ""


def last_line_with(call: Call, log: LogStream, mark: str) -> str | None:
    """Return the last line of a log stream that begins with a mark; None if there is none, or no stream.

    :param call: makes the API calls of CloudWatch Logs, in the log's region.
    :param log: the log stream.
    :param mark: what the line begins with.
    :raises CallError: the log could not be read.
    """
    parameters: dict[str, Any] = {"logGroupName": log.group, "logStreamName": log.stream, "startFromHead": False}
    for _ in range(MAX_PAGES_SEARCHED):
        try:
            page = call("get_log_events", **parameters)
        except CallError as error:
            if error.code != NO_STREAM:
                raise
            return None
        for event in reversed(page["events"]):
            for line in reversed(_lines(event, log)):
                if line.startswith(mark):
                    return line
        before = page.get("nextBackwardToken")
        if not before or before == parameters.get("nextToken"):
            break
        parameters["nextToken"] = before
    return None


def _read(call: Call, log: LogStream, count: int, most_bytes: int) -> tuple[list[str], str]:
    """Return the last lines of a stream, and why there are none if it does not exist."""
    lines: list[str] = []
    parameters: dict[str, Any] = {"logGroupName": log.group, "logStreamName": log.stream, "startFromHead": False}
    for _ in range(MAX_PAGES):
        try:
            page = call("get_log_events", **parameters, limit=min(max(count - len(lines), 1), EVENTS_PER_PAGE))
        except CallError as error:
            if error.code != NO_STREAM:
                raise
            return [], error.message
        lines[:0] = [line for event in page["events"] for line in _lines(event, log)]
        before = page.get("nextBackwardToken")
        enough = len(lines) >= count or sum(min(len(line), MAX_LINE_BYTES) for line in lines) >= most_bytes
        if enough or not before or before == parameters.get("nextToken"):
            break
        parameters["nextToken"] = before
    return lines[-count:], ""


def _lines(event: Mapping[str, Any], log: LogStream) -> list[str]:
    """Return the printable lines of an event; of a progress bar, which overwrites itself, only the last state."""
    message = event.get("message") or ""
    if log.group.startswith(POD_LOGS):
        message = _of_pod(message)
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in message.rstrip("\r\n").split("\n"))
    return [UNPRINTABLE.sub("\ufffd", ESCAPE_SEQUENCE.sub("", line)) for line in shown]


def _of_pod(message: str) -> str:
    """Return the line that a pod wrote. Fluent Bit adds what it knows of the pod, in JSON."""
    try:
        record = json.loads(message)
    except ValueError:
        return message
    line = record.get("log") if isinstance(record, dict) else None
    return line if isinstance(line, str) else message


def _fit(lines: Sequence[str], most_bytes: int) -> list[str]:
    """Return the newest lines that fit, long ones cut, after a note about what is missing."""
    if sum(len(line.encode()) for line in lines) <= most_bytes:
        return list(lines)
    kept: list[str] = []
    room, cut = most_bytes, 0
    for line in reversed(lines):
        short = _cut(line, MAX_LINE_BYTES)
        room -= len(short.encode())
        if room < 0:
            break
        kept.insert(0, short)
        cut += short != line
    note = f"(shortened to {most_bytes // 1024} KB: {len(lines) - len(kept)} earlier lines left out, {cut} lines cut)"
    return [note, *kept]


def _cut(line: str, most: int, *, note: bool = False) -> str:
    """Return a line, shortened to so many bytes; with a note about its length, if that is wanted."""
    encoded = line.encode()
    if len(encoded) <= most:
        return line
    kept = f"{encoded[: most - len('…'.encode())].decode(errors='ignore')}…"
    return f"{kept} (shortened; the line has {len(encoded):,} bytes)" if note else kept
