"""Helpers of the console pages: reading the local AWS, links, tables.

Invariants: nothing here changes the local AWS.
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
"""Number of log lines on the page of a job."""

ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "STOPPED", "COMPLETED", "CANCELLED", "TIMEOUT", "ERROR", "EXPIRED"})
"""Final statuses."""

INTEGER: Final = re.compile(r"[0-9]{1,9}")


class NotFound(Exception):
    """A resource does not exist. The message names it."""


@dataclass(frozen=True, slots=True)
class RegionReader:
    """Reads one region of the local AWS for a page.

    :param region: the name of the region.
    :param ask: makes a call, given service, action and request.
    :param log: returns all events of a log stream as pairs of seconds and message, or None if it does not exist.
    :param job_definition: returns a Batch job definition by its ARN, or None.
    :param task_definition: returns a task definition by its ARN, or None.
    """

    region: str
    ask: Callable[[str, str, Json], Json]
    log: Callable[[str, str], Sequence[tuple[float, str]] | None]
    job_definition: Callable[[str], Json | None]
    task_definition: Callable[[str], Json | None]

    def link(self, text: str, page: str, **parameters: str | int | None) -> Link:
        """Return a link to a page in this region.

        :param text: the text of the link.
        :param page: the name of the page.
        :param parameters: the parameters of the page.
        """
        return Link(text, page, {"region": self.region, **parameters})

    def tail(self, group: str, stream: str, of: str = "") -> Text:
        """Return the last lines of a log stream, with a link to all lines.

        :param group: the log group.
        :param stream: the log stream.
        :param of: whose log it is, if the page shows several logs. Default: not shown.
        """
        events = self.log(group, stream) or ()
        lines = [log_line(*each) for each in events[-TAIL:]] or ["(no lines)"]
        more = [self.link("All lines", "log", group=group, stream=stream)] if events else []
        return Text(f"Log of {of}" if of else "Log", lines, more)


def name_of(arn: str) -> str:
    """Return the name at the end of an ARN.

    :param arn: the ARN.
    """
    return arn.rsplit("/", 1)[-1]


def pairs(title: str, values: Mapping[str, str]) -> Table:
    """Return a table of names and values.

    :param title: the title.
    :param values: values by name.
    """
    return Table(title, ("Name", "Value"), sorted(values.items()))


def number(query: Query, name: str, default: int) -> int:
    """Return a parameter as a number.

    :param query: the parameters of the request.
    :param name: the name of the parameter.
    :param default: the value if it is missing or not a number.
    """
    given = query.get(name, "")
    return int(given) if INTEGER.fullmatch(given) else default
