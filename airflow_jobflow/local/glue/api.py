"""Glue's crawlers and job runs, for one account and region.

They replace moto's; databases, tables and jobs stay moto's, and so does the making of crawlers.

What always holds: crawls and runs end with the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_jobflow.local.glue import model
from airflow_jobflow.local.glue.crawlers import Crawlers
from airflow_jobflow.local.glue.events import Events
from airflow_jobflow.local.glue.executions import Executions
from airflow_jobflow.local.glue.region import Region
from airflow_jobflow.local.glue.runs import Runs
from airflow_jobflow.local.glue.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local.application import Handler
    from airflow_jobflow.local.service import Shared


class Glue:
    """The part of Glue that starts, stops and describes what runs."""

    def __init__(self, shared: Shared) -> None:
        resources = shared.resources
        self._events = Events(resources)
        store = Store(resources.account, resources.region)
        region = Region(resources, store, shared.processes, self._events, shared.ledger, shared.settings, shared.faults)
        self._crawlers = Crawlers(region)
        self._executions = Executions(region)
        self._runs = Runs(store, self._executions, shared.faults)
        self.actions: Mapping[str, Handler] = {**self._crawlers.actions, **self._runs.actions}
        """Handlers by action."""
        self.checks: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "CreateJob": _check_capacity,
            "UpdateJob": lambda request: _check_capacity(request["JobUpdate"]),
        }
        """Checks of what moto answers, by action."""

    def reconsider(self) -> None:
        """Nothing waits for what moto keeps."""

    def interrupt(self, name: str, **how: Any) -> bool:
        """Have the crawl of a crawler, or a job run, fail as if AWS were broken; False if nothing so named runs."""
        return self._runs.interrupt(name, **how) or self._crawlers.interrupt(name, **how)

    def close(self) -> None:
        """End the crawls and deliver the last events. Call it when the processes have ended."""
        self._crawlers.close()
        self._executions.close()
        self._events.close()


def _check_capacity(request: Mapping[str, Any]) -> None:
    if why := model.wrong_with_capacity(request):
        raise model.refused(why)
