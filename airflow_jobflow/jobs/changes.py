"""What the next attempt of a job changes, by the cause for which the last one failed. Pure.

Nothing is counted or stored for that. What the next attempt gets is computed from three things:

- the rules, which the parameters ``on_out_of_memory``, ``on_capacity`` and ``on_timeout`` set,
- the job's history: one letter (``CAUSES``) for each attempt that failed for a cause with a rule, oldest first. The
  number of the next attempt is the length of the history plus one,
- the last snapshot of the failed attempt, which says what it had, also if only its definition decided that.

Invariant: what a cause has changed once stays changed, whatever the later attempts fail for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_jobflow.jobs import causes
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.fargate_sizes import SIZES
from airflow_jobflow.jobs.model import Snapshot

CPU_UNITS: Final = 1024
"""CPU units of a vCPU."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A kind of failure for which the next attempt may be changed.

    :param name: as users know it; ``on_<name>`` is the parameter.
    :param diagnoses: the causes in ``jobs.causes`` that belong to it.
    :param may_pass: whether an attempt that changes nothing may succeed.
    """

    name: str
    diagnoses: frozenset[str]
    may_pass: bool = False

    @property
    def parameter(self) -> str:
        """The parameter with its rule."""
        return f"on_{self.name}"


CAUSES: Final[Mapping[str, Cause]] = {
    "m": Cause("out_of_memory", frozenset({causes.OUT_OF_MEMORY.cause, causes.KILLED.cause})),
    "c": Cause(
        "capacity",
        frozenset(
            {each.cause for each in causes.BY_CAUSE.values() if each.blame is causes.Blame.CAPACITY}
            | {causes.SUBNET_FULL.cause}
        ),
        may_pass=True,
    ),
    "t": Cause("timeout", frozenset({causes.ATTEMPT_TIMED_OUT.cause})),
    "i": Cause("spot_interruption", frozenset({causes.SPOT_RECLAIMED.cause}), may_pass=True),
}
"""The causes, by their letter in a history. The first with a rule decides; a rule of ``on_capacity`` decides before
``on_spot_interruption``."""

MAX: Final = "max"
"""The key of a rule with the bound of its factor."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A parameter that a factor can change.

    :param unit: for messages.
    :param had: how much of it an attempt had; None if its snapshot does not say.
    :param step: a multiple of this is what a factor makes of it, unless Fargate's sizes decide. Default 1.
    """

    unit: str
    had: Callable[[Snapshot], float | None]
    step: int = 1


def _resource(unit: str, factor: int = 1) -> Callable[[Snapshot], float | None]:
    def had(last: Snapshot) -> float | None:
        amount = (last.resources or {}).get(unit)
        return None if amount is None else round(amount * factor, 4)

    return had


QUANTITIES: Final[Mapping[str, Quantity]] = {
    "memory": Quantity("MiB", _resource("gib", 1024)),
    "vcpus": Quantity("vCPUs", _resource("vcpu")),
    "cpu": Quantity("CPU units", _resource("vcpu", CPU_UNITS)),
    "attempt_timeout": Quantity("s", lambda last: last.attempt_timeout, step=60),  # Glue counts in minutes
}
"""The parameters that a factor can change."""

CPU_PARAMETERS: Final[Mapping[str, int]] = {"vcpus": CPU_UNITS, "cpu": 1}
"""The parameters that say how much CPU a job gets, each with the CPU units in one of its units."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the next attempt of a job changes.

    :param cause: the letter of the cause.
    :param values: our parameters that the attempt gets in place of the operator's, those of earlier attempts included.
    :param changed: those of them that differ from what the failed attempt had; empty if it is only repeated.
    :param text: what changes and why, for the log.
    """

    cause: str
    values: Mapping[str, Any]
    changed: Mapping[str, Any]
    text: str

    def to_dict(self, attempt: int) -> dict[str, Any]:
        """Return it as the outcome shows it: ``attempt``, ``cause``, ``changed`` and ``text``.

        :param attempt: the number of the attempt that has the change.
        """
        cause = CAUSES[self.cause].name
        return {"attempt": attempt, "cause": cause, "changed": dict(self.changed), "text": self.text}


@dataclass(frozen=True, slots=True)
class AtMaximum:
    """There is nothing left to change, so another attempt would fail like the last one.

    :param cause: the letter of the cause.
    :param text: why, as a sentence.
    """

    cause: str
    text: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The rules of one operator.

    :param rules: by letter of the cause, the value of each parameter, or ``x2`` for twice of what the failed attempt
        had; and ``max``, the bound of that. Default: none.
    :param cpu: the parameter that says how much CPU a job gets: ``vcpus`` or ``cpu``. Default ``vcpus``.
    """

    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cpu: str = "vcpus"

    def __bool__(self) -> bool:
        return bool(self.rules)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {"rules": {letter: dict(rule) for letter, rule in self.rules.items()}, "cpu": self.cpu}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Changes:
        """Return what ``to_dict`` returned. Unknown members are ignored; missing ones have defaults.

        :param data: the data; None for no rules.
        """
        members = data or {}
        rules = {letter: rule for letter, rule in members.get("rules", {}).items() if letter in CAUSES}
        return cls(rules, members.get("cpu", "vcpus"))

    def cause(self, last: Snapshot, children: Iterable[Snapshot] = ()) -> str:
        """Return the letter of the rule that applies to a job that has failed; empty if there is none.

        :param last: its last snapshot.
        :param children: for an array, its failed children.
        """
        diagnosis = diagnose(last, children=children) if self.rules else None
        found = diagnosis.cause if diagnosis else ""
        return next(
            (letter for letter, cause in CAUSES.items() if letter in self.rules and found in cause.diagnoses), ""
        )

    def after(self, history: str, last: Snapshot, children: Iterable[Snapshot] = ()) -> Change | AtMaximum:
        """Return what the next attempt of a job changes.

        :param history: the letters of its failed attempts, the newest included.
        :param last: the last snapshot of the newest failed attempt.
        :param children: for an array, its failed children, for the message.
        """
        newest, before = history[-1], history[:-1]
        why = _because(last, children)
        values: dict[str, Any] = {}
        for letter in [*dict.fromkeys(before.replace(newest, "")), newest]:
            of_rule = self._of_rule(letter, last, grows=letter == newest)
            if unknown := next((name for name, value in of_rule.items() if value is None), ""):
                return AtMaximum(newest, _unknown(letter, unknown))
            values |= of_rule
        if last.fargate:
            values |= self._fargate_size(values, last, self.rules[newest])
        values = {name: int(value) if _is_whole(value) else value for name, value in values.items()}
        changed = {name: value for name, value in values.items() if self._differs(name, value, newest, before, last)}
        if not changed and not CAUSES[newest].may_pass:
            return AtMaximum(newest, self._at_maximum(newest, last))
        what = ", ".join(described(name, value, last) for name, value in changed.items())
        return Change(newest, values, changed, f"{what or 'nothing changes'}, because {why}")

    def without_capacity(self, why: str) -> Change | None:
        """Return what ``on_capacity`` changes if there is no failed job, because AWS had no capacity to start one.

        :param why: what happened, for the text.
        :return: None if it sets nothing but factors.
        """
        rule = self.rules.get("c", {})
        fixed = {name: value for name, value in rule.items() if name != MAX and factor_of(value) is None}
        text = ", ".join(described(name, value) for name, value in fixed.items())
        return Change("c", fixed, fixed, f"{text}, because {why}") if fixed else None

    def _of_rule(self, letter: str, last: Snapshot, *, grows: bool) -> dict[str, Any]:
        """Return what one rule sets. What an earlier attempt has multiplied stays as the last one had it.

        :param grows: whether it is the rule of the newest failure, whose factor applies.
        :return: None for a parameter with a factor, if it is not known how much the job had.
        """
        rule, values = self.rules.get(letter, {}), {}
        for name, value in rule.items():
            factor = factor_of(value)
            if name == MAX:
                continue
            had = QUANTITIES[name].had(last) if name in QUANTITIES else None
            if factor is None:
                values[name] = (
                    value if had is None else max(value, had)
                )  # a definition, or an item of a map, may have more
            elif had is None or not grows:
                values[name] = had
            else:
                values[name] = max(had, min(self._grown(name, had * factor, last), rule.get(MAX, math.inf)))
        return values

    def _grown(self, name: str, amount: float, last: Snapshot) -> float:
        """Return an amount, rounded up to its step; one for which Fargate has sizes stays as it is."""
        step = QUANTITIES[name].step
        is_sized = last.fargate and name in (self.cpu, "memory")
        return amount if is_sized else math.ceil(round(amount / step, 4)) * step

    def _fargate_size(self, values: Mapping[str, Any], last: Snapshot, rule: Mapping[str, Any]) -> dict[str, Any]:
        """Return CPU and memory of the smallest size that Fargate has for what is asked for; empty if neither changes.

        If no size within the rule's ``max`` is large enough, it is the largest one.
        """
        if not values.keys() & {self.cpu, "memory"}:
            return {}
        units = CPU_PARAMETERS[self.cpu]
        had = [QUANTITIES[name].had(last) or 0.0 for name in (self.cpu, "memory")]
        cpu, memory = values.get(self.cpu, had[0]) * units, values.get("memory", had[1])
        bounded = next((name for name, value in rule.items() if factor_of(value) is not None and MAX in rule), None)
        most_cpu = rule[MAX] * units if bounded == self.cpu else math.inf
        most_memory = rule[MAX] if bounded == "memory" else math.inf
        sizes = [
            (each, mib)
            for each, of_cpu in SIZES.items()
            for mib in sorted(of_cpu)
            if had[0] * units <= each <= most_cpu and had[1] <= mib <= most_memory
        ]
        large_enough = [size for size in sizes if size[0] >= cpu and size[1] >= memory]
        if not sizes:
            return {self.cpu: had[0], "memory": had[1]}
        size = large_enough[0] if large_enough else max(sizes, key=lambda size: (size[1], -size[0]))
        return {self.cpu: size[0] / units, "memory": size[1]}

    def _differs(self, name: str, value: Any, newest: str, before: str, last: Snapshot) -> bool:
        """Return whether a value of the next attempt differs from what the last one had.

        A fixed value was set already if an earlier attempt failed for the same cause.
        """
        had = QUANTITIES[name].had(last) if name in QUANTITIES else None
        if had is not None:
            return bool(value != had)
        return name in self.rules[newest] and newest not in before

    def _at_maximum(self, letter: str, last: Snapshot) -> str:
        parameter, rule = CAUSES[letter].parameter, self.rules[letter]
        for name in (each for each in rule if each in QUANTITIES):
            quantity = QUANTITIES[name]
            most = f"the most that {parameter} allows"
            if last.fargate and MAX not in rule and factor_of(rule[name]) and name in (self.cpu, "memory"):
                most = "the most that Fargate has"
            amount = f"{quantity.had(last) or 0:,g} {quantity.unit}"
            return f"It already had {amount} ({name}), {most}, so it is not tried again."
        return f"{parameter} was applied before, and nothing is left to change, so it is not tried again."


