"""The buttons that link to the AWS console, as the API server shows them: see ``airflow_jobflow.links``.

Invariants:

- A URL is read from the database, as for any of Airflow's links. Viewing it needs permission for the task's links, not
  for its XComs.
- The content of an XCom is not trusted: only ``https:`` addresses and pages of a local AWS become links.
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
"""The start of an address that may become a link."""

NOTE = "jobflow_jobs"
"""The same as ``notes.KEY``; importing ``notes`` would cost every process that loads plugins."""


class ConsoleLink(BaseOperatorLink):
    """A link of an operator whose URL is stored together with the task's other URLs.

    :param link: the operator's link class.
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
        """Return the URL for a task instance, or an empty string.

        :param operator: the task; not used.
        :param ti_key: the task instance.
        """
        return url(self._key, _stored(ti_key))


def url(key: str, stored: Iterable[tuple[str, object]]) -> str:
    """Return the URL of a link, or an empty string.

    :param key: the link's key.
    :param stored: keys and values of XComs, as the database stores them.
    """
    values = {name: _read(value) for name, value in stored}
    note = values.get(NOTE, {}).get("links")
    for links in (values.get(KEY), note):
        if isinstance(links, Mapping) and isinstance(found := links.get(key), str) and LINK.match(found):
            return found
    return ""


def _read(value: object) -> Mapping[str, Any]:
    """Return the value of an XCom. A trigger's event stores it as a string of JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _stored(ti_key: TaskInstanceKey) -> list[tuple[str, object]]:
    from airflow_jobflow.airflow_compat.xcoms import read_from_database

    return read_from_database(ti_key, (KEY, NOTE))
