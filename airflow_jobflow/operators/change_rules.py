"""The parameters ``on_out_of_memory``, ``on_capacity`` and ``on_timeout``: what a retry changes, validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params_json
from airflow_jobflow.exceptions import InvalidParameter, invalid_parameter
from airflow_jobflow.jobs.changes import CAUSES, MAX, QUANTITIES, Changes, factor_of
from airflow_jobflow.params import Parameter, ParameterTable

if TYPE_CHECKING:
    from airflow_jobflow.operators.execution import Execution

PARAMETERS: Final = {CAUSES[letter].parameter: Parameter("", params_json.change_rule) for letter in "mct"}
"""The parameters with the rules, for the tables of the operators."""

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
