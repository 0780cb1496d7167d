"""What to do with what an earlier try of a task has left behind. Pure: from what was noted, and what was found.

A task notes in its state store which attempt it makes, before it starts anything, and the ids of what it has started,
before it waits. When the task is run again, what it had noted and what AWS knows decide; the first row that fits::

    noted                         found                                     what is done
    ----------------------------  ----------------------------------------  -------------------------------------------
    nothing                                                                 start
    of another place (1)                                                    start; what runs there is left, and told of
    cleared, or abandoned (2)     jobs that run, started by this task       stop these, and start
    cleared, or abandoned         anything else                             start
    ids                           nothing, and they are young (3)           keep: the wait's grace decides
    ids                           nothing                                   start: it is gone
    ids                           one that runs, or none that failed        keep
    ids                           some that failed, none that runs          start
    no ids (4)                    nothing of this attempt (5)               repeat: the same attempt once more
    no ids, of several jobs       anything                                  repeat, which starts only what is missing
    no ids                        one that runs, or has succeeded           keep the first of these, stop others
    no ids                        only such as failed                       start

1. Another service, connection, region, or cluster or Glue job: what is known there cannot be asked for here.
2. A person's clear grants new tries, so that ``max_tries`` is no longer what was noted; it is the same for as long as
   Airflow retries, also if the DAG's ``retries`` have been lowered meanwhile. A task that was killed while it ran has
   marked what it noted as abandoned.
3. Noted for no longer than the grace: what was just started may not be known everywhere yet.
4. The worker died between the note and the answer, or the answer was lost. What was started was found by its name or
   token, which holds the nonce, or by what is new.
5. What was created before the attempt was noted only happens to have the name. A run of the DAG that was deleted and
   made again has no notes: they went with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_jobflow.jobs.model import JobState, Snapshot

SKEW = 60.0
"""Seconds by which this machine's clock may be ahead of AWS's."""


class Action(Enum):
    """What a task does first."""

    START = "start"
    """Begin a new attempt."""
    REPEAT = "repeat"
    """Make the attempt that was noted once more: nothing of it was ever started."""
    KEEP = "keep"
    """Wait for what was started, which may have ended by now."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    :param why: for the task's log.
    :param keep: ids of the jobs to wait for.
    :param stop: ids of jobs that nobody wants any more.
    """

    action: Action
    why: str
    keep: Sequence[str] = ()
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Notes:
    """What an earlier try has noted.

    :param nonce: of its attempt; empty if it has noted none.
    :param job_ids: what it is known to have started.
    :param max_tries: as they were then.
    :param place: where it started it: service, access and scope.
    :param at: when the attempt was noted, in seconds since the epoch.
    :param joined: whether it merely waited for what somebody else had started.
    :param abandoned: whether it was killed.
    :param several: whether the attempt is of more than one job.
    """

    nonce: str = ""
    job_ids: Sequence[str] = ()
    max_tries: int = 0
    place: str = ""
    at: float = 0.0
    joined: bool = False
    abandoned: bool = False
    several: bool = False

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> Notes:
        """Take it from what is in the state store; what is not there, an older version has not noted."""
        return cls(
            nonce=noted.get("nonce") or "",
            job_ids=tuple(noted.get("job_ids") or ()),
            max_tries=noted.get("max_tries", 0),
            place=noted.get("place", ""),
            at=noted.get("at", 0.0),
            joined=bool(noted.get("joined")),
            abandoned=bool(noted.get("abandoned")),
            several=len(noted.get("parts") or ()) > 1,
        )


def decide(
    notes: Notes, found: Sequence[Snapshot], *, max_tries: int, place: str, now: float, grace: float
) -> Decision:
    """Decide what a task does first, by the table above.

    :param notes: what was noted.
    :param found: what AWS knows of it, by the noted ids, or without any by name or token.
    :param max_tries: the task's, now.
    :param place: where the task would start a job, now.
    :param now: in seconds since the epoch.
    :param grace: seconds for which what was just started may be unknown.
    """
    if not notes.nonce:
        return Decision(Action.START, "nothing was started before")
    if notes.place != place:
        where = f"the earlier try worked elsewhere ({notes.place}): {', '.join(notes.job_ids) or 'nothing known'}"
        return Decision(Action.START, f"{where}; if it runs, it is left as it is")
    ours = found if notes.job_ids else [job for job in found if _created(job) >= notes.at - SKEW]
    running = [job.job_id for job in ours if not job.state.ended]
    if notes.max_tries != max_tries or notes.abandoned:
        why = "the earlier try was killed" if notes.abandoned else "the task was cleared"
        return Decision(Action.START, why, stop=() if notes.joined else running)
    if notes.job_ids:
        return _by_id(notes, found, running, is_young=now - notes.at <= grace)
    if notes.several:
        return Decision(Action.REPEAT, "the earlier try ended while it started the parts of an array")
    return _by_name(ours)


def _by_id(notes: Notes, found: Sequence[Snapshot], running: Sequence[str], *, is_young: bool) -> Decision:
    names = ", ".join(notes.job_ids)
    if not found and not is_young:
        return Decision(Action.START, f"AWS knows {names} no longer")
    if running or all(job.state is JobState.SUCCEEDED for job in found):
        return Decision(Action.KEEP, f"the earlier try started {names}", keep=notes.job_ids)
    return Decision(Action.START, f"{names} of the earlier try has failed")


def _by_name(ours: Sequence[Snapshot]) -> Decision:
    ours = sorted(ours, key=_created)
    good = [job for job in ours if job.state is not JobState.FAILED]
    if not ours:
        return Decision(Action.REPEAT, "the earlier try ended before it had started anything")
    if not good:
        return Decision(Action.START, f"{ours[0].job_id} of the earlier try has failed")
    first, *others = good
    doubled = [job.job_id for job in others if not job.state.ended]
    return Decision(
        Action.KEEP,
        f"the earlier try started {first.job_id}, and ended before it could note that",
        keep=[first.job_id],
        stop=doubled,
    )


def _created(job: Snapshot) -> float:
    return datetime.fromisoformat(job.created_at).timestamp() if job.created_at else float("inf")
