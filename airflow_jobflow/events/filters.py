"""Which state changes an asset watcher wants. Pure, and light to import: DAG files import it.

Invariant: a filter that could never match is rejected when it is created, so that a DAG never waits for it silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.events.state_change import END_STATES

EVENT_STATUSES = {
    "batch": ("PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"),
    "ecs": (
        *("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"),
        *("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"),
    ),
    "glue_run": (
        *("WAITING", "STARTING", "RUNNING", "STOPPING"),
        *("STOPPED", "SUCCEEDED", "FAILED", "ERROR", "TIMEOUT", "EXPIRED"),
    ),
    "glue_crawl": ("STARTED", "SUCCEEDED", "FAILED", "STOPPED"),
}
"""The statuses in each service's events. Batch sends no event for SUBMITTED. A test checks them against the services'
status tables."""

ARRAY_CHOICES = ("all", "parents", "children")

SERVICES_WITH = {
    "job_queue": ("batch", "ecs"),
    "job_definition": ("batch", "ecs"),
    "job_name": ("batch", "glue_run", "glue_crawl"),
    "array": ("batch",),
}
"""The services whose events have what a filter compares."""

PARENT_STATUSES = {"PENDING", *END_STATES}
"""The statuses of an array parent: it is PENDING until its last child has ended."""

ARN_TYPES = {"job_queue": ("job-queue", "cluster"), "job_definition": ("job-definition", "task-definition")}
"""The resource types whose ARNs a filter accepts. The other filters accept no ARN."""


@dataclass(frozen=True)
class Filter:
    """Which state changes are wanted: those that match every parameter that is not empty.

    Names match exactly, or as prefixes if they end in ``*``.

    :param service: our names of services, such as ``batch``.
    :param job_queue: names or ARNs of Batch job queues or ECS clusters.
    :param job_definition: names or ARNs of Batch job definitions or ECS task definitions. Without a revision, all
        revisions match.
    :param job_name: names of Batch jobs, Glue jobs or Glue crawlers.
    :param status: the service's statuses, or ``SUCCEEDED`` and ``FAILED``, which match any successful or failed end.
    :param array: ``parents``: only array parents; ``children``: only their children; ``all``: these and all other jobs.
    :raises ValueError: it could never match; the message says why.
    """

    service: Collection[str] = ()
    job_queue: Collection[str] = ()
    job_definition: Collection[str] = ()
    job_name: Collection[str] = ()
    status: Collection[str] = ()
    array: str = "all"

    def __post_init__(self) -> None:
        """Reject a filter that could never match."""
        if self.array not in ARRAY_CHOICES:
            raise ValueError(f"array={self.array!r}: must be one of {', '.join(ARRAY_CHOICES)}")
        services = self._services()
        statuses = {status for service in services for status in EVENT_STATUSES[service]} | set(END_STATES)
        if self.array == "parents":
            services, statuses = ["array parents"], PARENT_STATUSES
        for status in self.status:
            if status.upper() not in statuses:
                known = f"the statuses of {' and '.join(services)} are {', '.join(sorted(statuses))}"
                raise ValueError(f"status={status!r}: no event would ever match it: {known}")
        for name in ("job_queue", "job_definition", "job_name"):
            for value in getattr(self, name):
                if problem := _why_no_match(value, ARN_TYPES.get(name, ())):
                    raise ValueError(f"{name}={value!r}: no name would ever match it; {problem}")

    def _services(self) -> list[str]:
        """Return the services whose jobs can match.

        :raises ValueError: there is none, or a parameter cannot apply to one that ``service`` names.
        """
        if unknown := [each for each in self.service if each not in EVENT_STATUSES]:
            raise ValueError(f"service={unknown[0]!r}: must be one of {', '.join(EVENT_STATUSES)}")
        possible = [each for each in EVENT_STATUSES if not self.service or each in self.service]
        for name, applicable in SERVICES_WITH.items():
            value = getattr(self, name)
            if not value or value == "all":
                continue
            possible = [each for each in possible if each in applicable]
            if not possible or not set(self.service) <= set(possible):
                raise ValueError(
                    f"{name}={value!r}: no event would ever match it: only events of {', '.join(applicable)} have it, "
                    f"and the other filters allow only {', '.join(self.service) or 'other services'}"
                )
        return possible

    def matches(self, job: Mapping[str, Any]) -> bool:
        """Return whether a state change is wanted.

        :param job: as ``state_change.job_payload`` returns it.
        """
        array = job["array"] or {}
        return (
            (not self.service or job["service"] in self.service)
            and (not self.status or not {job["status"].upper(), job["state"]}.isdisjoint(map(str.upper, self.status)))
            and (self.array == "all" or ("size" if self.array == "parents" else "index") in array)
            and _any_matches(self.job_queue, _arn_and_name(job["queue"]))
            and _any_matches(self.job_definition, _also_without_revision(_arn_and_name(job["definition"])))
            and _any_matches(self.job_name, {job["name"]})
        )


def _why_no_match(pattern: str, arn_types: Collection[str]) -> str | None:
    """Return why no name or ARN can match a pattern; None if one can."""
    if not pattern or "*" in pattern[:-1]:
        return "'*' may only stand at the end"
    if "{{" in pattern or "{%" in pattern:
        return "templates are not rendered here"
    if (
        pattern.startswith("arn:")
        and not pattern.endswith("*")
        and not any(f":{each}/" in pattern for each in arn_types)
    ):
        return f"it is no ARN of a {' or a '.join(arn_types)}" if arn_types else "it is an ARN, not a name"
    return None


def _any_matches(patterns: Collection[str], names: Iterable[str]) -> bool:
    """Return whether a name matches a pattern, or there are no patterns."""
    return not patterns or any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns for name in names
    )


def _arn_and_name(arn: object) -> set[str]:
    """Return an ARN and the name in it; empty if the job has none."""
    return {arn, arn.rpartition("/")[2]} if isinstance(arn, str) else set()


def _also_without_revision(names: set[str]) -> set[str]:
    """Return names of definitions, and the same without their revisions."""
    return names | {name.rpartition(":")[0] for name in names if name.rpartition(":")[2].isdecimal()}
