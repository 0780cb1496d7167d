"""What a service offers for maps, beside what it offers for jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from airflow_jobflow.jobs.calls import Call

INDEX = "JOBFLOW_MAP_INDEX"
"""The environment variable in which a job finds its item's index, from 0."""

MAP = "JOBFLOW_MAP"
"""The environment variable that holds the token of the map whose item a task is."""

ATTEMPT = "JOBFLOW_MAP_ATTEMPT"
"""The environment variable in which a job finds which attempt at its item it is, if it is not the first."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start that is to be made now.

    :param index: the item's place.
    :param attempt: from 1; later ones follow interruptions that are no fault of the item's.
    :param turn: how often this attempt's start was answered with a want of room.
    """

    index: int
    attempt: int = 1
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A job that an earlier trigger of the same map has started, as a listing shows it.

    :param ended: whether the listing says that it has ended.
    """

    index: int
    job_id: str
    attempt: int = 1
    ended: bool = False


class MapService(Protocol):
    """What a module ``jobs/<service>_map.py`` offers. The module itself is the object.

    A map's ``family``, plain data, is what tells its jobs from all others and where they are listed.
    """

    REPEATABLE: bool
    """Whether a start carries a token with which it starts nothing twice; if not, a lost one is looked up."""
    CHECKPOINT: float
    """Seconds for which an end need not be noted: what has ended can be looked at for several times as long."""

    def start(self, call: Call, family: Mapping[str, Any], request: dict[str, Any], which: Start) -> str:
        """Start an item's job, and return its id.

        :raises NotStarted: the service answered, and started nothing.
        """

    def look_up(self, call: Call, family: Mapping[str, Any], which: Start) -> str | None:
        """Return the id of the job that a start without an answer has started, or None."""

    def page(
        self, call: Call, family: Mapping[str, Any], cursor: Sequence[str] | None
    ) -> tuple[list[Found], list[str] | None]:
        """List some of the jobs a map has started, and return where the next page begins, if there is one."""


def map_service(name: str) -> MapService:
    """Return the module that knows the maps of a service, such as ``batch``.

    :raises ModuleNotFoundError: there is no such service.
    """
    return cast("MapService", import_module(f"{__package__}.{name}_map"))
