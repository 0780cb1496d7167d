"""How the items of a map stand, a character each in their order, and what that comes to. Pure.

These strings go through events, notes and XComs, and are told to users: what a character means does not change.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.model import ArrayOutcome, JobState

SUCCEEDED, FAILED, STOPPED, NOT_STARTED = "S", "F", "K", "-"
"""How an item ended: well; badly; its job was stopped before it had ended; no job was ever started for it."""

STARTING, RUNNING = "s", "R"
"""How an item stands before its end: its start is under way; its job has not ended."""

REFUSED, LOST = "REFUSED", "UNKNOWN"
"""The status, in place of AWS's, of an item whose start AWS rejected, and of one whose job AWS cannot describe."""

IN_FULL = 1000
"""The most items of a map whose every outcome is told in full; of a larger one only the failed ones' are."""


def progress(statuses: str, unstopped: int = 0) -> str:
    """Say in a few words how far a map is whose items stand so.

    :param unstopped: how many of the items that count as stopped have a job that could not be stopped. Default none.
    """
    failed, to_stop = statuses.count(FAILED), statuses.count(STOPPED)
    unstopped = min(unstopped, to_stop)
    stopped = to_stop - unstopped
    ended = statuses.count(SUCCEEDED) + failed + stopped
    parts = [f"{ended:,} of {len(statuses):,} items ended", f"{failed:,} failed"]
    parts += [f"{stopped:,} stopped"] if stopped else []
    parts += [f"{unstopped:,} not stopped"] if unstopped else []
    parts += [f"{running:,} running"] if (running := statuses.count(RUNNING) + statuses.count(STARTING)) else []
    return ", ".join(parts)


def failed_indexes(statuses: str) -> list[int]:
    """Return the indexes of the items whose jobs failed or were stopped."""
    return [index for index, status in enumerate(statuses) if status in (FAILED, STOPPED)]


def indexes_to_rerun(statuses: str) -> list[int]:
    """Return the indexes of the items that a later try has to run, if it is not to run all."""
    return [index for index, status in enumerate(statuses) if status != SUCCEEDED]


def summary(statuses: str, tolerance: Tolerance) -> tuple[JobState, str, ArrayOutcome]:
    """Judge a map that has ended: its state, why, and its numbers in the shape that an array's have."""
    size, succeeded, failed = len(statuses), statuses.count(SUCCEEDED), statuses.count(FAILED)
    well = tolerance.allows(failed, size) and succeeded + failed == size
    reason = f"{succeeded:,} of {size:,} items succeeded"
    for status, words in ((FAILED, "failed"), (STOPPED, "stopped"), (NOT_STARTED, "never started")):
        reason += f", {count:,} {words}" if (count := statuses.count(status)) else ""
    indexes = failed_indexes(statuses)
    state = JobState.SUCCEEDED if well else JobState.FAILED
    return state, reason, ArrayOutcome(size, succeeded, len(indexes), indexes)


def span(times: Sequence[str | None], others: Sequence[str | None]) -> list[str | None]:
    """Return the earlier of two creations, the earlier of two beginnings, and the later of two ends; ISO 8601, UTC."""
    decides = (min, min, max)
    pairs = zip(decides, times, others, strict=True)
    return [decide(one, other) if one and other else one or other for decide, one, other in pairs]


def index_of_line(line: str) -> int:
    """Return whose a line ``[index, snapshot]`` is, without reading the snapshot."""
    return int(line[1 : line.index(",")])
