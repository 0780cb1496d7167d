"""What to do with what earlier tries of a task have started. Pure: from what was recorded, and what AWS has.

Jobs are found by the group of their task instance, or by the ids that an earlier try has recorded. Each carries the try
that started it. The first row that fits decides::

    recorded                  found                                          what is done
    ------------------------  ---------------------------------------------  -----------------------------------------
    another location (1)                                                     start; what runs there is left, and logged
                              jobs that run, of before a clear (2)           stop these, and go on with the next row
    abandoned (3)             jobs that run                                  stop these, and start
    joined, not cleared (4)   one that runs or has succeeded                 keep
    ids                       nothing, and they are young (5)                keep: the wait's grace period decides
    several parts, no ids     anything                                       repeat, which starts only what is missing
                              of this clear (6): one that runs or succeeded  keep the first of these, stop others
                              of this clear: only failed ones                start
    a token, not cleared      nothing of this clear                          repeat: the recorded attempt once more (7)
    nothing                   nothing of this clear                          start

1. Another service, connection, region, cluster or Glue job: what is known there cannot be described from here.
2. Their ``clear_number`` is below the task's. A job whose try is unknown counts as of before a clear, unless it is
   recorded: a clear always starts a new job.
3. A task that was killed, or whose deadline has passed, has recorded that nobody wants its job any more.
4. A job that somebody else has started is never stopped.
5. Recorded for no longer than the grace period: what was just started may not be known everywhere yet.
6. Of equal ``clear_number``, not stopped by request, and not older than the DAG run: jobs of a run that was deleted and
   created again under its id have the same group. These are left to the orphan reaper.
7. The worker died, or the response was lost. With the same token, ECS starts nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.model import JobState, Snapshot

SKEW = 60.0
"""Seconds by which this machine's clock may be ahead of AWS's."""


class Action(Enum):
    """What a task does first."""

    START = "start"
    """Begin a new attempt."""
    REPEAT = "repeat"
    """Make the recorded attempt once more: nothing of it was ever started."""
    KEEP = "keep"
    """Wait for what was started, which may have ended by now."""


@dataclass(frozen=True, slots=True)
class Found:
    """A job that an earlier try has started.

    :param job: as AWS describes it now.
    :param by: the try that started it; None if it carries none.
    """

    job: Snapshot
    by: Try | None = None


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
class Now:
    """The try that decides.

    :param clear_number: the DAG run's.
    :param location: where it would start a job.
    :param run_began_at: when the DAG run was started, in seconds since the epoch.
    :param time: in seconds since the epoch.
    :param grace: seconds for which what was just started may be unknown.
    """

    clear_number: int
    location: str
    run_began_at: float
    time: float
    grace: float


def decide(recorded: Attempt, found: Sequence[Found], now: Now) -> Decision:  # noqa: PLR0911 -- a row each
    """Decide what a task does first, by the table above.

    :param recorded: what the last try has recorded; empty if it has recorded nothing.
    :param found: what AWS has of earlier tries.
    :param now: the try that decides.
    """
    if recorded.location not in ("", now.location):
        jobs = ", ".join(recorded.job_ids) or "no id is known"
        why = f"the previous try started its job elsewhere ({recorded.location}: {jobs}), where it is left as it is"
        return Decision(Action.START, why)
    is_cleared = recorded.has_begun and recorded.clear_number != now.clear_number
    older = [each for each in found if _is_of_before_a_clear(each, recorded, now)]
    unwanted = [] if recorded.joined else [each.job.job_id for each in older if not each.job.state.ended]
    current = [each.job for each in found if each not in older and _may_be_ours(each.job, recorded, now)]
    running = [job.job_id for job in current if not job.state.ended]
    if recorded.abandoned:
        why = "the previous try was killed, or its deadline passed"
        return Decision(Action.START, why, stop=[*unwanted, *(() if recorded.joined else running)])
    if recorded.joined and not is_cleared and current:
        return _keep_recorded(recorded, current, unwanted)
    if recorded.job_ids and not is_cleared:
        return _by_id(recorded, current, unwanted, now)
    if len(recorded.parts) > 1 and not is_cleared:
        return Decision(Action.REPEAT, "the previous try ended while it submitted the parts of an array", stop=unwanted)
    if current:
        return _by_group(current, unwanted)
    if recorded.has_begun and not is_cleared:
        return Decision(Action.REPEAT, "the previous try ended before it had started a job", stop=unwanted)
    why = "the task was cleared" if is_cleared or older else "no job of an earlier try was found"
    return Decision(Action.START, why, stop=unwanted)


def _is_of_before_a_clear(found: Found, recorded: Attempt, now: Now) -> bool:
    if found.by:
        return found.by.clear_number < now.clear_number
    is_recorded = recorded.has_begun and recorded.clear_number == now.clear_number
    return not is_recorded


def _may_be_ours(job: Snapshot, recorded: Attempt, now: Now) -> bool:
    """Return whether a job belongs to this DAG run, and nobody has asked AWS to stop it."""
    if job.job_id in recorded.job_ids:
        return True
    is_stopping = job.stopped_by_request and not job.state.ended
    # The start of a run that was queued again is later than its first jobs; a record is deleted with its run.
    is_recorded = recorded.has_begun and recorded.clear_number == now.clear_number
    since = min(now.run_began_at, recorded.began_at) if is_recorded else now.run_began_at
    return _created(job) >= since - SKEW and not is_stopping


def _by_id(recorded: Attempt, current: Sequence[Snapshot], unwanted: Sequence[str], now: Now) -> Decision:
    names = ", ".join(recorded.job_ids)
    known = [job for job in current if job.job_id in recorded.job_ids]
    if not known and now.time - recorded.began_at > now.grace:
        return Decision(Action.START, f"AWS no longer knows {names} of the previous try", stop=unwanted)
    return _keep_recorded(recorded, known, unwanted)


def _keep_recorded(recorded: Attempt, known: Sequence[Snapshot], unwanted: Sequence[str]) -> Decision:
    names = ", ".join(recorded.job_ids)
    if all(job.state is not JobState.FAILED for job in known) or any(not job.state.ended for job in known):
        return Decision(Action.KEEP, f"continuing with {names} of the previous try", recorded.job_ids, unwanted)
    return Decision(Action.START, f"{names} of the previous try failed", stop=unwanted)


def _by_group(current: Iterable[Snapshot], unwanted: Sequence[str]) -> Decision:
    jobs = sorted(current, key=_created)
    good = [job for job in jobs if job.state is not JobState.FAILED]
    if not good:
        return Decision(Action.START, f"{jobs[-1].job_id} of the previous try failed", stop=unwanted)
    first, *others = good
    doubled = [job.job_id for job in others if not job.state.ended]
    why = f"continuing with {first.job_id} of the previous try"
    return Decision(Action.KEEP, why, keep=[first.job_id], stop=[*unwanted, *doubled])


def _created(job: Snapshot) -> float:
    return datetime.fromisoformat(job.created_at).timestamp() if job.created_at else float("inf")
