"""Looks up, registers and deregisters the definitions of ``definitions.py``, on Batch and on ECS.

A tag says when a definition was last used. It is renewed at most once a day, when the definition is looked up. No other
source is reliable: AWS lists ended jobs for a few days only, and ended tasks for an hour.

This module relies on the following behaviour of AWS:

- Each registration makes a revision, even with the content of the previous one. Several workers that register at the
  same time make several revisions of the same content, of which all later starts use the newest. ECS may refuse some of
  them. That counts as throttling: the start is repeated, and its lookup finds a revision.
- A revision never changes; its tags do. Jobs of a deregistered revision run to their end.
- DescribeJobDefinitions lists all active revisions of a name. DescribeTaskDefinition returns the newest active one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, Final

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import definitions
from airflow_jobflow.jobs.calls import Call, member, pages
from airflow_jobflow.jobs.starting import concerns_tags

log = logging.getLogger(__name__)

MANAGED: Final = "airflow_jobflow_definition"
"""The tag of all definitions of this package. Its value is the name of the definition."""

LAST_USED: Final = "airflow_jobflow_last_used"
"""The tag with the date, in UTC, on which a definition was last used."""

ALSO_MATCHES: Final = "airflow_jobflow_also_matches"
"""The tag with the hash of the previous revision as AWS described it, if it did not match the request.

