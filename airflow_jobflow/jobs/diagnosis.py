"""Why a job failed, derived from what AWS says about it.

Pure. ``reasons`` maps AWS's messages to causes, which ``causes`` describes. This module reads the fields of a snapshot
in order, and chooses among several causes.

Invariants:

- A failure that matches no rule is ``UNKNOWN``: nobody is blamed, and AWS's message is shown.
- A transient fault never hides a permanent one: of several failed jobs, the one that a retry is least likely to fix
  decides (``PRECEDENCE``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from airflow_jobflow.jobs import reasons
from airflow_jobflow.jobs.causes import (
    ATTEMPT_TIMED_OUT,
    BY_CAUSE,
    CHILDREN_FAILED,
    COMMAND_FAILED,
    COMMAND_NOT_RUN,
    CRASHED,
    DEFINITION_REJECTED,
    HOST_LOST,
    KILLED,
    NOT_STARTED,
    QUEUE_EXPIRED,
    SPOT_RECLAIMED,
    STOPPED,
    UNKNOWN,
    Blame,
    Diagnosis,
)
from airflow_jobflow.jobs.map_statuses import REFUSED
from airflow_jobflow.jobs.map_statuses import UNKNOWN as STATE_UNKNOWN
from airflow_jobflow.jobs.model import JobState, Snapshot

EXIT_CODES = {126: COMMAND_NOT_RUN, 127: COMMAND_NOT_RUN, 137: KILLED}
"""Exit codes with a more specific cause than that the command failed."""

SIGNALS = 128
"""Exit codes above this one belong to commands that were ended by a signal."""

CODES = {
    "SpotInterruption": SPOT_RECLAIMED,
    "TerminationNotice": SPOT_RECLAIMED,
    "InfrastructureHealth": HOST_LOST,
    "TIMEOUT": ATTEMPT_TIMED_OUT,
    "EXPIRED": QUEUE_EXPIRED,
}
"""Causes by the service's code, where the code is more specific than the message."""

NOT_STARTED_CODE = "TaskFailedToStart"
"""ECS's code for a task whose containers were not started."""

SCRIPT_FAILED_CODE = "FAILED"
"""The state of a Glue run whose script failed; Glue's own failures are ERROR."""

PRECEDENCE = (
    Blame.CONFIGURATION,
    Blame.COMMAND,
    Blame.UNKNOWN,
    Blame.PERSON,
    Blame.TRANSIENT,
    Blame.CAPACITY,
)
"""Which blame decides if jobs failed for different reasons: first the one that a retry is least likely to fix."""


def diagnose(snapshot: Snapshot, *, service: str = "", children: Iterable[Snapshot] = ()) -> Diagnosis | None:
    """Return why a job failed.

    :param snapshot: the job as it was last described.
    :param service: our name of its service, for specific advice. Default: general advice.
    :param children: for an array, its failed children as they were last described. Their reasons explain the array's
        failure, see ``decisive``. Default none: its own reason does.
    :return: the diagnosis; None if it has not failed, or its state is unknown because it could not be described.
    """
    if snapshot.state is not JobState.FAILED or snapshot.status == STATE_UNKNOWN:
        return None
    explained = None if snapshot.stopped_by_request else decisive(diagnoses(children))
    return (explained or _explain(snapshot)).on(service)


def diagnoses(snapshots: Iterable[Snapshot]) -> list[Diagnosis]:
    """Return why jobs failed; jobs that have not failed are skipped.

    :param snapshots: of the jobs.
    """
    return [found for snapshot in snapshots if (found := diagnose(snapshot))]


def decisive(several: Iterable[Diagnosis]) -> Diagnosis | None:
    """Return the diagnosis that explains the failure of several jobs as a whole; None if there is none.

    The first blame of ``PRECEDENCE`` decides, however few jobs have it, because a retry of all would fail with them.
    Within a blame it is the most frequent cause; of equally frequent ones, the first.

    :param several: the diagnoses of the jobs.
    """
    found = [BY_CAUSE[cause] for cause in count_by_cause(several)]
    return min(found, key=lambda each: PRECEDENCE.index(each.blame), default=None)


def count_by_cause(several: Iterable[Diagnosis]) -> dict[str, int]:
    """Return how many failed jobs have each cause, the most frequent first.

    :param several: the diagnoses of the jobs.
    """
    return dict(Counter(each.cause for each in several).most_common())


def _explain(snapshot: Snapshot) -> Diagnosis:
    if snapshot.stopped_by_request:
        return STOPPED
    if snapshot.code in CODES:
        return CODES[snapshot.code]
    # The container's own reason is more specific than the job's, so it is read first.
    texts = [reason for reason in (snapshot.container_reason, snapshot.reason) if reason]
    not_started = snapshot.code == NOT_STARTED_CODE
    reading = reasons.scopes(texts, is_start=not_started, is_script=snapshot.code == SCRIPT_FAILED_CODE)
    causes = [reasons.known_cause(reason, reading) for reason in texts]
    if snapshot.exit_code is None:
        causes += [reasons.fallback_cause(reason) for reason in texts]
    known = next(filter(None, causes), None)
    if known:
        return BY_CAUSE[known]
    if not_started:
        return NOT_STARTED
    if snapshot.status == REFUSED:
        return DEFINITION_REJECTED
    return CHILDREN_FAILED if snapshot.array else _by_exit_code(snapshot.exit_code)


def _by_exit_code(exit_code: int | None) -> Diagnosis:
    if not exit_code:
        return UNKNOWN
    return EXIT_CODES.get(exit_code, CRASHED if exit_code > SIGNALS else COMMAND_FAILED)
