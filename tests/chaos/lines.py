"""The messages between the processes of the small Airflow, and the preparation of a child process.

A child is forked from a server that has imported all modules and has no threads, so that a hundred of them need few
resources, and SIGKILL, SIGTERM and SIGSTOP are the real ones.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, Final

SCALE: Final = 0.1
"""All durations of the package are scaled by this factor: an outage of 9 s corresponds to one of 90 s."""

SCALED: Final = {
    "PATIENCE",
    "STOP_PATIENCE",
    "STOP_RETRY_TIMEOUT",
    "DEFERRAL_TIMEOUT_MARGIN",
    "SHORTEST_CAPACITY_PAUSE",
    "LONGEST_CAPACITY_PAUSE",
    "MIN_DEFERRAL",
    "LOG_DELAY",
    "YOUNG",
    "FIRST_TRIGGER_WINDOW",
    "FINAL_DESCRIBE_TIMEOUT",
    "DEADLINE_STOP_TIMEOUT",
    "STOP_TIMEOUT",
    "RELIST_DELAY",
    "TRANSFER_DELAY",
    "START_GRACE",
    "REFUSED_GRACE",
    "REBUILD_DELAY",
    "MAX_BUILD_DELAY",
    "LOOKUPS",
    "FIRST_RETRY",
    "LONG_RETRY",
    "HEARTBEAT_INTERVAL",
    "FIRST_DELAY",
    "MAX_DELAY",
}
"""Names of constants in the package that are, or contain, durations in seconds."""

SETTINGS: Final = {
    "AIRFLOW__JOBFLOW__POLL_INTERVAL": "0.4",
    "AIRFLOW__JOBFLOW__REQUEST_TIMEOUT": "2",
    "AIRFLOW__JOBFLOW__DENIED_GRACE": "30",
    "AIRFLOW__JOBFLOW__MISSING_GRACE": "30",
    "AIRFLOW__JOBFLOW__DESCRIBE_CALLS_PER_SECOND": "50",
    "AIRFLOW__JOBFLOW__DEPLOYMENT_ID": "chaos",
    "AIRFLOW_DISABLE_GREENBACK_PORTAL": "true",
}


@dataclass(frozen=True)
class Key:
    """The identity of a task instance in all of its tries."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        return f"{self.run_id}{self.task_id}" + ("" if self.map_index < 0 else f"[{self.map_index}]")


@dataclass(frozen=True)
class Try:
    """The data for a worker: one execution of one try of a task.

    :param kind, parameters: the operator to create, see ``workers.OPERATORS``.
    :param next_method, next_kwargs: how to resume after a deferral.
    """

    key: Key
    ti_id: str
    try_number: int
    max_tries: int
    clear_number: int
    run_started: float
    kind: str
    parameters: Mapping[str, Any]
    next_method: str | None = None
    next_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Begun:
    """A worker's process asks whether the try should still run."""


@dataclass(frozen=True)
class Store:
    """Write or read the task state store.

    :param value: the value to write; None to read.
    """

    key: str
    value: Any = None


@dataclass(frozen=True)
class Ended:
    """A try has ended.

    :param state: ``success``, ``failed``, or ``retry`` for a failure that may be retried.
    """

    state: str
    returned: Any = None
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A trigger as Airflow stores it."""

    number: int
    classpath: str
    kwargs: Mapping[str, Any]
    key: Key
    ti_id: str
    try_number: int
    timeout_at: float | None


@dataclass(frozen=True)
class Wanted:
    """The triggers that a triggerer must run from now on; it cancels the others."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Sign:
    """The heartbeat of a triggerer.

    :param picked_up: numbers of triggers that it has started since its last heartbeat.
    :param finished: numbers of triggers that have ended since.
    """

    picked_up: tuple[int, ...] = ()
    finished: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fired:
    """A trigger has fired: an event's payload, an event that ends the task, or a failure."""

    number: int
    payload: Any = None
    ends_task: str | None = None
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Rejected:
    """The API server's response to a rejected request, because errors of Airflow cannot be pickled.

    :param status: HTTP status.
    :param previous: the state of the task that caused the rejection.
    """

    status: int
    previous: str | None = None

    def error(self) -> Exception:
        """Return it as the error that Airflow raises."""
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        detail: dict[str, Any] = {"status_code": self.status}
        if self.previous:
            detail["detail"] = {"detail": {"reason": "invalid_state", "previous_state": self.previous}}
        return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


class Line:
    """A child's connection to Airflow: one request at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Any) -> Any:
        """Send a request, and return the response, or raise it if it is an error."""
        with self._lock:
            self._connection.send(message)
            answer = self._connection.recv()
        if isinstance(answer, Rejected):
            raise answer.error()
        return answer


def prepare(environment: Mapping[str, str], log: Path) -> None:
    """Prepare this process as a child: its own log file, the settings, and scaled durations."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.environ.update({**SETTINGS, **environment})
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
        stream=sys.stderr,
    )
    scale_time()


def durations() -> Iterator[tuple[ModuleType, str]]:
    """Return the durations of all loaded modules of the package, as module and name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("airflow_jobflow.") and ".local" not in name:
            yield from ((module, constant) for constant in SCALED & vars(module).keys())


def scale_time() -> None:
    """Scale all durations."""
    for module, name in list(durations()):
        setattr(module, name, _scaled(getattr(module, name)))


def _scaled(value: Any) -> Any:
    from airflow_jobflow.aws import Retry

    if isinstance(value, tuple):
        return tuple(_scaled(each) for each in value)
    if isinstance(value, Retry):
        scaled = {
            name: getattr(value, name) * SCALE
            for name in ("patience", "denied_patience", "longest_delay")
            if getattr(value, name) is not None
        }
        return replace(value, **scaled)
    return value * SCALE
