"""What a person reads when a job has failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_jobflow.jobs.diagnosis import Diagnosis, diagnose
from airflow_jobflow.jobs.model import ChildFailure, Snapshot, index_ranges

CHILDREN_SHOWN = 3
"""How many failed children of an array are told of in full."""


def failure(
    noun: str,
    snapshot: Snapshot,
    diagnosis: Diagnosis,
    *,
    failed: Sequence[int] = (),
    children: Sequence[ChildFailure] = (),
    log_lines: Sequence[str] = (),
    console_url: str | None = None,
) -> str:
    """Say which job failed, how, why, and what to do about it.

    :param noun: what such a job is called: ``Batch job``.
    :param failed: of an array, the indexes that failed.
    :param children: the first of them, as they were last seen.
    :param log_lines: the last lines of the job's log, or of the first failed child's.
    :param console_url: the job's page in AWS's console.
    """
    verb = "was stopped" if snapshot.stopped_by_request else "failed"
    lines = [f"{noun} {snapshot.name} ({snapshot.job_id}) {verb}{_how(snapshot)}.", f"Why: {diagnosis}"]
    lines += [f"AWS says: {words}" for words in _reasons(snapshot)]
    if snapshot.array:
        count = max(len(failed), snapshot.array.failed)
        which = index_ranges(failed) or "which ones could not be found out"
        lines.append(f"Failed children: {count} of {snapshot.array.size}: {which}")
        lines += [f"  [{child.index}]{_how(child.snapshot)}: {_why(child.snapshot)}" for child in children]
    if log_lines:
        lines.append("Last lines of the log:" if not children else f"Last lines of the log of [{children[0].index}]:")
        lines += [f"  | {line}" for line in log_lines]
    if console_url:
        lines.append(f"Console: {console_url}")
    return "\n".join(lines)


def map_failure(
    noun: str,
    name: str,
    reason: str,
    *,
    failed: Sequence[int],
    children: Sequence[ChildFailure],
    log_lines: Sequence[str] = (),
) -> str:
    """Say how a map failed: how many items, which, and the first of them in full.

    :param noun: what the items' jobs are called: ``Batch job``.
    :param reason: the map's numbers in words.
    :param failed: the indexes of the items that failed or were stopped.
    :param children: the first of those that failed, as they were last seen.
    :param log_lines: the last lines of the first one's log.
    """
    lines = [f"Map {name} of {noun}s failed: {reason}.", f"Failed items: {len(failed)}: {index_ranges(failed)}"]
    lines += [f"  [{child.index}]{_how(child.snapshot)}: {_why(child.snapshot)}" for child in children]
    if log_lines:
        lines.append(f"Last lines of the log of [{children[0].index}]:")
        lines += [f"  | {line}" for line in log_lines]
    return "\n".join(lines)


def _how(snapshot: Snapshot) -> str:
    parts = []
    if snapshot.attempt:
        parts.append(f" on attempt {snapshot.attempt} of {snapshot.max_attempts}")
    if snapshot.exit_code is not None:
        parts.append(f" with exit code {snapshot.exit_code}")
    return "".join(parts)


def _reasons(snapshot: Snapshot) -> list[str]:
    return [words for words in (snapshot.container_reason, snapshot.reason) if words]


def _why(snapshot: Snapshot) -> str:
    diagnosis = diagnose(snapshot)
    said = "; ".join(_reasons(snapshot))
    return ": ".join(filter(None, [diagnosis.summary if diagnosis else "", said]))
