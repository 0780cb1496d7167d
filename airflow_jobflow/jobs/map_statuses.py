"""The statuses of a map's items as a string with one character for each item, and summaries of them. Pure.

These strings are in events, notes and XComs, and are documented for users: the meaning of a character never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.model import ArrayOutcome, JobState

SUCCEEDED, FAILED, STOPPED, NOT_DESCRIBED, NOT_STARTED = "S", "F", "K", "U", "-"
"""An item's end: its job succeeded, failed, was stopped, or could not be described (so its state is unknown), or no job
was ever started for it."""

STARTING, RUNNING = "s", "R"
"""An item before its end: its job is being started, or has not ended."""

REFUSED, UNKNOWN = "REFUSED", "UNKNOWN"
"""The status, instead of AWS's, of an item whose job AWS refused to start, and of one whose job cannot be described."""

IN_FULL = 1000
"""The most items of a map whose outcomes are all recorded in full. Of a larger map, only those of failed items are."""


ENDS = {
    FAILED: "failed",
    NOT_DESCRIBED: "could not be described",
    STOPPED: "stopped",
    NOT_STARTED: "never started",
}
"""How the reason of a map's result counts the items that have not succeeded."""


def progress(statuses: str, unstopped: int = 0) -> str:
    """Return the progress of a map as a short text.

    :param statuses: of its items.
    :param unstopped: how many of the items that count as stopped have a job that could not be stopped. Default 0.
    """
    failed, unknown, to_stop = (statuses.count(status) for status in (FAILED, NOT_DESCRIBED, STOPPED))
    unstopped = min(unstopped, to_stop)
    stopped = to_stop - unstopped
    ended = statuses.count(SUCCEEDED) + failed + stopped
    parts = [f"{ended:,} of {len(statuses):,} items ended", f"{failed:,} failed"]
    parts += [f"{unknown:,} could not be described"] if unknown else []
    parts += [f"{stopped:,} stopped"] if stopped else []
    parts += [f"{unstopped:,} not stopped"] if unstopped else []
    parts += [f"{running:,} running"] if (running := statuses.count(RUNNING) + statuses.count(STARTING)) else []
    return ", ".join(parts)


def failed_indexes(statuses: str) -> list[int]:
    """Return the indexes of the items whose jobs failed, were stopped, or could not be described.

    :param statuses: of the map's items.
    """
    return [index for index, status in enumerate(statuses) if status in (FAILED, STOPPED, NOT_DESCRIBED)]


def indexes_to_rerun(statuses: str) -> list[int]:
    """Return the indexes of the items that have not succeeded.

    :param statuses: of the map's items.
    """
    return [index for index, status in enumerate(statuses) if status != SUCCEEDED]


def summary(statuses: str, tolerance: Tolerance) -> tuple[JobState, str, ArrayOutcome]:
    """Return the result of a map that has ended. An item that could not be described counts as not succeeded.

    :param statuses: of its items.
    :param tolerance: how many may fail.
    :return: its state, the reason as a text, and its counts in the form of an array's.
    """
    size, succeeded = len(statuses), statuses.count(SUCCEEDED)
    failed = statuses.count(FAILED) + statuses.count(NOT_DESCRIBED)
    succeeds = tolerance.allows(failed, size) and succeeded + failed == size
    reason = f"{succeeded:,} of {size:,} items succeeded"
    for status, text in ENDS.items():
        reason += f", {count:,} {text}" if (count := statuses.count(status)) else ""
    indexes = failed_indexes(statuses)
    state = JobState.SUCCEEDED if succeeds else JobState.FAILED
    return state, reason, ArrayOutcome(size, succeeded, len(indexes), indexes)


def span(times: Sequence[str | None], others: Sequence[str | None]) -> list[str | None]:
    """Combine the times of two jobs: the earlier creation, the earlier start and the later end.

    :param times, others: creation, start and end of each, in ISO 8601 and UTC; None for unknown times.
    """
    decides = (min, min, max)
    pairs = zip(decides, times, others, strict=True)
    return [decide(one, other) if one and other else one or other for decide, one, other in pairs]


def index_of_line(line: str) -> int:
    """Return the index in a line, without parsing the snapshot in it.

    :param line: JSON of ``[index, snapshot]``.
    """
    return int(line[1 : line.index(",")])
