"""Retries that change the job: what the next attempt gets, because earlier ones have failed.

``jobs.changes`` computes it. This module finds the failed jobs at the start of a try, and says at its end what the next
try changes.

The attempt's record has an entry for each change, as the outcome shows it. Without a record, as on Airflow 3.2, they
are computed from the failed jobs of all tries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.exceptions import JobFailed, JobFailedFinally, JobflowError, SubmissionError
from airflow_jobflow.jobs.changes import CAUSES, QUANTITIES, Change, Changes
from airflow_jobflow.operators import exit_codes

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec

LETTERS: Final = {cause.name: letter for letter, cause in CAUSES.items()}
"""The letter of each cause, by its name in an entry."""


def history(changes: Sequence[Mapping[str, Any]]) -> str:
    """Return the history of a job: see ``jobs.changes``.

    :param changes: the entries for its changes.
    """
    return "".join(LETTERS[each["cause"]] for each in changes)


def values_of(changes: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that an attempt gets in place of the operator's.

    :param changes: the entries for all changes so far, oldest first.
    :param given: the operator's own parameters. An amount that is larger there stays: somebody has raised it since.
    """
    changed = {name: value for each in changes for name, value in each["changed"].items()}
    amounts = {name: max(changed[name], given[name]) for name in QUANTITIES if name in changed and name in given}
    return changed | amounts


def follow(execution: Execution[JobSpec], failed: Sequence[Snapshot]) -> None:
    """Add to the attempt what the next job changes, because those of earlier attempts have failed.

    :param execution: the execution of the operator; its record has the last attempt.
    :param failed: the last snapshots of the failed jobs, oldest first. If the record has changes already, only the
        newest counts.
    :raises SubmissionError: the failed children of an array cannot be listed.
    """
    rules, attempt = execution.spec.changes, execution.record.attempt
    if not rules:  # somebody has removed them since the last try
        attempt.changes, attempt.part_changes = [], []
    if not rules or (execution.spec.changes_children and attempt.size):
        return
    for job in failed[-1:] if attempt.changes else failed:
        if job.job_id == attempt.changed_after:  # the last try ended before it had started the changed job
            continue
        add_change(rules, attempt, job, execution.log, _children(execution, job))


def add_change(
    rules: Changes, attempt: Attempt, last: Snapshot, log: logging.Logger, children: Sequence[Snapshot] = ()
) -> None:
    """Add to an attempt what the next one changes, and log it.

    :param rules: the rules.
    :param attempt: the attempt.
    :param last: the last snapshot of its failed job.
    :param log: the task's log.
    :param children: for an array, its failed children. Default none.
    """
    change, _ = next_change(rules, attempt.changes, last, children)
    attempt.changed_after = last.job_id
    if change:
        attempt.changes = [*attempt.changes, change]
        log.info("Attempt %d: %s (%s)", change["attempt"], change["text"], last.job_id)


def without_capacity(execution: Execution[JobSpec], why: str) -> dict[str, Any] | None:
    """Add to an attempt what the next one changes, because AWS had no capacity for it, so that there is no failed job.

    :param execution: the execution of the operator.
    :param why: what happened, for the text.
    :return: the entry; None if there is no rule, or it was applied before.
    """
    found, attempt = execution.spec.changes.without_capacity(why), execution.record.attempt
    of_children = execution.spec.changes_children and attempt.size
    parts = (attempt.part_changes or [[]] * max(1, len(attempt.parts))) if of_children else [attempt.changes]
    if not found or all("c" in history(each) for each in parts):
        return None
    change = found.to_dict(len(attempt.changes) + 2)
    if of_children:
        attempt.part_changes = [each if "c" in history(each) else [*each, change] for each in parts]
    attempt.changes = [*attempt.changes, change]
    execution.log.info("Attempt %d: %s", change["attempt"], found.text)
    return change


