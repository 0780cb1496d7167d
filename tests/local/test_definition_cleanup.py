"""The cleanup of definitions against the local AWS: it deregisters what is ours and unused, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from airflow_jobflow.aws import Access, Call, Rate, service_client
from airflow_jobflow.definition_cleanup import deregister_unused_definitions
from airflow_jobflow.jobs import definitions
from airflow_jobflow.jobs.registration import LAST_USED, MANAGED, REGISTRIES, find_or_register
from airflow_jobflow.local import Faults, LocalAws
from airflow_jobflow.local.samples import EXECUTION_ROLE

TODAY = date(2026, 11, 28)
ACCESS = Access(None)
SERVICES = ("batch", "ecs")


def request(service: str, image: str) -> dict[str, Any]:
    """The request for an image."""
    if service == "batch":
        return definitions.named("batch", definitions.batch_definition(image, platform="EC2", vcpus=1, memory=2048))
    made = definitions.task_definition(image, cpu=256, memory=512, region="us-east-1", execution_role=EXECUTION_ROLE)
    return definitions.named("ecs", made)


@pytest.fixture
def fresh(here: Callable[[Any], None]) -> Iterator[LocalAws]:
    """A local AWS without definitions, which this process finds."""
    with LocalAws() as aws:
        here(aws)
        yield aws


def call(service: str) -> Call:
    """Make calls to a service."""
    return Call(service_client(ACCESS, service), Rate.ACTION)


def use(image: str, days_ago: int) -> list[str]:
    """Use an image on both services; the revisions."""
    day = (TODAY - timedelta(days=days_ago)).isoformat()
    return [find_or_register(call(service), service, request(service, image), day) for service in SERVICES]


def cleanup(**more: Any) -> dict[str, Any]:
    """Clean up today."""
    now = datetime(TODAY.year, TODAY.month, TODAY.day, 1, tzinfo=UTC).timestamp()
    return deregister_unused_definitions(access=ACCESS, now=lambda: now, **more)


def active() -> set[str]:
    """The names of all active revisions of ours."""
    return {revision.name for service in SERVICES for revision in REGISTRIES[service].active(call(service))}


@pytest.mark.usefixtures("fresh")
def test_what_no_run_used_for_a_month_is_deregistered() -> None:
    """And what was used since stays."""
    used, unused = use("used", 29), use("unused", 30)
    report = cleanup(dry_run=False)
    assert active() == set(used)
    assert [each["definition"] for each in report["definitions"]] == unused
    assert {each["action"] for each in report["definitions"]} == {"deregistered"}
    assert (report["counts"]["listed"], report["counts"]["used"], report["counts"]["deregistered"]) == (4, 2, 2)


@pytest.mark.usefixtures("fresh")
def test_a_dry_run_deregisters_nothing() -> None:
    """It is the default."""
    unused = use("unused", 100)
    report = cleanup()
    assert active() == set(unused)
    assert [each["action"] for each in report["definitions"]] == ["would_deregister"] * 2
    assert report["definitions"][0]["last_used"] == "2026-08-20"


@pytest.mark.usefixtures("fresh")
def test_a_definition_is_registered_again_after_it_was_deregistered() -> None:
    """A run that comes after all finds none, and gets a new revision."""
    use("image", 30)
    cleanup(dry_run=False)
    assert [revision.rpartition(":")[2] for revision in use("image", 0)] == ["2", "2"]


def test_definitions_of_others_are_left_alone(fresh: LocalAws) -> None:
    """Without our tag, or with a tag that was copied from one of ours: whatever they are called."""
    tags = {MANAGED: "jobflow-other", LAST_USED: "2020-01-01"}
    container = {"image": "i", "vcpus": 1, "memory": 128}
    for name, own in (("jobflow-mine", {}), ("jobflow-copied", tags), ("other", tags)):
        fresh.client("batch").register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=container, tags=own
        )
    report = cleanup(dry_run=False)
    assert report["definitions"] == []
    assert report["counts"]["not_ours"] == 2


def test_a_service_that_cannot_be_listed_does_not_prevent_the_cleanup_of_the_other(fresh: LocalAws) -> None:
    """The report says which, and why."""
    use("unused", 100)
    fresh.set_faults(Faults(denied=("batch.DescribeJobDefinitions",)))
    report = cleanup(dry_run=False)
    assert [each["service"] for each in report["definitions"]] == ["ecs"]
    assert [each["service"] for each in report["problems"]] == ["batch"]


def test_a_definition_that_cannot_be_deregistered_is_reported(fresh: LocalAws) -> None:
    """The next cleanup tries again."""
    unused = use("unused", 100)
    fresh.set_faults(Faults(denied=("ecs.DeregisterTaskDefinition",)))
    report = cleanup(dry_run=False, services=["ecs"])
    [found] = report["definitions"]
    assert (found["definition"], found["action"]) == (unused[1], "deregister_failed")
    assert "DeregisterTaskDefinition" in found["reason"]
    assert set(unused) == active()


@pytest.mark.parametrize(
    ("parameters", "said"), [({"unused_days": 1}, "at least 2"), ({"services": ["x"]}, "not one of")]
)
def test_parameters_that_make_no_sense_are_rejected(parameters: dict[str, Any], said: str) -> None:
    """A use is recorded once a day only."""
    with pytest.raises(ValueError, match=said):
        deregister_unused_definitions(**parameters)
