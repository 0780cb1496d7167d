"""Definitions are looked up before they are registered, and what a person changed is noticed."""

from __future__ import annotations

import logging

import pytest

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import definitions, registration
from airflow_jobflow.jobs.registration import ALSO_MATCHES, LAST_USED, MANAGED, REGISTRIES, find_or_register
from tests.unit.jobs.scripted_calls import refused
from tests.unit.jobs.scripted_definitions import Registered

TODAY = "2026-11-28"
REQUESTS = {
    "batch": definitions.named("batch", definitions.batch_definition("i", platform="EC2", vcpus=1, memory=2048)),
    "ecs": definitions.named("ecs", definitions.task_definition("i", cpu=256, memory=512, region="eu-west-1")),
}
NAMES = {service: request[definitions.NAME[service]] for service, request in REQUESTS.items()}

SERVICES = pytest.mark.parametrize("service", ["batch", "ecs"])


@SERVICES
def test_a_thousand_starts_register_one_revision(service: str) -> None:
    """What is there is used."""
    aws = Registered()
    found = {find_or_register(aws, service, REQUESTS[service], TODAY) for _ in range(1000)}
    assert found == {f"{NAMES[service]}:1"}
    assert len(aws.definitions) == 1
    assert sum(call.startswith("register") for call in aws.calls) == 1
    assert len(aws.calls) == 1001  # a lookup each, and no tag is written


@SERVICES
def test_a_registered_definition_says_whose_it_is_and_when_it_was_used(service: str) -> None:
    """The cleanup relies on it."""
    aws = Registered()
    find_or_register(aws, service, REQUESTS[service], TODAY)
    assert list(aws.tags.values()) == [{MANAGED: NAMES[service], LAST_USED: TODAY}]


@SERVICES
def test_the_first_use_of_a_day_is_noted(service: str) -> None:
    """One more call a day, not one for each start."""
    aws = Registered()
    find_or_register(aws, service, REQUESTS[service], "2026-11-27")
    for _ in range(3):
        find_or_register(aws, service, REQUESTS[service], TODAY)
    assert [tags[LAST_USED] for tags in aws.tags.values()] == [TODAY]
    assert aws.calls.count("tag_resource") == 1


@SERVICES
def test_a_use_that_cannot_be_noted_fails_no_start(service: str, caplog: pytest.LogCaptureFixture) -> None:
    """A role may lack the permission; the cleanup then acts on an old date, and a later start registers anew."""
    aws = Registered()
    revision = find_or_register(aws, service, REQUESTS[service], "2026-11-27")
    aws.errors["tag_resource"] = [refused("AccessDeniedException", "TagResource", "no", 403)]
    assert find_or_register(aws, service, REQUESTS[service], TODAY) == revision
    assert "Could not update the last-used tag" in caplog.text


@SERVICES
def test_a_role_that_may_not_tag_registers_without_tags(service: str, caplog: pytest.LogCaptureFixture) -> None:
    """It still starts jobs; a definition without tags is never cleaned up."""
    aws = Registered()
    operation = "register_job_definition" if service == "batch" else "register_task_definition"
    aws.errors[operation] = [
        refused("AccessDeniedException", "Register", "not authorized to perform: x:TagResource", 403)
    ]
    revision = find_or_register(aws, service, REQUESTS[service], TODAY)
    assert list(aws.tags.values()) == [{}]
    assert "the role may not tag" in caplog.text
    assert find_or_register(aws, service, REQUESTS[service], "2026-11-29") == revision
    assert aws.calls.count("tag_resource") == 0


@SERVICES
def test_a_definition_that_a_person_changed_is_registered_anew(service: str, caplog: pytest.LogCaptureFixture) -> None:
    """The newest revision under our name has other content than the name says."""
    caplog.set_level(logging.INFO)
    aws = Registered()
    find_or_register(aws, service, REQUESTS[service], TODAY)
    aws.add({**REQUESTS[service], "tags": {}, "propagateTags": True}, {MANAGED: "copied"})
    assert find_or_register(aws, service, REQUESTS[service], TODAY) == f"{NAMES[service]}:3"
    assert f"Somebody changed definition {NAMES[service]}:2: propagateTags does not match" in caplog.text
    assert f"Registered definition {NAMES[service]}:3" in caplog.text
    assert find_or_register(aws, service, REQUESTS[service], TODAY) == f"{NAMES[service]}:3"
    assert f"Using definition {NAMES[service]}:3" in caplog.text


@SERVICES
def test_a_default_of_aws_that_is_not_known_here_costs_one_revision(service: str) -> None:
    """Not one for each start: two revisions that AWS describes in the same form are of the same request."""
    aws = Registered(newMember="a default")
    for _ in range(5):
        revision = find_or_register(aws, service, REQUESTS[service], TODAY)
    assert revision == f"{NAMES[service]}:2"
    assert len(aws.definitions) == 2
    assert ALSO_MATCHES in aws.tags[aws.definitions[1]["arn"]]


@SERVICES
def test_such_a_default_costs_one_revision_without_permission_to_tag(
    service: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a person changed is still noticed."""
    aws = Registered(newMember="a default")
    denied = refused("AccessDeniedException", "Register", "not authorized to perform: x:TagResource", 403)
    operation = "register_job_definition" if service == "batch" else "register_task_definition"
    for _ in range(5):
        aws.errors[operation] = [denied]
        revision = find_or_register(aws, service, REQUESTS[service], TODAY)
    assert revision == f"{NAMES[service]}:2"
    assert len(aws.definitions) == 2
    caplog.clear()
    aws.add({**REQUESTS[service], "propagateTags": True}, {})
    aws.errors[operation] = [denied]
    assert find_or_register(aws, service, REQUESTS[service], TODAY) == f"{NAMES[service]}:4"
    assert f"Somebody changed definition {NAMES[service]}:3" in caplog.text


@SERVICES
def test_definitions_that_were_registered_at_the_same_time_end_with_one_in_use(service: str) -> None:
    """Two workers found none, and both registered it."""
    aws = Registered()
    for _ in range(2):
        REGISTRIES[service].register(aws, REQUESTS[service], {})
    assert {find_or_register(aws, service, REQUESTS[service], TODAY) for _ in range(3)} == {f"{NAMES[service]}:2"}
    assert len(aws.definitions) == 2


def test_throttling_that_ecs_reports_as_a_client_error_is_not_a_missing_definition() -> None:
    """Registering in response would make it worse."""
    aws = Registered()
    aws.errors["describe_task_definition"] = [refused("ClientException", "DescribeTaskDefinition", "Rate exceeded")]
    with pytest.raises(CallError) as raised:
        find_or_register(aws, "ecs", REQUESTS["ecs"], TODAY)
    assert raised.value.fault is Fault.THROTTLED
    assert aws.definitions == []


@SERVICES
def test_only_our_own_definitions_are_listed(service: str) -> None:
    """Others have other prefixes."""
    aws = Registered()
    find_or_register(aws, service, REQUESTS[service], TODAY)
    aws.add({**REQUESTS[service], definitions.NAME[service]: "other"}, {})
    [found] = REGISTRIES[service].active(aws)
    assert (found.name, found.tags[MANAGED]) == (f"{NAMES[service]}:1", NAMES[service])


def test_services_have_the_same_interface() -> None:
    """One for each service that has definitions."""
    assert set(registration.REGISTRIES) == set(definitions.NAME)
