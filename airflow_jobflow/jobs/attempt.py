"""One attempt of a task to start its job: what distinguishes it from other attempts, and what is recorded of it. Pure.

Airflow makes a new ``ti.id`` for every retry, clear and re-creation of a task instance, and keeps it through deferral
and resumption. ``try_number`` grows by one with each. ``clear_number`` belongs to the DAG run and grows with every
clear in it, so an equal number proves that the task was not cleared. ``max_tries`` proves nothing: a clear may not
change it. (Tried on Airflow 3.3.2, read in 3.2.1; see ``docs/architecture.md``.)
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


@dataclass(slots=True)
class Attempt:
    """What a task knows about the job that it starts, and passes through deferrals and to later tries.

    :param token: identifies the attempt; empty before the first.
    :param number: counts the attempts within a try, from 1: another follows a Spot interruption.
    :param clear_number: the DAG run's, when the attempt began.
    :param group: of the jobs; recorded because a deployment's id may be changed between two tries.
    :param location: service, scope, connection and region in which the job is started.
    :param where: how to find the job there, such as its queue and name.
    :param began_at: in seconds since the epoch.
    :param deadline: when the wait ends, in seconds since the epoch; None for never. That of the first attempt.
    :param job_ids: the jobs that it has started.
    :param joined: whether the job was started by someone else, so that it must not be stopped.
    :param abandoned: whether the job is not wanted any more: the task was killed, or its deadline has passed.
    :param queued_at: when the job was submitted, in seconds since the epoch.
    :param waits_since: since when AWS has had no capacity for the job, in seconds since the epoch; None if it has.
    :param starts: how often AWS has had no capacity for the job.
    :param no_capacity: AWS's message about that.
    :param size: how many children an array has; 0 for other jobs.
    :param parts: for an array that was redriven, the indexes that each job runs, as ranges.
    :param details: records of one service's operator.
    """

    token: str = ""
    number: int = 0
    clear_number: int = 0
    group: str = ""
    location: str = ""
    where: dict[str, str] = field(default_factory=dict)
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
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the attempt as JSON-ready data, without members that have their defaults."""
        default = Attempt()
        data = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in data.items() if value != getattr(default, name)}

    @classmethod
    def from_dict(cls, data: object) -> Attempt:
        """Build an attempt from what ``to_dict`` returned.

        :param data: anything. Unknown members are ignored, and missing ones have their defaults.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        members = data if isinstance(data, Mapping) else {}
        return cls(**{name: value for name, value in members.items() if name in known})

    @property
    def has_begun(self) -> bool:
        """Whether there is an attempt: one was recorded, or its job was found without a record."""
        return bool(self.token or self.job_ids)

    def follow(self, ti_id: str) -> str:
        """Start the next attempt within the try, and return its token.

        :param ti_id: Airflow's id of the task instance, which differs from try to try.
        """
        self.number += 1
        self.token = attempt_token(ti_id, self.number)
        return self.token
