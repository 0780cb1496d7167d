"""The interface of the modules ``jobs/<service>_map.py``: how a service runs maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from airflow_jobflow.jobs.calls import Call

INDEX = "JOBFLOW_MAP_INDEX"
"""The environment variable with the index of a job's item, from 0."""

MAP = "JOBFLOW_MAP"
"""The environment variable with the token of a task's map."""

ATTEMPT = "JOBFLOW_MAP_ATTEMPT"
"""The environment variable with the number of the attempt at an item, if it is not the first."""

HISTORY = "JOBFLOW_MAP_HISTORY"
"""The environment variable with the history of an item, if it is not the first attempt."""

MAX_ATTEMPTS = 10
"""The most attempts at an item: the name of a Batch job has room for a history of nine letters."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start of an item's job.

    :param index: of the item.
    :param history: why the earlier attempts at the item failed, a letter for each, see ``jobs.changes``. Default empty:
        it is the first attempt.
    :param turn: how often AWS had no capacity for this attempt. Default 0.
    :param values: what the attempt changes in the item's request, by our names of parameters. Default: nothing.
    """

    index: int
    history: str = ""
    turn: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        """The number of the attempt at the item, from 1."""
        return len(self.history) + 1

    @property
    def marks(self) -> dict[str, str]:
        """The environment variables that say which attempt it is; none for the first."""
        return {ATTEMPT: str(self.attempt), HISTORY: self.history} if self.history else {}


@dataclass(frozen=True, slots=True)
class Found:
    """A job that an earlier trigger of the same map has started, as it was listed.

    :param index: of the item.
    :param job_id: the job's id.
    :param history: why the earlier attempts at the item failed, as in ``Start``. Default empty.
    :param ended: whether it has ended, according to the listing. Default False.
    """

    index: int
    job_id: str
    history: str = ""
    ended: bool = False


def history_in(variables: Mapping[str, str]) -> str:
    """Return the history of an item from its job's environment.

    :param variables: by name. Older versions wrote only the number of the attempt, which followed Spot interruptions.
    """
    return variables.get(HISTORY) or "i" * (int(variables.get(ATTEMPT, 1)) - 1)


def newest_first(found: Iterable[Found]) -> list[Found]:
    """Return found jobs in the order in which ``MapState.record_found`` expects them.

    :param found: the jobs, in any order.
    """
    return sorted(found, key=lambda each: (each.index, -len(each.history)))


class MapService(Protocol):
    """The interface of a module ``jobs/<service>_map.py``. The module itself is the object.

    A map's ``job_group`` is plain data that identifies its jobs and where they are listed. It may also have ``result``,
    the address to which the index of each item is appended; ``variables``, which each job gets; and ``context``, the
    variables that each job gets if there is room.
    """

    REPEATABLE: bool
    """Whether a start is idempotent, because it has a token. Otherwise its job is searched after a lost response."""
    CHECKPOINT: float
    """Seconds between two checkpoints of the items' ends. AWS describes ended jobs for several times as long."""

    def start(self, call: Call, job_group: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
        """Start an item's job, and return its id.

        :param call: makes the API calls.
        :param job_group: of the map.
        :param request: of the item.
        :param which: the item, and the attempt at it.
        :raises NotStarted: the service responded, and started nothing.
        :raises CallError: it was not started, or the response was lost.
        """

    def find_submitted(self, call: Call, job_group: Mapping[str, Any], which: Start) -> str | None:
        """Return the id of the job that was started although the response was lost, or None.

        :param call: makes the API calls.
        :param job_group: of the map.
        :param which: the item, and the attempt at it.
        """

    def page(
        self, call: Call, job_group: Mapping[str, Any], cursor: Sequence[str] | None
    ) -> tuple[list[Found], list[str] | None]:
        """List a page of the jobs that a map has started.

        :param call: makes the API calls.
        :param job_group: of the map.
        :param cursor: where the page begins; None for the first.
        :return: the jobs, and where the next page begins; None if there is none.
        """


def map_service(name: str) -> MapService:
    """Return the module for maps of a service.

    :param name: ``batch`` or ``ecs``.
    :raises ModuleNotFoundError: there is no such service.
    """
    return cast("MapService", import_module(f"{__package__}.{name}_map"))
