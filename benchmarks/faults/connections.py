"""Airflow connections whose lookups fail on command, like those during a restart of the API server."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.faults.plan import CONNECTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection


@dataclass
class Outage:
    """When lookups fail, in seconds since the epoch, and how many failed."""

    begin: float = float("inf")
    end: float = float("inf")
    failed: int = 0


outage = Outage()

known: dict[str, Mapping[str, object]] = {"aws_bench": CONNECTION, "aws_default": CONNECTION}


class Connections:
    """The secrets backend. It imports nothing of Airflow, which loads it while Airflow itself is imported."""

    def _set_connection_class(self, kind: type) -> None:
        """Set Airflow's class of connections."""
        self._kind = kind

    def get_config(self, key: str) -> None:
        """Return None for every option of Airflow's configuration."""

    def get_variable(self, key: str, team_name: str | None = None) -> None:
        """Return None for every variable."""

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Connection | None:  # noqa: ARG002
        """Return a connection, or fail."""
        from airflow.sdk import Connection

        if outage.begin <= time.time() < outage.end:
            outage.failed += 1
            raise ConnectionError("the API server does not answer")
        found = known.get(conn_id)
        return None if found is None else Connection.from_json(json.dumps(found), conn_id=conn_id)
