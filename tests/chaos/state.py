"""The state of the small Airflow: task instances, runs, workers and triggerers, as in its database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.chaos.lines import Key, Row, Try

UNHEARD: Final = 2.0
"""Seconds after a kill for which a triggerer may not know about it."""
WAITING: Final = "while it waits in a triggerer"
UNFINISHED: Final = (None, "scheduled", "queued", "running", "deferred", "up_for_retry", "restarting")
HEALTH: Final = 4.0
"""Seconds since the last heartbeat of a triggerer after which its triggers are moved to another one."""


@dataclass(frozen=True)
class Moment:
    """The state at a kill.

    :param state: of the task instance.
    :param phase: what it was doing, as a key for counts.
    """

    at: float
    act: str
    state: str | None
    phase: str
    triggerer: Triggerer | None = None
    """The triggerer that had the trigger at that time."""

    @property
    def how(self) -> str:
        """Return the state, including what happened to the triggerer afterwards."""
        lost_at = self.triggerer.lost_at if self.triggerer else None
        if self.phase == WAITING and lost_at is not None and lost_at < self.at + UNHEARD:
            return f"{self.phase}, which is killed or freezes {lost_at - self.at:.1f} s later"
        return self.phase


@dataclass
class TaskInstance:
    """A task instance in the database."""

    key: Key
    kind: str
    parameters: Mapping[str, Any]
    retries: int
    run: Run
    ti_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0
    next_method: str | None = None
    next_kwargs: Mapping[str, Any] | None = None
    row: Row | None = None
    triggerer: int | None = None
    """The triggerer to which its trigger is assigned."""
    picked_up: bool = False
    """Whether a triggerer has started it."""
    store: dict[str, Any] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    returned: Any = None
    error: str = ""
    retry_at: float = 0.0
    process: Any = None
    """The process that executes it."""
    kills: list[Moment] = field(default_factory=list)
    history: list[tuple[float, str]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.state not in UNFINISHED

    def note(self, words: str) -> None:
        """Record an event."""
        self.history.append((time.time(), words))


@dataclass
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    code: int
    started: float = field(default_factory=time.time)
    clear_number: int = 0
    tis: list[TaskInstance] = field(default_factory=list)
    failed_by_user: bool = False

    @property
    def killed(self) -> bool:
        """Whether a user has killed it."""
        return any(ti.kills for ti in self.tis)


@dataclass
class Worker:
    """A process that executes a try."""

    ti: TaskInstance
    one: Try
    process: Any
    connection: Connection
    told_at: float | None = None
    ended: bool = False
    """Whether it has reported how the try has ended."""
    checked_at: float = 0.0


@dataclass
class Triggerer:
    """A triggerer's process."""

    number: int
    process: Any
    control: Connection
    requests: Connection
    seen_at: float
    frozen: bool = False
    lost_at: float | None = None
    """When it was killed, stopped, or frozen."""

    @property
    def alive(self) -> bool:
        """Whether Airflow believes that it is alive."""
        return self.process.is_alive() and time.monotonic() - self.seen_at < HEALTH


@dataclass(frozen=True)
class TaskSpec:
    """A task of a DAG.

    :param mapped: number of instances of a dynamically mapped task; 0 for one that is not mapped.
    """

    task_id: str
    kind: str
    parameters: Mapping[str, Any]
    retries: int = 4
    mapped: int = 0
