"""Render the console pages of the local AWS as HTML. Pure: plain data in, text out.

Invariants: all text is escaped. A page loads no other resources, runs no scripts and sends no data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Final
from urllib.parse import urlencode

PREFIX: Final = "/jobflow-console/"
"""The path of the pages."""

REFRESH_EVERY: Final = 5
"""Seconds after which the page of something that has not ended is reloaded."""

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'"
"""The Content-Security-Policy of all pages."""

TONES: Final[Mapping[str, str]] = {
    "good": "SUCCEEDED COMPLETED ENABLED ACTIVE VALID",
    "bad": "FAILED ERROR TIMEOUT EXPIRED DISABLED",
    "live": "SUBMITTED PENDING RUNNABLE STARTING RUNNING PROVISIONING ACTIVATING STOPPING DEACTIVATING DEPROVISIONING "
    "WAITING",
}
"""The statuses of each colour; all others are grey."""

SECRET: Final = re.compile(r"secret|passw|passphrase|token|credential|(api|access|private|signing)_?key", re.IGNORECASE)
"""Names of environment variables whose values are not shown."""

HIDDEN: Final = "(hidden)"

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #15803d; --bad: #dc2626; --live: #2563eb }
@media (prefers-color-scheme: dark) { :root { --good: #4ade80; --bad: #f87171; --live: #7db8ff } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem }
header { color: GrayText; font-size: 13px } h1 { font-size: 22px; margin: .2rem 0 1rem; overflow-wrap: anywhere }
h2 { font-size: 15px; margin: 1.6rem 0 .4rem }
b { padding: .1rem .6rem; border-radius: 1rem; border: 1px solid; font-size: 13px; vertical-align: 3px }
.good { color: var(--good) } .bad { color: var(--bad) } .live { color: var(--live) }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .7rem .3rem 0; text-align: left;
vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere } th { font-weight: 600 }
.facts { width: auto } .facts th { color: GrayText; font-weight: 400; white-space: nowrap; min-width: 9rem }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; margin: 0;
font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere }
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another page.

    :param text: its text.
    :param page: the name of the page.
    :param parameters: the parameters of the page; those that are None are left out. Default: none.
    """

    text: str
    page: str
    parameters: Mapping[str, str | int | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address, relative to the server."""
        given = {name: value for name, value in self.parameters.items() if value is not None}
        return f"{PREFIX}{self.page}?{urlencode(given)}" if given else f"{PREFIX}{self.page}"


Cell = str | int | float | Link | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a title. Without rows it is not shown."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    more: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Lines under a title."""

    title: str
    lines: Sequence[str]
    more: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    :param kind: the kind of resource, such as ``Batch job``.
    :param title: the name of the resource.
    :param status: its status in AWS. Default: none.
    :param facts: its properties by label; those that are None or empty are left out. Default: none.
    :param sections: tables and texts below. Default: none.
    :param live: whether it may still change. Default False.
    """

    kind: str
    title: str
    status: str = ""
    facts: Mapping[str, Cell] = field(default_factory=dict)
    sections: Sequence[Table | Text] = ()
    live: bool = False


def render(page: Page) -> str:
    """Return a page as an HTML document.

    :param page: the page.
    """
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_EVERY}">' if page.live else ""
    badge = f" <b{_tone(page.status)}>{escape(page.status)}</b>" if page.status else ""
    facts = "".join(
        f"<tr><th>{escape(label)}</th><td>{_cell(value)}</td></tr>"
        for label, value in page.facts.items()
        if value not in (None, "")
    )
    sections = "".join(_section(each) for each in page.sections)
    home = f'<a href="{PREFIX}">Local AWS</a>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f"<title>{escape(page.title)} - {escape(page.kind)}</title>"
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<header>{home} / {escape(page.kind)}</header><h1>{escape(page.title)}{badge}</h1>"
        f'<table class="facts">{facts}</table>{sections}</body></html>'
    )


def _section(section: Table | Text) -> str:
    title = f"<h2>{escape(section.title)}</h2>"
    more = " · ".join(_cell(each) for each in section.more)
    below = f"<p>{more}</p>" if more else ""
    if isinstance(section, Text):
        text = "\n".join(section.lines)
        return f"{title}<pre>{escape(text)}</pre>{below}"
    if not section.rows:
        return ""
    header = "".join(f"<th>{escape(each)}</th>" for each in section.header)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(each)}</td>' for each in row)}</tr>" for row in section.rows)
    return f"{title}<table><tr>{header}</tr>{rows}</table>{below}"


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, Link):
        return f'<a href="{escape(value.url)}">{escape(value.text)}</a>'
    text = str(value)
    tone = _tone(text)
    return f"<span{tone}>{escape(text)}</span>" if tone else escape(text)


def _tone(status: str) -> str:
    tone = next((tone for tone, statuses in TONES.items() if status in statuses.split()), "")
    return f' class="{tone}"' if tone else ""


def console_url(endpoint_url: str) -> str:
    """Return the URL of the pages of a local AWS, for ``[jobflow] console_url``.

    :param endpoint_url: the address of the local AWS.
    """
    return f"{endpoint_url}{PREFIX}".rstrip("/")


def at(seconds: float | None) -> str | None:
    """Return a time as text, or None.

    :param seconds: seconds since the epoch, or None.
    """
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def took(start: float | None, end: float | None) -> str | None:
    """Return a duration as text, or None.

    :param start: seconds since the epoch, or None.
    :param end: seconds since the epoch, or None.
    """
    return None if start is None or end is None else f"{max(0.0, end - start):,.1f} s"


def log_line(seconds: float, message: str) -> str:
    """Return a log event as a line that starts with its time.

    :param seconds: seconds since the epoch.
    :param message: the message.
    """
    return f"{datetime.fromtimestamp(seconds, UTC).strftime('%H:%M:%S.%f')[:-3]}  {message}"


def environment(variables: Sequence[Mapping[str, str]], title: str = "Environment") -> Table:
    """Return a table of environment variables, without values that may be secrets.

    :param variables: each with ``name`` and ``value``, as in Batch and ECS.
    :param title: the title. Default ``Environment``.
    """
    rows = [
        (each.get("name", ""), HIDDEN if SECRET.search(each.get("name", "")) else each.get("value", ""))
        for each in variables
    ]
    return Table(title, ("Name", "Value"), sorted(rows))
