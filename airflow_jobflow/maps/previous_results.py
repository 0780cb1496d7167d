"""The results of a map's failed try, kept in the task state store for the next try, which runs only the rest."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import index_ranges, indexes_of
from airflow_jobflow.jobs.packing import chunks, pack, unpack

log = logging.getLogger(__name__)

RESULTS_KEY = "jobflow_map"
"""Key of the entry that describes the results. It is also the prefix of the keys of their parts."""

MAX_PART_LENGTH = 60_000
"""The most characters of one part. The task state store takes 64 KB per value."""

NO_TIMES = (None, None, None)


@dataclass(frozen=True, slots=True)
class PreviousResults:
    """How the items of a map ended.

    :param statuses: the status of each item, see ``jobs.map_statuses``.
    :param lines: result lines of items, ``[index, snapshot]`` as JSON, by index.
    :param times: when the first job was created, when the first started, and when the last ended, in ISO 8601.
    :param results: where the items that succeeded wrote their results: the indexes, as ranges, by address.
    """

    statuses: str
    lines: Mapping[int, str] = field(default_factory=dict)
    times: Sequence[str | None] = NO_TIMES
    results: Mapping[str, str] = field(default_factory=dict)

    def merged_with(self, earlier: PreviousResults) -> PreviousResults:
        """Return these results, with the lines of the items that had succeeded in an earlier try.

        :param earlier: the results of the earlier try.
        """
        return PreviousResults(
            self.statuses,
            {**earlier.lines, **self.lines},
            map_statuses.span(list(earlier.times), list(self.times)),
            {**earlier.results, **self.results},
        )

    def with_results_at(self, uri: str) -> PreviousResults:
        """Return these results, with the address to which the items of this try wrote.

        :param uri: the address.
        """
        before = {index for ranges in self.results.values() for index in indexes_of(ranges)}
        succeeded = {index for index, status in enumerate(self.statuses) if status == map_statuses.SUCCEEDED} - before
        return replace(self, results={**self.results, uri: index_ranges(succeeded)}) if succeeded else self

    def save(self, store: Any, digest: str, clear_number: int) -> None:
        """Save the results for a later try.

        :param store: the task state store.
        :param digest: digest of the items.
        :param clear_number: the DAG run's clear number, which changes with every clear.
        """
        succeeded = [line for index, line in self.lines.items() if self.statuses[index] == map_statuses.SUCCEEDED]
        parts = list(chunks(pack([self.statuses, *succeeded]), MAX_PART_LENGTH))
        for number, part in enumerate(parts):
            store.set(f"{RESULTS_KEY}_{number}", part)
        about = {"digest": digest, "clear_number": clear_number, "parts": len(parts), "times": list(self.times)}
        about |= {"results": dict(self.results)} if self.results else {}
        store.set(RESULTS_KEY, about)


def load_previous_results(store: Any, digest: str, clear_number: int) -> PreviousResults | None:
    """Return the results that an earlier try of the same items has saved.

    :param store: the task state store.
    :param digest: digest of the items.
    :param clear_number: the DAG run's clear number.
    :return: None if there are none, if the items have changed, or if the task was cleared since.
    """
    about = store.get(RESULTS_KEY)
    if not isinstance(about, Mapping):
        return None
    if about.get("clear_number") != clear_number:
        log.info("The task was cleared, so all items run")
        return None
    if about.get("digest") != digest:
        log.info("The items differ from those of the earlier try, so all run")
        return None
    try:
        statuses, *lines = unpack("".join(store.get(f"{RESULTS_KEY}_{number}") for number in range(about["parts"])))
        return PreviousResults(statuses, by_index(lines), about["times"], about.get("results", {}))
    except (zlib.error, ValueError, TypeError, KeyError) as error:
        # For example, a worker died while it replaced them.
        log.warning("Cannot read the results of the earlier try's items (%r), so all run", error)
        return None


def by_index(lines: Sequence[str]) -> dict[int, str]:
    """Return result lines by the index of their item, without parsing the snapshots.

    :param lines: ``[index, snapshot]`` as JSON.
    """
    return {map_statuses.index_of_line(line): line for line in lines}
