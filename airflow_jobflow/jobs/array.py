"""Arithmetic of arrays and maps: how many of their jobs may fail, and which of them run again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.jobs.environment import with_variables
from airflow_jobflow.jobs.model import index_ranges

ROUNDING = 1e-6
"""What binary fractions may lose: 18.4 % of 375 is 69, not a little less."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The failed children that still count as success: whichever of the two allows more.

    :param count: how many; 0 or more.
    :param percentage: how many of a hundred; 0 to 100.
    """

    count: int = 0
    percentage: float = 0.0

    def allows(self, failed: int, size: int) -> bool:
        """Whether so many failures out of so many children still count as success."""
        return failed <= self.count or failed * 100 <= size * self.percentage + ROUNDING


INDEXES = "JOBFLOW_ARRAY_INDEXES"
"""Environment variable that tells the children of an array which indexes of the original one they are, as ranges."""

ROOM = 8192 - 1024
"""The most characters of overrides: ECS takes 8,192, and Batch adds variables of its own, with names of up to 128."""


def indexes_of(ranges: str) -> list[int]:
    """Read indexes written as ranges: ``0-3,7``."""
    pairs = [each.partition("-") for each in ranges.split(",")]
    return [index for first, _, last in pairs for index in range(int(first), int(last or first) + 1)]


def rerun_requests(request: Mapping[str, Any], indexes: Iterable[int]) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Build what runs some children of an array again: smaller arrays, or plain jobs where one is left over.

    AWS numbers the children of each from 0, so each is told in ``JOBFLOW_ARRAY_INDEXES`` who they were. What does not
    fit into the overrides of one goes into another. Dependencies on other jobs were met the first time.

    :param request: the SubmitJob request of the original array.
    :param indexes: which of its children are to run again.
    :return: for each, the indexes in it, and its request.
    """
    overrides = request.get("containerOverrides", {})
    for part in _that_fit(indexes, ROOM - len(json.dumps(with_variables(overrides, {INDEXES: ""})))):
        job = {**request, "containerOverrides": with_variables(overrides, {INDEXES: index_ranges(part)})}
        for name in ("arrayProperties", "dependsOn"):
            job.pop(name, None)
        if len(part) > 1:
            job["arrayProperties"] = {**request["arrayProperties"], "size": len(part)}
            sequence = [each for each in request.get("dependsOn", []) if each.get("type") == "SEQUENTIAL"]
            job |= {"dependsOn": sequence} if sequence else {}
        yield part, job


def as_plain_job(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build what runs an array of one child: AWS has none, so it is a plain job, which is told that it is child 0.

    Its dependencies lose their types: those between the children of arrays are of the jobs themselves, and a sequence
    of one has none. Where a job has no container of its own to override, it is not told.

    :param request: the SubmitJob request of the array.
    """
    job = {name: value for name, value in request.items() if name not in ("arrayProperties", "dependsOn")}
    if not any(name in request for name in ("nodeOverrides", "ecsPropertiesOverride", "eksPropertiesOverride")):
        job["containerOverrides"] = with_variables(request.get("containerOverrides", {}), {INDEXES: "0"})
    if others := [{"jobId": each["jobId"]} for each in request.get("dependsOn", []) if "jobId" in each]:
        job["dependsOn"] = others
    return job


def _that_fit(indexes: Iterable[int], room: int) -> Iterator[list[int]]:
    """Cut indexes, in order, into parts that take no more characters as ranges than there is room for."""
    part: list[int] = []
    taken = 0
    for each in index_ranges(indexes).split(","):
        taken += len(each) + 1
        if part and taken > room:
            yield part
            part, taken = [], len(each) + 1
        part += indexes_of(each)
    yield part
