"""One attempt of a task to start its job: its identity, and its record for later tries. Pure.

Airflow makes a new ``ti.id`` for every retry, clear and re-creation of a task instance, and keeps it through deferral
and resumption. ``try_number`` grows by one with each. ``clear_number`` belongs to the DAG run and grows with every
clear in it, so an equal one proves that the task was not cleared. ``max_tries`` proves nothing: a clear may leave it as
it was. (Tried on Airflow 3.3.2, read in 3.2.1; see ``docs/architecture.md``.)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_jobflow.jobs.owner import attempt_token

TRY_TAG: Final = "airflow_jobflow_try"
"""The tag in which an ECS task carries the try that started it, and the token of the attempt: ``t1m2c0-<token>``."""

_TRY: Final = re.compile(r"t(\d+)m(\d+)c(\d+)")


@dataclass(frozen=True, slots=True)
class Try:
    """A try of a task instance, in the form that every job which it starts carries: ``t1m2c0``.

    :param try_number: from 1, never repeated in a DAG run.
    :param max_tries: how many retries Airflow allowed then; informational.
    :param clear_number: how often anything in the DAG run had been cleared.
    """

    try_number: int
    max_tries: int
    clear_number: int

    def __str__(self) -> str:
        return f"t{self.try_number}m{self.max_tries}c{self.clear_number}"

    @classmethod
    def read(cls, text: str) -> Try | None:
        """Parse what ``str`` returned.

        :param text: any text.
        :return: the try; None if the text is something else.
        """
        found = _TRY.fullmatch(text)
        return cls(*map(int, found.groups())) if found else None


@dataclass(frozen=True, slots=True)
class MapRecord:
    """What a later try has to know of a map that an attempt began.

    :param digest: the digest of all items; a map continues only with equal items.
    :param indexes: the items that still have to run, as ranges.
    :param follows: whether the other items ended in an earlier map, whose results are stored.
    :param job_group: what identifies the map's jobs in AWS.
    :param over: whether the map has ended.
    :param may_run: whether jobs of a map that has ended may still run, because they could not be described.
    """

    digest: str = ""
    indexes: str = ""
    follows: bool = False
    job_group: dict[str, Any] = field(default_factory=dict)
    over: bool = False
    may_run: bool = False

    @classmethod
    def from_dict(cls, data: object) -> MapRecord | None:
        """Return the record from stored data; None if there is none. Unknown members are ignored.

        :param data: what ``dataclasses.asdict`` returned.
        """
        members = _known_members(cls, data)
        return cls(**members) if members else None


@dataclass(slots=True)
class Attempt:
    """What a task knows about the job that it starts. Deferrals carry it, and later tries get it.

    :param token: identifies the attempt; empty before the first.
    :param number: counts the attempts within a try, from 1: another follows a Spot interruption.
    :param clear_number: the DAG run's, when the attempt began.
    :param group: of the jobs; recorded because a deployment's id may be changed between two tries.
    :param location: service, scope, connection and region in which the job is started.
    :param job_name: Batch: the user's name of the job, which its jobs are found by.
    :param queue: Batch: the queue that the job was submitted to.
    :param submitted_by: ECS: the try that first submitted the job, as written on it; see ``Try``.
    :param began_at: in seconds since the epoch.
    :param deadline: when the wait ends, in seconds since the epoch; None for never. That of the first attempt.
    :param job_ids: the jobs that it has started.
    :param joined: whether the job was started by somebody else, and may not be stopped.
    :param abandoned: whether the job was given up: the task was killed, or its deadline passed.
    :param queued_at: when the job was submitted, in seconds since the epoch.
    :param waits_since: since when AWS has had no capacity for it, in seconds since the epoch; None if it has.
    :param starts: how often AWS has had no capacity for it.
    :param no_capacity: the error that AWS returned then.
    :param size: of an array, how many children it has; 0 for other jobs.
    :param parts: of an array that was redriven, the indexes that each job runs, as ranges.
    :param context: ECS: the variables that name the job's task; a request that repeats the token must have the same
        ones.
    :param results: of an array that is redriven: for each address to which children write results, oldest first, their
        indexes as ranges.
    :param interruptions: ECS: how many attempts of this try lost their Spot capacity.
    :param declined: ECS: whether a request with the token started nothing, so that it cannot be used again.
    :param since: Glue crawls: which crawl this attempt starts; a crawl carries no mark.
    :param changes: what attempts change because earlier ones have failed, oldest first; see ``jobs.changes.Change``.
    :param changed_after: the failed job that the last change follows.
    :param part_changes: of an array that was redriven, the changes of each part; empty if there are none.
    :param map: of a map, what a later try has to know; None for single jobs.
    """

    token: str = ""
    number: int = 0
    clear_number: int = 0
    group: str = ""
    location: str = ""
    job_name: str = ""
    queue: str = ""
    submitted_by: str = ""
    began_at: float = 0.0
    deadline: float | None = None
    job_ids: list[str] = field(default_factory=list)
    joined: bool = False
    abandoned: bool = False
    queued_at: float | None = None
    waits_since: float | None = None
    starts: int = 0
    no_capacity: str = ""
    size: int = 0
    parts: list[str] = field(default_factory=list)
    context: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    interruptions: int = 0
    declined: bool = False
    since: str = ""
    changes: list[dict[str, Any]] = field(default_factory=list)
    changed_after: str = ""
    part_changes: list[list[dict[str, Any]]] = field(default_factory=list)
    map: MapRecord | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready data, without members that have their defaults."""
        default = dataclasses.asdict(Attempt())
        return {name: value for name, value in dataclasses.asdict(self).items() if value != default[name]}

    @classmethod
    def from_dict(cls, data: object) -> Attempt:
        """Return an attempt from stored data. Unknown members are ignored; missing ones have defaults.

        :param data: what ``to_dict`` returned, or the form of before, with the members ``where`` and ``details``.
        """
        members = dict(data) if isinstance(data, Mapping) else {}
        for outdated in ("where", "details"):
            members |= members.pop(outdated, None) or {}
        members["submitted_by"] = members.get("submitted_by") or members.get("try") or ""
        members["map"] = MapRecord.from_dict(members.get("map"))
        return cls(**_known_members(cls, members))

    @property
    def has_begun(self) -> bool:
        """Whether there is such an attempt: one that was begun, or one whose job was found without a record."""
        return bool(self.token or self.job_ids)

    def follow(self, ti_id: str) -> str:
        """Begin the next attempt within the try, and return its token.

        :param ti_id: Airflow's id of the task instance, which differs from try to try.
        """
        self.number += 1
        self.token = attempt_token(ti_id, self.number)
        return self.token


def _known_members(cls: type[Any], data: object) -> dict[str, Any]:
    """Return the members of stored data that a dataclass has."""
    known = {each.name for each in dataclasses.fields(cls)}
    members = data if isinstance(data, Mapping) else {}
    return {name: value for name, value in members.items() if name in known}
