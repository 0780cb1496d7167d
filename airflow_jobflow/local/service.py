"""What a service of this package is to the server, and what the server hands to it.

Invariants: a service is made once for each region, when that region first hears of it; what it shares with
the others it is handed, so that it knows no server.
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
    """What was ever started, for those who count it; nothing is taken out when it ends or is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def note(self, service: str, started: Mapping[str, Any]) -> None:
        """Something was started; `started` is JSON that says what."""
        with self._lock:
            self._started[service].append(dict(started))

    def started(self, service: str) -> list[dict[str, Any]]:
        """All that was started, oldest first."""
        with self._lock:
            return [dict(each) for each in self._started[service]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What a service of one region is given."""

    resources: Resources
    processes: Processes
    settings: Settings
    faults: FaultBox
    ledger: Ledger


class Service(Protocol):
    """Some calls of one of AWS's services in one region, answered here and not by moto."""

    @property
    def actions(self) -> Mapping[str, Handler]:
        """Handlers by action."""

    @property
    def checks(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        """Checks by action, of calls that moto answers: each raises an `AwsError` for what AWS rejects."""

    def reconsider(self) -> None:
        """Let what waits run if it can now, for moto changed what it waits for."""

    @property
    def interrupt(self) -> Callable[..., bool]:
        """Ends a job, named by the first argument, as AWS would; False if there is none that runs."""

    def close(self) -> None:
        """Deliver the last events. Called when the processes have ended."""
