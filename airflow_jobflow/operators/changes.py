"""Retries that change the job: what the parameters ``on_out_of_memory``, ``on_capacity`` and ``on_timeout`` say.

``jobs.changes`` computes what an attempt gets. This module validates the parameters, finds the failed job at the start
of a retry, and says at the end of a try what the next one changes.

The attempt's record has an entry for each change, as the outcome shows it. Without a record, as on Airflow 3.2, they
are computed from the failed jobs of all tries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params_json
from airflow_jobflow.exceptions import (
    InvalidParameter,
    JobFailed,
    JobFailedFinally,
    JobflowError,
    SubmissionError,
    invalid_parameter,
)
from airflow_jobflow.jobs.changes import CAUSES, MAX, QUANTITIES, Change, Changes, factor_of
from airflow_jobflow.params import Parameter, ParameterTable

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec

PARAMETERS: Final = {CAUSES[letter].parameter: Parameter("", params_json.change_rule) for letter in "mct"}
"""The parameters with the rules, for the tables of the operators."""

LETTERS: Final = {cause.name: letter for letter, cause in CAUSES.items()}
"""The letter of each cause, by its name in an entry."""

NEEDS_STORE: Final = ("job_queue", "cluster")
"""Parameters that say where a job is found. A later try knows what they were only from the task state store."""


def changes_of(
    values: Mapping[str, Any],
    table: ParameterTable,
    changeable: Sequence[str],
    check: Callable[[Mapping[str, Any]], object] = lambda _: None,
) -> Changes:
    """Return the rules in the parameters of an operator.

    :param values: its validated parameters.
    :param table: their table, by which the values in the rules are validated.
    :param changeable: the parameters that a rule may set.
    :param check: is called with what each rule sets, sizes left out, and raises InvalidParameter if that contradicts
        other parameters. Default: nothing is checked.
    :raises InvalidParameter: a rule is wrong, or contradicts another one.
    """
    rules: dict[str, dict[str, Any]] = {}
    names = [name for name in changeable if name in table]
    for letter, cause in CAUSES.items():
        if cause.parameter in PARAMETERS and cause.parameter in values:
            rules[letter] = _validated(cause.parameter, values[cause.parameter], values, table, names)
    _reject_conflicts(rules, values)
    for letter, rule in rules.items():
        fixed = {name: value for name, value in rule.items() if name not in (*QUANTITIES, MAX)}
        try:
            check(fixed)
        except InvalidParameter as error:
            raise invalid_parameter(CAUSES[letter].parameter, rule, f"cannot be applied: {error}") from error
    return Changes(rules, "vcpus" if "vcpus" in names else "cpu")


def _validated(
    parameter: str, rule: Mapping[str, Any], values: Mapping[str, Any], table: ParameterTable, names: Sequence[str]
) -> dict[str, Any]:
    """Return a rule with its values converted to their types."""
    validated: dict[str, Any] = {}
    for name, value in rule.items():
        if name not in (*names, MAX):
            why = f"{name!r} cannot be changed; it may set {', '.join(names)}, and {MAX} for a factor"
            raise invalid_parameter(parameter, dict(rule), why)
        if name != MAX:
            validated[name] = _value(f"{parameter}[{name!r}]", name, value, values, table)
    if MAX in rule:
        label, factors = f"{parameter}[{MAX!r}]", [name for name in validated if factor_of(rule[name]) is not None]
        if len(factors) != 1:
            how_many = "more than one" if factors else "none"
            raise invalid_parameter(
                label, rule[MAX], f"bounds one factor, such as {{'memory': 'x2'}}, and there is {how_many}"
            )
        validated[MAX] = _amount(label, factors[0], rule[MAX], values, table)
    return validated


def _value(label: str, name: str, value: Any, values: Mapping[str, Any], table: ParameterTable) -> Any:
    """Return the value of one parameter in a rule, converted to its type."""
    factor = factor_of(value)
    if name not in QUANTITIES:
        if factor is not None:
            can = ", ".join(each for each in table if each in QUANTITIES)
            raise invalid_parameter(label, value, f"a factor applies only to {can}")
        return table[name].check(label, value)
    if factor is None:
        return _amount(label, name, value, values, table)
    if factor <= 1:
        raise invalid_parameter(label, value, "a factor must be above 1")
    return value


def _amount(label: str, name: str, value: Any, values: Mapping[str, Any], table: ParameterTable) -> Any:
    """Return an amount, which must not be less than what the first attempt gets."""
    try:
        amount = table[name].check(label, value)
    except InvalidParameter as error:
        hint = "" if label.endswith(f"[{MAX!r}]") else ", or a factor such as 'x2'"
        raise InvalidParameter(f"{error}{hint}") from error
    if name in values and amount < values[name]:
        raise invalid_parameter(label, value, f"is less than {name}={values[name]}, which the first attempt gets")
    return amount


def _reject_conflicts(rules: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> None:
    """Reject rules of which it is not clear which one decides."""
    for (one, rule), (other, another) in combinations(rules.items(), 2):
        for name in (each for each in rule if each in another and each != MAX):
            both_factors = factor_of(rule[name]) is not None and factor_of(another[name]) is not None
            if rule[name] != another[name] and not both_factors:
                why = f"{CAUSES[one].parameter} sets {name} to {rule[name]!r}; give both the same value, or only one"
                raise invalid_parameter(f"{CAUSES[other].parameter}[{name!r}]", another[name], why)
    interruption = values.get("on_spot_interruption", "retry")
    if "c" in rules and interruption != "retry":
        why = "on_capacity is also given, and says what follows when AWS takes Spot capacity back; leave this one out"
        raise invalid_parameter("on_spot_interruption", interruption, why)


def check(task: Any, rules: Changes) -> None:
    """Reject rules that have no effect, because no later try of the task finds the failed job.

    :param task: the operator, after rendering.
    :param rules: its rules.
    :raises InvalidParameter: there are such rules.
    """
    why = {
        "durable": "because a retry has to find the failed job",
        "wait_for_completion": "because a task that does not wait does not know how its job failed",
        "raise_on_failure": "because a task that does not fail is not retried",
    }
    for name, reason in why.items():
        if rules and not getattr(task, name):
            parameters = ", ".join(CAUSES[letter].parameter for letter in rules.rules)
            raise invalid_parameter(name, False, f"must be True with {parameters}, {reason}")


def check_store(execution: Execution[Any]) -> None:
    """Reject rules that change where the job is found, if Airflow has no task state store.

    :param execution: the execution of the operator, whose try has begun.
    :raises InvalidParameter: there is such a rule.
    """
    rules: Changes = execution.spec.changes
    for letter, rule in rules.rules.items() if execution.record.store is None else ():
        for name in (each for each in NEEDS_STORE if each in rule):
            why = (
                f"needs Airflow 3.3: without its task state store, a retry does not know which {name} the job of the "
                "try before used"
            )
            raise invalid_parameter(f"{CAUSES[letter].parameter}[{name!r}]", rule[name], why)


def history(changes: Sequence[Mapping[str, Any]]) -> str:
    """Return the history of a job: see ``jobs.changes``.

    :param changes: the entries for its changes.
    """
    return "".join(LETTERS[each["cause"]] for each in changes)


def values_of(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters that an attempt gets in place of the operator's.

    :param changes: the entries for all changes so far, oldest first.
    """
    return {name: value for each in changes for name, value in each["changed"].items()}


