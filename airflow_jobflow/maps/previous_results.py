"""What a failed try of a map leaves for one that runs the rest, in the task state store."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.packing import chunks, pack, unpack

log = logging.getLogger(__name__)

RESULTS = "jobflow_map"
"""Key of what is said of the results as a whole; their parts have a number too."""

CHUNK = 60_000
"""Characters of one value in the task state store, which takes 64 KB."""

NO_TIMES = (None, None, None)


@dataclass(frozen=True, slots=True)
class PreviousResults:
    """How the items of a map ended.

    :param statuses: how each stands, see ``jobs.map_statuses``.
    :param lines: what is told of them, ``[index, snapshot]`` as JSON, by index.
    :param times: when the first job was created, when the first began, and when the last ended.
    """

    statuses: str
    lines: Mapping[int, str] = field(default_factory=dict)
    times: Sequence[str | None] = NO_TIMES

    def after(self, earlier: PreviousResults) -> PreviousResults:
        """Return these, of a later try, with what is told of the items that had succeeded before."""
        return PreviousResults(
            self.statuses, {**earlier.lines, **self.lines}, map_statuses.span(list(earlier.times), list(self.times))
        )

    def leave(self, store: Any, digest: str, clear_number: int) -> None:
        """Leave them for a later try.

        :param store: the task state store.
        :param digest: of the items.
        :param clear_number: the DAG run's, which changes with every clear.
        """
        succeeded = [line for index, line in self.lines.items() if self.statuses[index] == map_statuses.SUCCEEDED]
        parts = list(chunks(pack([self.statuses, *succeeded]), CHUNK))
        for number, part in enumerate(parts):
            store.set(f"{RESULTS}_{number}", part)
        about = {"digest": digest, "clear_number": clear_number, "parts": len(parts), "times": list(self.times)}
        store.set(RESULTS, about)


def previous_attempt(store: Any, digest: str, clear_number: int) -> PreviousResults | None:
    """Return what an earlier try of the same items has left, unless the task was cleared since.

    :param store, digest, clear_number: as in ``PreviousResults.leave``.
    """
    about = store.get(RESULTS)
    if not isinstance(about, Mapping):
        return None
    if about.get("clear_number") != clear_number:
        log.info("The task was cleared, so all items run")
        return None
    if about.get("digest") != digest:
        log.info("The items differ from those of the earlier try, so all run")
        return None
    try:
        statuses, *lines = unpack("".join(store.get(f"{RESULTS}_{number}") for number in range(about["parts"])))
        return PreviousResults(statuses, by_index(lines), about["times"])
    except (zlib.error, ValueError, TypeError, KeyError) as error:
        # Such as when a worker died while it replaced them.
        log.warning("Cannot read the results of the earlier try's items (%r), so all run", error)
        return None


def by_index(lines: Sequence[str]) -> dict[int, str]:
    """Return lines of ``[index, snapshot]`` by their index, without reading the snapshots."""
    return {map_statuses.index_of_line(line): line for line in lines}
