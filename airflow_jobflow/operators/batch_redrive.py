"""Which children of an array run again in a redrive, and what changes for each of them.

Children with the same history run in the same job: they get the same parameters.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.array import index_ranges, indexes_of
from airflow_jobflow.operators.changes import next_change

if TYPE_CHECKING:
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.changes import Changes
    from airflow_jobflow.jobs.model import ChildFailure, Snapshot
    from airflow_jobflow.waiting.remote import RemoteJobs

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """Children of an array that have the same history.

    :param indexes: of the children in the whole array, in order.
    :param changes: what attempts at them have changed, see ``Attempt.changes``. Default: nothing.
    :param is_new: whether the last of these changes follows the last attempt. Default False.
    """

    indexes: Sequence[int]
    changes: Entries = ()
    is_new: bool = False


def parts_of(attempt: Attempt) -> list[Part]:
    """Return what each job of an attempt runs.

    :param attempt: the attempt at an array.
    """
    indexes: list[Sequence[int]] = [indexes_of(part) for part in attempt.parts] or [range(attempt.size)]
    changes: Sequence[Entries] = attempt.part_changes or [[]] * len(indexes)
    return [Part(*each) for each in zip(indexes, changes, strict=True)]


def left_to_run(rules: Changes, earlier: Attempt, jobs: RemoteJobs, name: str) -> list[Part] | None:
    """Return the children that an earlier try left to run again, and what changes for them.

    AWS is queried, because an earlier try may have ended before it knew.

    :param rules: what changes for a child, by the cause of its failure.
    :param earlier: the attempt of the earlier try.
    :param jobs: makes the API calls.
    :param name: of the array, for messages.
    :return: the parts, in order; None if a job of the array still runs or is not known.
    :raises SubmissionError: the children cannot be listed. Nothing was started.
    """
    from airflow_jobflow.faults import CallError

    try:
        return jobs.call(_left_to_run, rules, earlier.job_ids, parts_of(earlier))
    except CallError as error:
        raise SubmissionError(
            f"Nothing was started, because the failed children of {name} could not be determined "
            f"(connection: {jobs.origin}): {error}"
        ) from error


def _left_to_run(call: Call, rules: Changes, job_ids: Sequence[str], parts: Sequence[Part]) -> list[Part] | None:
    from airflow_jobflow.jobs import batch
    from airflow_jobflow.jobs.model import ChildFailure

    left = batch.not_succeeded(call, [(job_id, part.indexes) for job_id, part in zip(job_ids, parts, strict=True)])
    if left is None:
        return None
    groups: dict[str, Part] = {}
    indexes: defaultdict[str, list[int]] = defaultdict(list)
    for part, (job, again) in zip(parts, left, strict=True):
        failed: dict[int, Snapshot] = {}
        if rules and again:
            listed = batch.failed_and_stopped(call, job.job_id) if job.array else [ChildFailure(0, job)]
            failed = {part.indexes[child.index]: child_of(job, child) for child in listed}
        for index in again:
            change, _ = next_change(rules, part.changes, failed[index]) if index in failed else (None, "")
            again_with = Part((), [*part.changes, change], is_new=True) if change else Part((), part.changes)
            history = json.dumps(
                [again_with.is_new, *([each["cause"], each["changed"]] for each in again_with.changes)]
            )
            groups.setdefault(history, again_with)
            indexes[history].append(index)
    found = [replace(part, indexes=sorted(indexes[history])) for history, part in groups.items()]
    return sorted(found, key=lambda part: part.indexes[0])


def child_of(job: Snapshot, child: ChildFailure) -> Snapshot:
    """Return the snapshot of a child with what the array's own says of all children, because a listing lacks it.

    :param job: the array, or a plain job that ran a single child.
    :param child: as it was listed.
    """
    return replace(child.snapshot, resources=job.resources, fargate=job.fargate, attempt_timeout=job.attempt_timeout)


def entries(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the new changes of an array's parts, each with the indexes of its children, as the outcome shows them.

    :param parts: what runs again.
    """
    return [{**part.changes[-1], "indexes": index_ranges(part.indexes)} for part in parts if part.is_new]


def next_of_children(
    rules: Changes,
    ended: Sequence[Snapshot],
    attempt: Attempt,
    children: Mapping[int, Snapshot],
    tolerance: Tolerance,
) -> tuple[dict[str, Any] | None, str]:
    """Return what the next attempt changes for the first failed child with a change; see ``changes.next_change``.

    If nothing is left to change for more of them than may fail, that decides: the array fails as long as they do.

    :param rules: the rules.
    :param ended: the last snapshots of the jobs that ran the array.
    :param attempt: the attempt.
    :param children: the failed children, by index.
    :param tolerance: how many of all children may fail.
    """
    from airflow_jobflow.jobs.model import ChildFailure

    final: list[str] = []
    found: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for job, part in zip(ended, parts_of(attempt), strict=True):
        for index in (each for each in part.indexes if each in children):
            change, at_maximum = next_change(rules, part.changes, child_of(job, ChildFailure(index, children[index])))
            if at_maximum:
                final.append(f"Child {index}: {at_maximum}")
            if change:
                found.setdefault(json.dumps(change), (change, []))[1].append(index)
    if final and not tolerance.allows(len(final), attempt.size):
        return None, final[0]
    for change, indexes in found.values():
        text = f"for children {index_ranges(indexes)}, {change['text']}"
        return {**change, "text": text, "indexes": index_ranges(indexes)}, ""
    return None, ""
