"""Arrays and maps: how many of their jobs may fail, and the requests that run some children again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH, variables, with_variables

ROUNDING = 1e-6
"""The allowance for rounding in binary fractions: 18.4 % of 375 is 69, not a little less."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many children may fail without failing the array: whichever of the two allows more.

    :param count: how many; 0 or more.
    :param percentage: how many of a hundred; 0 to 100.
    """

    count: int = 0
    percentage: float = 0.0

    def allows(self, failed: int, size: int) -> bool:
        """Return whether an array still counts as successful.

        :param failed: how many of its children failed.
        :param size: how many children it has.
        """
        return failed <= self.count or failed * 100 <= size * self.percentage + ROUNDING


INDEXES = "JOBFLOW_ARRAY_INDEXES"
"""The environment variable with the indexes, as ranges, that the children of a rerun array had in the original."""


def indexes_of(ranges: str) -> list[int]:
    """Parse indexes written as ranges.

    :param ranges: such as ``0-3,7``; not empty.
    """
    pairs = [each.partition("-") for each in ranges.split(",")]
    return [index for first, _, last in pairs for index in range(int(first), int(last or first) + 1)]


def index_ranges(indexes: Iterable[int]) -> str:
    """Format indexes as ranges: ``0-3,7``.

    :param indexes: in any order.
    """
    ranges: list[list[int]] = []
    for index in sorted(indexes):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def rerun_requests(request: Mapping[str, Any], indexes: Iterable[int]) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Build the requests that run some children of an array again: smaller arrays, or plain jobs for single children.

    AWS numbers the children of each array from 0, so ``JOBFLOW_ARRAY_INDEXES`` holds their original indexes. Indexes
    that do not fit into the overrides of one array go into another. Dependencies on other jobs are dropped: they were
    satisfied the first time.

    :param request: the SubmitJob request of the original array.
    :param indexes: the children to run again.
    :return: for each array or job, the original indexes in it, and its request.
    """
    overrides = request.get("containerOverrides", {})
    for part in _that_fit(
        indexes, MAX_BATCH_OVERRIDES_LENGTH - len(json.dumps(with_variables(overrides, {INDEXES: ""})))
    ):
        job = {**request, "containerOverrides": with_variables(overrides, {INDEXES: index_ranges(part)})}
        for name in ("arrayProperties", "dependsOn"):
            job.pop(name, None)
        if len(part) > 1:
            job["arrayProperties"] = {**request["arrayProperties"], "size": len(part)}
            sequence = [each for each in request.get("dependsOn", []) if each.get("type") == "SEQUENTIAL"]
            job |= {"dependsOn": sequence} if sequence else {}
        yield part, job


def as_plain_job(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the request for an array of one child, which AWS does not allow: a plain job.

    ``JOBFLOW_ARRAY_INDEXES`` says that it is child 0, unless the job has no container of its own to override. Its
    dependencies lose their types: dependencies between children become dependencies between the jobs, and a sequence of
    one child has none.

    :param request: the SubmitJob request of the array.
    """
    job = {name: value for name, value in request.items() if name not in ("arrayProperties", "dependsOn")}
    if not any(name in request for name in ("nodeOverrides", "ecsPropertiesOverride", "eksPropertiesOverride")):
        job["containerOverrides"] = with_variables(request.get("containerOverrides", {}), {INDEXES: "0"})
    if others := [{"jobId": each["jobId"]} for each in request.get("dependsOn", []) if "jobId" in each]:
        job["dependsOn"] = others
    return job


def without_index_of_one(overrides: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return container overrides without the index of an array of one, which scripts take for granted.

    :param overrides: ``containerOverrides``; None if there are none.
    :return: None if there are none.
    """
    if not overrides or variables(overrides).get(INDEXES) != "0":
        return dict(overrides) if overrides else None
    others = [each for each in overrides["environment"] if each["name"] != INDEXES]
    rest = {name: value for name, value in overrides.items() if name != "environment"}
    return {**rest, "environment": others} if others else rest or None


def _that_fit(indexes: Iterable[int], room: int) -> Iterator[list[int]]:
    """Split indexes, in order, into parts that have at most so many characters as ranges."""
    part: list[int] = []
    taken = 0
    for each in index_ranges(indexes).split(","):
        taken += len(each) + 1
        if part and taken > room:
            yield part
            part, taken = [], len(each) + 1
        part += indexes_of(each)
    yield part