If AWS describes the new revision in the same way, AWS itself has changed the form, and the revision matches. Without
permission to tag, a revision is compared with the one before it instead.
"""

ACTIVE: Final = "ACTIVE"


@dataclass(frozen=True, slots=True)
class Revision:
    """An active revision of a definition.

    :param name: with the number, such as ``jobflow-busybox-0123456789abcdef:1``.
    :param arn: its ARN.
    :param content: the definition as AWS describes it; empty if it was just registered.
    :param tags: its tags.
    """

    name: str
    arn: str
    content: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Use(StrEnum):
    """Whether a definition is in use."""

    USED = "used"
    UNUSED = "unused"
    NOT_OURS = "not_ours"
    """It has no tags, or tags of another definition, so it is not known when it was used."""


def use_of(revision: Revision, today: date, unused_days: int) -> Use:
    """Return whether a definition is in use.

    :param revision: the revision.
    :param today: the date in UTC.
    :param unused_days: days since its last use from which on it counts as unused.
    """
    if revision.tags.get(MANAGED) != revision.name.rpartition(":")[0]:
        return Use.NOT_OURS
    try:
        last_used = date.fromisoformat(revision.tags.get(LAST_USED, ""))
    except ValueError:
        return Use.NOT_OURS
    return Use.UNUSED if (today - last_used).days >= unused_days else Use.USED


class Registry(ABC):
    """The definitions of a service."""

    @abstractmethod
    def newest(self, call: Call, name: str, *, before: int | None = None) -> Revision | None:
        """Return the newest active revision of a name, or None. One describe call.

        :param call: makes the API calls.
        :param name: of the definition, without a revision.
        :param before: a number of a revision, to return the one before it. Default None: the newest of all.
        :raises CallError: it cannot be described.
        """

    @abstractmethod
    def register(self, call: Call, request: Mapping[str, Any], tags: Mapping[str, str]) -> Revision:
        """Register a revision. One call.

        :param call: makes the API calls.
        :param request: the request, with the user's tags.
        :param tags: further tags.
        :raises CallError: it was not registered, or the response was lost.
        """

    @abstractmethod
    def tag(self, call: Call, arn: str, tags: Mapping[str, str]) -> None:
        """Set tags of a revision. One call.

        :param call: makes the API calls.
        :param arn: of the revision.
        :param tags: the tags.
        :raises CallError: they cannot be set.
        """

    @abstractmethod
    def active(self, call: Call) -> Iterator[Revision]:
        """Yield all active revisions whose names begin with ``definitions.PREFIX``.

        :param call: makes the API calls.
        :raises CallError: they cannot be listed.
        """

    @abstractmethod
    def deregister(self, call: Call, revision: Revision) -> None:
        """Deregister a revision. One call.

        :param call: makes the API calls.
        :param revision: the revision.
        :raises CallError: it cannot be deregistered.
        """


class BatchRegistry(Registry):
    """The job definitions of Batch. See ``Registry``."""

    def newest(self, call: Call, name: str, *, before: int | None = None) -> Revision | None:
        """Return the newest active revision of a name."""
        listed = pages(call, "describe_job_definitions", jobDefinitionName=name, status=ACTIVE)
        described = [
            each
            for page in listed
            for each in page["jobDefinitions"]
            if before is None or int(each["revision"]) < before
        ]
        found = max(described, key=lambda each: int(each["revision"]), default=None)
        return None if found is None else self._revision(found)

    def register(self, call: Call, request: Mapping[str, Any], tags: Mapping[str, str]) -> Revision:
        """Register a revision."""
        tagged = {**request, "tags": {**request.get("tags", {}), **tags}} if tags else request
        response = call("register_job_definition", **tagged)
        arn = str(member(response, "jobDefinitionArn", "RegisterJobDefinition"))
        return Revision(arn.rpartition("/")[2], arn)

    def tag(self, call: Call, arn: str, tags: Mapping[str, str]) -> None:
        """Set tags of a revision."""
        call("tag_resource", resourceArn=arn, tags=dict(tags))

    def active(self, call: Call) -> Iterator[Revision]:
        """Yield our active revisions. One call for each 100 job definitions of the account."""
        for page in pages(call, "describe_job_definitions", status=ACTIVE):
            for each in page["jobDefinitions"]:
                if each["jobDefinitionName"].startswith(definitions.PREFIX):
                    yield self._revision(each)

    def deregister(self, call: Call, revision: Revision) -> None:
        """Deregister a revision."""
        call("deregister_job_definition", jobDefinition=revision.arn)

    @staticmethod
    def _revision(described: Mapping[str, Any]) -> Revision:
        arn = described["jobDefinitionArn"]
        return Revision(arn.rpartition("/")[2], arn, described, described.get("tags") or {})


class EcsRegistry(Registry):
    """The task definitions of ECS. See ``Registry``."""

    def newest(self, call: Call, name: str, *, before: int | None = None) -> Revision | None:
        """Return the newest active revision of a family."""
        try:
            return self._described(call, name if before is None else f"{name}:{before - 1}")
        except CallError as error:
            if error.fault is not Fault.REJECTED or error.code != "ClientException":
                raise
            return None  # ECS has no code of its own for an unknown family

    def register(self, call: Call, request: Mapping[str, Any], tags: Mapping[str, str]) -> Revision:
        """Register a revision."""
        own = [*request.get("tags", ()), *({"key": key, "value": value} for key, value in tags.items())]
        response = call("register_task_definition", **request, **({"tags": own} if own else {}))
        arn = str(member(response, "taskDefinition", "RegisterTaskDefinition")["taskDefinitionArn"])
        return Revision(arn.rpartition("/")[2], arn)

    def tag(self, call: Call, arn: str, tags: Mapping[str, str]) -> None:
        """Set tags of a revision."""
        call("tag_resource", resourceArn=arn, tags=[{"key": key, "value": value} for key, value in tags.items()])

    def active(self, call: Call) -> Iterator[Revision]:
        """Yield our active revisions. One call for each, and some to list them."""
        listed = pages(call, "list_task_definition_families", familyPrefix=definitions.PREFIX, status=ACTIVE)
        for family in [each for page in listed for each in page["families"]]:
            for page in pages(call, "list_task_definitions", familyPrefix=family, status=ACTIVE):
                for arn in page["taskDefinitionArns"]:
                    yield self._described(call, arn)

    def deregister(self, call: Call, revision: Revision) -> None:
        """Deregister a revision."""
        call("deregister_task_definition", taskDefinition=revision.arn)

    @staticmethod
    def _described(call: Call, name: str) -> Revision:
        response = call("describe_task_definition", taskDefinition=name, include=["TAGS"])
        described = response["taskDefinition"]
        tags = {tag["key"]: tag.get("value", "") for tag in response.get("tags") or ()}
        arn = described["taskDefinitionArn"]
        return Revision(arn.rpartition("/")[2], arn, described, tags)


REGISTRIES: Final[Mapping[str, Registry]] = {"batch": BatchRegistry(), "ecs": EcsRegistry()}
"""The registry of each service."""


def find_or_register(call: Call, service: str, request: Mapping[str, Any], today: str) -> str:
    """Return the revision to use for a request, such as ``jobflow-busybox-0123456789abcdef:1``.

    It is looked up, and registered if there is none, or if the newest one has other content because somebody changed
    the definition. One call if there is one, two if not; a third once a day, to note that it is used.

    :param call: makes the API calls.
    :param service: ``batch`` or ``ecs``.
    :param request: the request to register it, as ``definitions.named`` returned it.
    :param today: the date in UTC, as in ISO 8601.
    :raises CallError: it cannot be looked up or registered.
    """
    registry, name = REGISTRIES[service], str(request[definitions.NAME[service]])
    found = registry.newest(call, name)
    tags = {MANAGED: name, LAST_USED: today}
    if found is not None:
        differing = definitions.differences(service, request, found.content)
        form = definitions.digest(definitions.comparable(service, found.content))
        if not differing or _is_form_of_aws(call, service, found, form):
            _note_use(call, registry, found, today)
            log.info("Using definition %s", found.name)
            return found.name
        log.warning(
            "Somebody changed definition %s: %s does not match the hash in its name. Registering a new revision",
            found.name,
            ", ".join(differing),
        )
        tags[ALSO_MATCHES] = form
    registered = _register(call, registry, request, tags)
    log.info("Registered definition %s", registered.name)
    return registered.name


def _is_form_of_aws(call: Call, service: str, revision: Revision, form: str) -> bool:
    """Return whether AWS described the revision before this one in the same form, so that it has changed both."""
    if MANAGED in revision.tags:
        return revision.tags.get(ALSO_MATCHES) == form
    name, _, number = revision.name.rpartition(":")
    previous = REGISTRIES[service].newest(call, name, before=int(number)) if number != "1" else None
    return previous is not None and definitions.digest(definitions.comparable(service, previous.content)) == form


def _register(call: Call, registry: Registry, request: Mapping[str, Any], tags: Mapping[str, str]) -> Revision:
    """Register a definition with our tags, or without them if the role may not tag."""
    try:
        return registry.register(call, request, tags)
    except CallError as error:
        if not concerns_tags(error):
            raise
        log.warning(
            "The definition is registered without tags, so it is never cleaned up: the role may not tag (%s)", error
        )
        return registry.register(call, request, {})


def _note_use(call: Call, registry: Registry, revision: Revision, today: str) -> None:
    """Renew the tag that says when a revision was last used. A failure is logged: it must not fail a start."""
    if MANAGED not in revision.tags or revision.tags.get(LAST_USED, "") >= today:
        return
    try:
        registry.tag(call, revision.arn, {LAST_USED: today})
    except CallError as error:
        log.warning("Could not update the last-used tag of %s: %s", revision.name, error)