def follow(execution: Execution[JobSpec], failed: Sequence[Snapshot]) -> None:
    """Add to the attempt what the next job changes, because those of earlier attempts have failed.

    :param execution: the execution of the operator; its record has the last attempt.
    :param failed: the last snapshots of the failed jobs, oldest first. If the record has changes already, only the
        newest counts.
    :raises SubmissionError: the failed children of an array cannot be listed.
    """
    rules, attempt = execution.spec.changes, execution.record.attempt
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
        return [each.snapshot for each in execution.jobs.call(batch.failed_children, job.job_id)]
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
    spec, children = execution.spec, execution.jobs.outcome_builder.children
    if spec.changes_children and attempt.size:
        from airflow_jobflow.operators.batch_redrive import next_of_children

        change, at_maximum = next_of_children(spec.changes, ended, attempt, children)
    else:
        change, at_maximum = next_change(spec.changes, attempt.changes, ended[0], list(children.values()))
        if change:  # AWS may not describe the failed job any more when the next try begins
            attempt.changes, attempt.changed_after = [*attempt.changes, change], ended[0].job_id
            execution.record.save_if_possible()
    if change:
        text = f"{error}\nThe next attempt: {change['text']}."
        return outcome, JobFailed(text, outcome=outcome.to_dict(), diagnosis=error.diagnosis, change=change)
    if at_maximum:
        text = f"{error}\n{at_maximum}"
        return outcome, JobFailedFinally(text, outcome=outcome.to_dict(), diagnosis=error.diagnosis)
    return outcome, type(error)(str(error), outcome=outcome.to_dict(), diagnosis=error.diagnosis)
