"""The buttons that lead to AWS's console, as the API server shows them: see ``airflow_jobflow.links``.

Invariants:

- A URL is read from the database as Airflow reads that of any link: who may see a task's links may see it, whoever may
  not read XComs.
- What an XCom holds is not trusted: only ``https:`` addresses and pages of a local AWS become links, and whatever else
  it holds gives none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_jobflow.links import KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

LINK = re.compile(r"https://|http://[^/?#@]+/jobflow-console/")
"""How the addresses begin that become links."""

NOTE = "jobflow_jobs"
"""Key of the note for the "Jobs" tab; that of ``notes``, which not every process that loads plugins has to import."""


class ConsoleLink(BaseOperatorLink):
    """A link of an operator whose URL is stored together with the task's others.

    :param link: the operator's link.
    """

    name = ""  # an attribute of each instance

    def __init__(self, link: type[BaseOperatorLink]) -> None:
        self.name = str(link.name)
        self._key = link().xcom_key

    @property
    def xcom_key(self) -> str:
        """Key of the URL."""
        return self._key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the URL for this task instance; empty where there is none."""
        return url(self._key, _stored(ti_key))


def url(key: str, stored: Iterable[tuple[str, object]]) -> str:
    """Return the URL of a link; empty where there is none.

    :param key: of the link.
    :param stored: XComs, by their keys, as the database has them.
    """
    values = {name: _read(value) for name, value in stored}
    note = values.get(NOTE, {}).get("links")
    for links in (values.get(KEY), note):
        if isinstance(links, Mapping) and isinstance(found := links.get(key), str) and LINK.match(found):
            return found
    return ""


def _read(value: object) -> Mapping[str, Any]:
    """Return what an XCom holds. What a trigger's event has stored is text, of JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _stored(ti_key: TaskInstanceKey) -> list[tuple[str, object]]:
    from airflow_jobflow.airflow_compat.xcoms import read_from_database

    return read_from_database(ti_key, (KEY, NOTE))
