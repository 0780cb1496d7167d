"""How a page of the local AWS's console reads the AWS, and what several pages have in common.

Invariants: whatever is here only reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_jobflow.local.console.html import Link, Table, Text, log_line

Json = dict[str, Any]
Query = Mapping[str, str]

TAIL: Final = 50
"""Lines of a log on the page of what has written it."""

ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "STOPPED", "COMPLETED", "CANCELLED", "TIMEOUT", "ERROR", "EXPIRED"})
"""Statuses in which nothing changes any more."""

WHOLE: Final = re.compile(r"[0-9]{1,9}")


class NotFound(Exception):
    """There is no such thing; the message says what."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a view reads one region of the local AWS.

    :param region: its name.
    :param ask: makes a call: service, action, request.
    :param log: returns all events of a log stream as pairs of seconds and message; None if there is no such stream.
    :param job_definition, task_definition: return a definition by its ARN; None if there is none.
    """

    region: str
    ask: Callable[[str, str, Json], Json]
    log: Callable[[str, str], Sequence[tuple[float, str]] | None]
    job_definition: Callable[[str], Json | None]
    task_definition: Callable[[str], Json | None]

    def link(self, text: str, page: str, **parameters: str | int | None) -> Link:
        """Return a link to a page about something in this region."""
        return Link(text, page, {"region": self.region, **parameters})

    def tail(self, group: str, stream: str, of: str = "") -> Text:
        """Return the last lines of a log stream, with a link to all of it.

        :param of: what has written it, if the page shows several logs.
        """
        events = self.log(group, stream) or ()
        lines = [log_line(*each) for each in events[-TAIL:]] or ["(no lines)"]
        more = [self.link("Whole log", "log", group=group, stream=stream)] if events else []
        return Text(f"Log of {of}" if of else "Log", lines, more)


def name_of(arn: str) -> str:
    """Return the name at the end of an ARN."""
    return arn.rsplit("/", 1)[-1]


def pairs(title: str, values: Mapping[str, str]) -> Table:
    """Return a table of names and values."""
    return Table(title, ("Name", "Value"), sorted(values.items()))


def number(query: Query, name: str, default: int) -> int:
    """Return a parameter that is a number; the default if it is missing or is none."""
    given = query.get(name, "")
    return int(given) if WHOLE.fullmatch(given) else default
