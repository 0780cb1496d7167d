"""Where ECS places a task: what it needs, and which container instance fits, as pure functions of plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_jobflow.jobs.fargate_sizes import CPU, MEMORY, units
from airflow_jobflow.local.ecs.model import overridden

Json = dict[str, Any]

DISTINCT: Final = "distinctInstance"

TERM: Final = re.compile(
    r"(?P<subject>attribute:[\w./-]+|ec2InstanceId)\s*"
    r"(?P<operator>==|!=|=~|!~|\b(?:equals|not_equals|matches|not_matches|in|not_in|exists|!exists)\b|!exists)"
    r"\s*(?P<value>\[[^\]]*\]|\S+)?"
)
"""One term of the cluster query language, as far as the local AWS supports it."""
NEGATIVE: Final = {"!=": "==", "not_equals": "==", "!~": "=~", "not_matches": "=~", "not_in": "in", "!exists": "exists"}
"""The operators that negate another one."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a task needs, or an instance has free: CPU units, MiB and GPUs."""

    cpu: int
    memory: int
    gpus: int

    def lacking(self, needed: Resources) -> str | None:
        """Return the reason for which a task does not fit, or None.

        :param needed: what the task needs.
        """
        pairs = {"CPU": (self.cpu, needed.cpu), "MEMORY": (self.memory, needed.memory), "GPU": (self.gpus, needed.gpus)}
        return next((f"RESOURCE:{name}" for name, (free, wanted) in pairs.items() if wanted > free), None)


@dataclass(frozen=True, slots=True)
class Host:
    """A container instance.

    :param arn, instance_id: its ARN, and the id of its EC2 instance.
    :param attributes: the values of its attributes, by name.
    :param free: its free resources.
    :param groups: the groups of the tasks that it runs.
    """

    arn: str
    instance_id: str
    attributes: Mapping[str, str | None]
    free: Resources
    groups: Sequence[str]


def needed(definition: Mapping[str, Any], overrides: Mapping[str, Any]) -> Resources:
    """Return what a task needs: its own size, or else that of its containers.

    :param definition: the task definition.
    :param overrides: the overrides of the task.
    """
    containers = [overridden(each, overrides) for each in definition["containerDefinitions"]]
    cpu, memory = (overrides.get(name) or definition.get(name) for name in ("cpu", "memory"))
    gpus = (
        int(each["value"])
        for container in containers
        for each in container.get("resourceRequirements", ())
        if each["type"] == "GPU"
    )
    return Resources(
        units(CPU, cpu) if cpu else sum(each.get("cpu", 0) for each in containers),
        units(MEMORY, memory)
        if memory
        else sum(each.get("memoryReservation") or each.get("memory") or 0 for each in containers),
        sum(gpus),
    )


def choose(
    hosts: Sequence[Host],
    wanted: Resources,
    constraints: Sequence[Mapping[str, str]],
    strategy: Sequence[Mapping[str, str]],
    group: str,
) -> tuple[str | None, list[Json]]:
    """Return the ARN of the instance for a task, or None and a failure for each instance.

    The first element of a strategy decides. ``random`` and the default are ``spread``, so that a test is repeatable.

    :param hosts: the instances of the cluster that may run it.
    :param wanted: what it needs.
    :param constraints: its placement constraints.
    :param strategy: its placement strategy.
    :param group: its task group.
    :raises ValueError: an expression is invalid, or not supported here.
    """
    reasons = {host.arn: _unfit(host, wanted, constraints, group) for host in hosts}
    fitting = [host for host in hosts if reasons[host.arn] is None]
    if not fitting:
        return None, [{"arn": arn, "reason": reason} for arn, reason in reasons.items()]
    first = strategy[0] if strategy else {}
    if first.get("type") == "binpack":
        return min(fitting, key=lambda host: getattr(host.free, first.get("field", "memory").lower())).arn, []
    return min(fitting, key=lambda host: len(host.groups)).arn, []


def _unfit(host: Host, wanted: Resources, constraints: Sequence[Mapping[str, str]], group: str) -> str | None:
    for constraint in constraints:
        if constraint.get("type") == DISTINCT:
            if group in host.groups:
                return "DistinctInstance placement constraint unsatisfied."
        elif not is_member(host, constraint.get("expression", "")):
            return "MemberOf placement constraint unsatisfied."
    return host.free.lacking(wanted)


def is_member(host: Host, expression: str) -> bool:
    """Return whether an instance matches an expression of ``memberOf``: terms joined by ``and``.

    :param host: the instance.
    :param expression: the expression.
    :raises ValueError: it is invalid, or not supported here.
    """
    terms = [TERM.fullmatch(term.strip()) for term in re.split(r"\s+and\s+", expression)]
    if None in terms:
        raise ValueError(
            f"The local AWS does not support the expression {expression!r}: it takes terms such as "
            "'attribute:ecs.instance-type == m5.xlarge', joined by 'and'"
        )
    return all(_holds(host, term) for term in terms if term)


def _holds(host: Host, term: re.Match[str]) -> bool:
    subject, operator, value = term["subject"], term["operator"], (term["value"] or "").strip("\"'")
    actual = host.instance_id
    if subject != "ec2InstanceId":
        actual = host.attributes.get(subject.partition(":")[2]) or ""
    base = {"equals": "==", "matches": "=~"}.get(operator, NEGATIVE.get(operator, operator))
    holds = {
        "==": lambda: actual == value,
        "=~": lambda: _matches(value, actual),
        "in": lambda: actual in [each.strip(" \"'") for each in value.strip("[]").split(",")],
        "exists": lambda: bool(actual),
    }[base]()
    return holds != (operator in NEGATIVE)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a valid pattern: {error}") from None