def factor_of(value: Any) -> float | None:
    """Return the factor that a rule's value is; None if it is another value.

    :param value: such as ``x2`` or ``x1.5``.
    """
    if not isinstance(value, str) or not value.startswith("x"):
        return None
    try:
        factor = float(value[1:])
    except ValueError:
        return None
    return factor if math.isfinite(factor) else None


def _unknown(letter: str, name: str) -> str:
    parameter = CAUSES[letter].parameter
    return (
        f"{parameter} cannot be applied, because AWS does not say which {name} the job had. Give {parameter} a fixed "
        f"{name} instead of a factor."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def described(name: str, value: Any, last: Snapshot | None = None) -> str:
    """Return what one parameter changes to, such as ``memory from 2,048 to 4,096 MiB``.

    :param name: of the parameter.
    :param value: its new value.
    :param last: the last snapshot of the failed attempt. Default None: there is none.
    """
    if name not in QUANTITIES:
        return f"{name} to {value if isinstance(value, str) else json.dumps(value)}"
    quantity = QUANTITIES[name]
    had = quantity.had(last) if last else None
    start = "" if had is None else f"from {had:,g} "
    return f"{name} {start}to {value:,g} {quantity.unit}"


def _because(last: Snapshot, children: Iterable[Snapshot]) -> str:
    diagnosis = diagnose(last, children=children)
    summary = diagnosis.summary if diagnosis else "the last attempt failed"
    return summary if summary[:2].isupper() else summary[0].lower() + summary[1:]
