"""The messages about failed jobs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_jobflow.jobs.array import index_ranges
from airflow_jobflow.jobs.causes import Diagnosis
from airflow_jobflow.jobs.diagnosis import count_by_cause, diagnose, diagnoses
from airflow_jobflow.jobs.map_statuses import REFUSED, UNKNOWN
from airflow_jobflow.jobs.model import ChildFailure, Snapshot
from airflow_jobflow.jobs.wording import sentence

CHILDREN_SHOWN = 3
"""The most failed children of an array, nodes of a job, or items of a map, in a message."""

NEVER_SEEN = {
    REFUSED: " could not be started",
    UNKNOWN: " may still run, and its state is unknown",
}
"""What a message says about an item whose end is not known, by its status."""

INDEXES_SHOWN = 200
"""The most characters of indexes in a log line."""


def most_significant(children: Iterable[ChildFailure], diagnosis: Diagnosis | None) -> list[ChildFailure]:
    """Sort failed children: first one whose cause explains the whole, then one of each other cause, then the rest.

    :param children: in the order of their indexes.
    :param diagnosis: of the array or the map.
    """
    decisive: list[ChildFailure] = []
    examples: list[ChildFailure] = []
    rest: list[ChildFailure] = []
    seen = set()
    for child in children:
        found = diagnose(child.snapshot)
        cause = found.cause if found else ""
        if diagnosis and cause == diagnosis.cause:
            decisive.append(child)
        else:
            (rest if cause in seen else examples).append(child)
            seen.add(cause)
    return [*decisive[:1], *examples, *decisive[1:], *rest] if examples else [*decisive, *rest]


def failure(
    noun: str,
    snapshot: Snapshot,
    diagnosis: Diagnosis,
    *,
    failed: Sequence[int] = (),
    children: Sequence[ChildFailure] = (),
    log_lines: Sequence[str] = (),
    log_is_copied: bool = False,
    console_url: str | None = None,
) -> str:
    """Return the message of a failed job: which one, how and why it failed, and what to do about it.

    :param noun: what such a job is called: ``Batch job``.
    :param snapshot: the job as it was last described.
    :param diagnosis: why it failed.
    :param failed: for an array, the indexes that failed. Default none.
    :param children: these children as they were last described, the most significant first. Default none.
    :param log_lines: the last lines of the job's log, or of the first child's. Default none.
    :param log_is_copied: whether these are in the task's log already, so that they are not repeated. Default False.
    :param console_url: the job's page in AWS's console. Default none.
    """
    verb = "was stopped" if snapshot.stopped_by_request else "failed"
    lines = [f"{noun} {snapshot.name} ({snapshot.job_id}) {verb}{_how(snapshot)}.", f"Why: {diagnosis}"]
    lines += [f"AWS says: {reason}" for reason in _reasons(snapshot)]
    if snapshot.array:
        count = max(len(failed), snapshot.array.failed)
        which = index_ranges(failed) or "which ones could not be found out"
        lines.append(f"Failed children ({count} of {snapshot.array.size}): {which}")
        lines += _failed(children)
    if nodes := (snapshot.details or {}).get("failed_nodes"):
        shown = "; ".join(f"[{node}] {how}" for node, how in list(nodes.items())[:CHILDREN_SHOWN])
        lines.append(f"Nodes that failed before the main node, the first one first: {shown}")
    of = f" of [{children[0].index}]" if children else ""
    return "\n".join([*lines, *evidence(log_lines, console_url, of=of, is_copied=log_is_copied)])


def evidence(
    log_lines: Sequence[str], console_url: str | None = None, *, of: str = "", is_copied: bool = False
) -> list[str]:
    """Return the last lines of a message: the log, and the link to the console.

    :param log_lines: the last lines of the job's log.
    :param console_url: the job's page in AWS's console. Default none.
    :param of: whose log it is, after a space. Default: the job's.
    :param is_copied: whether the lines are in the task's log already, so that they are not repeated. Default False.
    """
    if is_copied:
        lines = [f"The last lines of the log{of or ' of the job'} are in the log of this task (stream_logs)."]
        return [*lines, *evidence((), console_url)]
    lines = [f"Last lines of the log{of}:", *(f"  | {line}" for line in log_lines)] if log_lines else []
    return [*lines, f"Console: {console_url}"] if console_url else lines


def tolerated(what: str, failed: Sequence[int], size: int, count: int, percentage: float) -> str:
    """Return the log line of an array or a map that succeeds although parts of it have failed.

    :param what: its name, such as ``Batch job resize (4c75…)``.
    :param failed: the indexes of the children or items that failed.
    :param size: how many it has.
    :param count, percentage: how many may fail, see ``jobs.array.Tolerance``.
    """
    which = index_ranges(failed)
    shown = which if len(which) <= INDEXES_SHOWN else f"{which[:INDEXES_SHOWN]}…"
    limits = {"tolerated_failure_count": count, "tolerated_failure_percentage": percentage}
    allowed = ", ".join(f"{name}={value:g}" for name, value in limits.items() if value)
    return f"{what}: {len(failed)} of {size} failed ({shown}). {allowed} tolerates this, so the task succeeds."


def map_failure(
    noun: str,
    name: str,
    reason: str,
    diagnosis: Diagnosis | None,
    *,
    failed: Sequence[int],
    children: Sequence[ChildFailure],
    log_lines: Sequence[str] = (),
    log_is_copied: bool = False,
) -> str:
    """Return the message of a failed map: how many items failed, which, why, and the most significant of them.

    :param noun: what the items' jobs are called: ``Batch job``.
    :param name: of the map.
    :param reason: the map's counts as a text.
    :param diagnosis: why it failed; None if nothing is known about the items.
    :param failed: the indexes of the items that failed or were stopped.
    :param children: the failed items as they were last described, the most significant first.
    :param log_lines: the last lines of the first item's log. Default none.
    :param log_is_copied: as for ``failure``.
    """
    lines = [f"Map {name} of {noun}s failed: {reason}."]
    lines += [f"Why: {diagnosis}"] if diagnosis else []
    lines += [f"Failed items ({len(failed)}): {index_ranges(failed)}", *_failed(children)]
    of = f" of [{children[0].index}]" if children else ""
    return "\n".join([*lines, *evidence(log_lines, of=of, is_copied=log_is_copied)])


def _failed(children: Sequence[ChildFailure]) -> list[str]:
    """Return the lines about failed children or items: how many have each cause, if several, and the first ones."""
    counts = count_by_cause(diagnoses(child.snapshot for child in children))
    by_cause = ", ".join(f"{count} {cause}" for cause, count in counts.items())
    lines = [f"By cause: {by_cause}"] if len(counts) > 1 else []
    shown = children[:CHILDREN_SHOWN]
    for child in shown:
        line = f"  [{child.index}]{_how(child.snapshot)}: {_why(child.snapshot)}"
        lines.append(f"{sentence(line)} {child.not_started_again}" if child.not_started_again else line)
    return lines


def _how(snapshot: Snapshot) -> str:
    if snapshot.status in NEVER_SEEN:
        return NEVER_SEEN[snapshot.status]
    parts = []
    if snapshot.attempt:
        parts.append(f" on attempt {snapshot.attempt} of {snapshot.max_attempts}")
    if snapshot.exit_code is not None:
        parts.append(f" with exit code {snapshot.exit_code}")
    return "".join(parts)


def _reasons(snapshot: Snapshot) -> list[str]:
    """Return AWS's reasons, the container's first, without one that only repeats the other."""
    reasons = [reason.strip() for reason in (snapshot.container_reason, snapshot.reason) if reason and reason.strip()]
    if len(reasons) == 2:  # noqa: PLR2004
        container, job = (_normalized(reason) for reason in reasons)
        reasons = reasons[:1] if job in container else reasons[1:] if container in job else reasons
    return reasons


def _normalized(reason: str) -> str:
    """Normalize a reason for comparison: AWS truncates some, and ends only some with a full stop."""
    return " ".join(reason.removesuffix("...").rstrip(".…").split()).lower()


def _why(snapshot: Snapshot) -> str:
    reasons = "; ".join(_reasons(snapshot))
    if snapshot.status in NEVER_SEEN:  # a diagnosis would add nothing
        return reasons
    diagnosis = diagnose(snapshot)
    return ": ".join(filter(None, [diagnosis.summary if diagnosis else "", reasons]))
