"""What to do with the jobs that earlier tries of a task have started. Pure: decided by the record and the jobs in AWS.

Jobs are found by the group of their task instance, or by the ids that an earlier try has recorded. Each carries the try
that started it. Two rules apply first:

- The record names another location (1): start. Jobs there are left alone, and logged.
- Running jobs were started before a clear (2): stop them.

Nothing is stopped if the record is of a job that the task has joined (3).

Then the first row that matches decides::

    recorded                  found, since the last clear (4)                action
    ------------------------  ---------------------------------------------  -----------------------------------------
    abandoned (5)             anything                                       stop running jobs, and start
    ids                       none of them, and the record is recent (6)     keep: the wait's grace period decides
    ids                       one of them runs, or all have succeeded        keep these, stop others
    ids                       only others                                    as if no ids were recorded
    ids                       neither                                        start
    parts, no ids             anything                                       repeat, which starts only missing parts
    anything else             one that runs or has succeeded (8)             keep the first of these, stop others
    anything else             only failed or stopped ones                    start, and stop running parts
    a token, not cleared      nothing                                        repeat the recorded attempt (7)
    nothing                   nothing                                        start

1. Another service, connection, region, cluster or Glue job: jobs there cannot be described from here.
2. Their ``clear_number`` is below the task's. A job with an unknown try counts as started before a clear, unless a
   record says that there was no clear: a clear always starts a new job.
3. A job that someone else has started is never stopped. Only crawls are joined, and other crawls are not found.
4. With an equal ``clear_number``, and not older than the DAG run. Jobs of a run that was deleted and created again with
   the same id have the same group; they are left to the orphan reaper. Recorded jobs always count. A record from before
   a clear does not count.
5. A task that was killed, or whose deadline has passed, has recorded that its job is not wanted any more.
6. Not older than the grace period: a job that was just started may not be known everywhere yet.
7. The worker died, or the response was lost. With the same token, ECS starts nothing twice.
8. Not a part of an array that was redriven, unless it is recorded: its success is not that of the array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.model import JobState, Snapshot

SKEW = 60.0
"""Seconds by which this machine's clock may be ahead of AWS's clock."""


class Action(Enum):
    """What a task does when it starts."""

    START = "start"
    """Start a new attempt."""
    REPEAT = "repeat"
    """Repeat the recorded attempt, of which no job was started."""
    KEEP = "keep"
    """Wait for the jobs that were started, which may have ended by now."""


@dataclass(frozen=True, slots=True)
class Found:
    """A job that an earlier try has started.

    :param job: as AWS describes it now.
    :param by: the try that started it; None if the job does not say.
    :param is_part: whether it is one of several jobs that run an array together, so that its result is not the task's.
    """

    job: Snapshot
    by: Try | None = None
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    :param action: what the task does.
    :param why: for the task's log.
    :param keep: ids of the jobs to wait for.
    :param stop: ids of jobs to stop.
    :param failed: ids of jobs that were found by their group and have failed since the last clear. They determine which
        children of an array to run again.
    """

    action: Action
    why: str
    keep: Sequence[str] = ()
    stop: Sequence[str] = ()
    failed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Now:
    """The try that decides.

    :param clear_number: of the DAG run.
    :param location: where it would start a job.
    :param run_began_at: when the DAG run was started, in seconds since the epoch.
    :param time: the time in seconds since the epoch.
    :param grace: seconds for which a job that was just started may be unknown.
    """

    clear_number: int
    location: str
    run_began_at: float
    time: float
    grace: float


def decide(recorded: Attempt, found: Sequence[Found], now: Now) -> Decision:
    """Decide what a task does when it starts, by the table above.

    :param recorded: the record of the last try; empty if there is none.
    :param found: the jobs of earlier tries in AWS.
    :param now: the try that decides.
    """
    if recorded.location not in ("", now.location):
        jobs = ", ".join(recorded.job_ids) or "no id is known"
        why = f"the previous try started its job elsewhere ({recorded.location}: {jobs}), where it is left alone"
        return Decision(Action.START, why)
    before = [_is_of_before_a_clear(each, recorded, now) for each in found]
    older = [each.job for each, is_older in zip(found, before, strict=True) if is_older]
    is_cleared = recorded.has_begun and recorded.clear_number != now.clear_number
    outdated = {job.job_id for job in older}
    wanted = [job_id for job_id in recorded.job_ids if job_id not in outdated]
    record = Attempt() if is_cleared else replace(recorded, job_ids=wanted)
    current = [
        each
        for each, is_older in zip(found, before, strict=True)
        if not is_older and _may_be_ours(each.job, record, now)
    ]
    decision = _of_this_clear(record, current, now)
    if decision.action is Action.START and not decision.why:
        why = "the task was cleared" if is_cleared or older else "no job of an earlier try was found"
        decision = replace(decision, why=why)
    return replace(decision, stop=[] if recorded.joined else [*_running(older), *decision.stop])


