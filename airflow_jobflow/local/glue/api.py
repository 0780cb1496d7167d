"""Glue's crawls and job runs, in one account and region.

They replace those of moto. Databases, tables, jobs and the creation of crawlers remain moto's.

Invariants: crawls and job runs end with the server.
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
    """The calls of Glue that start, stop and describe crawls and job runs.

    :param shared: what the services share.
    """

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
        }
        """Checks by action, for calls that moto handles."""

    def reconsider(self) -> None:
        """Do nothing: no job waits for a resource of moto."""

    def interrupt(self, name: str, **how: Any) -> bool:
        """Make the crawl of a crawler or a job run fail with an internal error; return whether it was running.

        :param name: the name of the crawler, or the id of the job run.
        :param how: ``message``, the error message.
        """
        return self._runs.interrupt(name, **how) or self._crawlers.interrupt(name, **how)

    def close(self) -> None:
        """End the crawls and deliver the last events. Call it when the processes have ended."""
        self._crawlers.close()
        self._executions.close()
        self._events.close()


def _check_capacity(request: Mapping[str, Any]) -> None:
    if why := model.capacity_error(request):
        raise model.rejected(why)
