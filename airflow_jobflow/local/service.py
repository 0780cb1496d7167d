"""The interface between the server and the services of this package.

Invariants: a service is created once per region, at its first call. It receives what it shares with other services, and
does not know the server.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local.application import Handler
    from airflow_jobflow.local.fault_box import FaultBox
    from airflow_jobflow.local.moto_backends import Resources
    from airflow_jobflow.local.processes import Processes
    from airflow_jobflow.local.settings import Settings


class Ledger:
    """A record of everything that was started. Entries are never removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def record(self, service: str, started: Mapping[str, Any]) -> None:
        """Record that something was started.

        :param service: ``batch``, ``ecs`` or ``glue``.
        :param started: its description as JSON.
        """
        with self._lock:
            self._started[service].append(dict(started))

    def started(self, service: str) -> list[dict[str, Any]]:
        """Return everything that was started, oldest first.

        :param service: ``batch``, ``ecs`` or ``glue``.
        """
        with self._lock:
            return [dict(each) for each in self._started[service]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the services share.

    :param resources: the resources of the region in moto.
    :param processes: runs commands.
    :param settings: durations.
    :param faults: the active faults.
    :param ledger: the record of everything that was started.
    """

    resources: Resources
    processes: Processes
    settings: Settings
    faults: FaultBox
    ledger: Ledger


class Service(Protocol):
    """The calls of an AWS service in one region that are handled by this package instead of moto."""

    @property
    def actions(self) -> Mapping[str, Handler]:
        """Handlers by action."""

    @property
    def checks(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        """Checks by action, for calls that moto handles: each raises an `AwsError` for what AWS rejects."""

    def reconsider(self) -> None:
        """Run waiting jobs that can run now, after a resource in moto has changed."""

    @property
    def interrupt(self) -> Callable[..., bool]:
        """Ends the job with the id in the first argument as AWS would; returns False if it is not running."""

    def close(self) -> None:
        """Deliver the last events. Called when the processes have ended."""