def _of_this_clear(record: Attempt, current: Sequence[Found], now: Now) -> Decision:
    """Decide about the jobs that were started since the last clear.

    :return: the decision; without a reason if there are no such jobs.
    """
    if record.abandoned:
        why = "the previous try was killed, or its deadline passed"
        return Decision(Action.START, why, stop=_running(each.job for each in current))
    if record.job_ids:
        return _by_id(record, current, now)
    if record.parts:  # the failed array that they are parts of is found too, and says nothing about them
        return Decision(Action.REPEAT, "the previous try ended while it submitted the parts of an array")
    if current:
        return _by_group(current)
    if record.has_begun:
        return Decision(Action.REPEAT, "the previous try ended before it had started a job")
    return Decision(Action.START, "")


def _is_of_before_a_clear(found: Found, recorded: Attempt, now: Now) -> bool:
    if found.by:
        return found.by.clear_number < now.clear_number
    is_recorded = recorded.has_begun and recorded.clear_number == now.clear_number
    return not is_recorded


def _may_be_ours(job: Snapshot, record: Attempt, now: Now) -> bool:
    """Return whether a job belongs to this DAG run.

    :param record: the record, if it is from since the last clear.
    """
    # A run that is queued again gets a new start, later than its first jobs. A record is deleted with its run.
    since = min(now.run_began_at, record.began_at) if record.has_begun else now.run_began_at
    return job.job_id in record.job_ids or _created(job) >= since - SKEW


def _by_id(record: Attempt, current: Sequence[Found], now: Now) -> Decision:
    names = ", ".join(record.job_ids)
    known = [each.job for each in current if each.job.job_id in record.job_ids]
    others = [each for each in current if each.job.job_id not in record.job_ids]
    if known:
        keeps = any(_is_running_on(job) for job in known) or all(job.state is JobState.SUCCEEDED for job in known)
    else:
        keeps = now.time - record.began_at <= now.grace
    if keeps:
        why = f"continuing with {names} of the previous try"
        return Decision(Action.KEEP, why, record.job_ids, _running(each.job for each in others))
    if others:
        return _by_group(others)
    how = "failed or was stopped" if known else "is no longer known to AWS"
    return Decision(Action.START, f"{names} of the previous try {how}")


def _by_group(current: Sequence[Found]) -> Decision:
    jobs = sorted((each.job for each in current), key=_created)
    parts = {each.job.job_id for each in current if each.is_part}
    good = [job for job in jobs if job.job_id not in parts and (job.state is JobState.SUCCEEDED or _is_running_on(job))]
    stop = [job_id for job_id in _running(jobs) if job_id in parts]
    if not good:
        failed = [job.job_id for job in jobs if job.job_id not in parts]
        names = failed[-1] if failed else f"the array of which {', '.join(sorted(parts))} ran a part"
        return Decision(Action.START, f"{names} of the previous try failed or was stopped", stop=stop, failed=failed)
    why = f"continuing with {good[0].job_id} of the previous try"
    return Decision(Action.KEEP, why, keep=[good[0].job_id], stop=[*_running(good[1:]), *stop])


def _is_running_on(job: Snapshot) -> bool:
    """Return whether a job has not ended and was not asked to stop."""
    return not job.state.ended and not job.stopped_by_request


def _running(jobs: Iterable[Snapshot]) -> list[str]:
    return [job.job_id for job in jobs if not job.state.ended]


def _created(job: Snapshot) -> float:
    return datetime.fromisoformat(job.created_at).timestamp() if job.created_at else float("inf")