def after_queue_timeout(execution: Execution[JobSpec], error: JobflowError) -> JobflowError:
    """Return the exception for a job that was stopped in its queue; it says what the next try changes.

    :param execution: the execution of the operator.
    :param error: the exception.
    """
    record = execution.record
    if record.store is None or not record.attempt.abandoned:  # the next try would not know it, or waits for the job
        return error
    change = without_capacity(execution, "the job did not leave its queue in time")
    record.save_if_possible()
    return _with_change(error, change) if change else error


def next_change(
    rules: Changes, changes: Sequence[Mapping[str, Any]], last: Snapshot, children: Sequence[Snapshot] = ()
) -> tuple[dict[str, Any] | None, str]:
    """Return the entry for what the next attempt changes, or a sentence that says that nothing is left to change.

    :param rules: the rules.
    :param changes: the entries so far.
    :param last: the last snapshot of the failed attempt.
    :param children: for an array, its failed children. Default none.
    :return: None and an empty text if no rule applies.
    """
    letter = rules.cause(last, children)
    if not letter:
        return None, ""
    found = rules.after(history(changes) + letter, last, children)
    return (found.to_dict(len(changes) + 2), "") if isinstance(found, Change) else (None, found.text)


def _children(execution: Execution[JobSpec], job: Snapshot) -> list[Snapshot]:
    """Return the failed children of an array, as they are listed; none for a single job."""
    from airflow_jobflow.faults import CallError
    from airflow_jobflow.jobs import batch

    if not job.array:
        return []
    try:
        return [each.snapshot for each in execution.jobs.call(batch.failed_and_stopped, job.job_id)]
    except CallError as error:
        raise SubmissionError(
            f"Nothing was started, because the failed children of {job.name} ({job.job_id}) could not be listed "
            f"(connection: {execution.jobs.origin}): {error}"
        ) from error


JobOutcomes = Sequence[tuple["Outcome", JobflowError | None]]


def with_changes(execution: Execution[JobSpec], ended: Sequence[Snapshot], built: JobOutcomes) -> JobOutcomes:
    """Return the outcome with the changes so far; if the job failed, the exception says what the next try changes.

    :param execution: the execution of the operator.
    :param ended: the last snapshots of the jobs.
    :param built: the outcome, and the exception if it failed.
    """
    spec, attempt = execution.spec, execution.record.attempt
    if not spec.changes:
        return built
    return [_with_changes(execution, attempt, ended, *each) for each in built]


def _with_changes(
    execution: Execution[JobSpec],
    attempt: Attempt,
    ended: Sequence[Snapshot],
    outcome: Outcome,
    error: JobflowError | None,
) -> tuple[Outcome, JobflowError | None]:
    outcome = replace(outcome, changes=attempt.changes or None)
    if not isinstance(error, JobFailed):
        return outcome, error
    error.outcome = outcome.to_dict()
    if exit_codes.decided(execution.given, error):  # no try follows
        return outcome, error
    spec, children = execution.spec, execution.jobs.outcome_builder.children
    if spec.changes_children and attempt.size:
        from airflow_jobflow.operators.batch_redrive import next_of_children

        change, at_maximum = next_of_children(spec.changes, ended, attempt, children, execution.tolerance)
    else:
        change, at_maximum = next_change(spec.changes, attempt.changes, ended[0], list(children.values()))
        if change:  # AWS may not describe the failed job any more when the next try begins
            attempt.changes, attempt.changed_after = [*attempt.changes, change], ended[0].job_id
            execution.record.save_if_possible()
    if change:
        return outcome, _with_change(error, change)
    if at_maximum:
        more: Any = {"outcome": error.outcome, "diagnosis": error.diagnosis, "log_lines": error.log_lines}
        return outcome, JobFailedFinally(f"{error}\n{at_maximum}", **more)
    return outcome, error


def _with_change(error: JobflowError, change: dict[str, Any]) -> JobflowError:
    """Return an exception that says what the next attempt changes."""
    text = f"{error}\nThe next attempt: {change['text']}."
    return type(error)(text, outcome=error.outcome, diagnosis=error.diagnosis, change=change, log_lines=error.log_lines)
