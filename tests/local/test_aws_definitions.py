"""Job definitions and task definitions on the local AWS: what their calls accept, answer and reject, as AWS's do."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_jobflow.local.samples import EXECUTION_ROLE, ON_FARGATE

IMAGE = "public.ecr.aws/docker/library/busybox:stable"
AMOUNTS = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}]
LOG = {"logDriver": "awslogs", "options": {"awslogs-group": "/g", "awslogs-create-group": "true"}}


@pytest.fixture
def name() -> str:
    """A name that nobody else uses."""
    return f"definition-{uuid.uuid4().hex}"


@pytest.fixture
def batch(kit: Any) -> Any:
    """A client of Batch."""
    return kit.batch


@pytest.fixture
def ecs(ecs_kit: Any) -> Any:
    """A client of ECS."""
    return ecs_kit.ecs


def job(name: str, **more: Any) -> dict[str, Any]:
    """A RegisterJobDefinition request."""
    container = {"image": IMAGE, "resourceRequirements": AMOUNTS, **more.pop("containerProperties", {})}
    return {"jobDefinitionName": name, "type": "container", "containerProperties": container, **more}


def task(family: str, **more: Any) -> dict[str, Any]:
    """A RegisterTaskDefinition request for Fargate."""
    return {
        "family": family,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": EXECUTION_ROLE,
        "containerDefinitions": [{"name": "main", "image": IMAGE, "logConfiguration": LOG}],
        **more,
    }


# Batch.


def test_every_registration_makes_a_revision_also_at_the_same_time(batch: Any, name: str) -> None:
    """None gets the number of another."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: batch.register_job_definition(**job(name)), range(8)))
    assert sorted(answer["revision"] for answer in answers) == list(range(1, 9))
    described = batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")["jobDefinitions"]
    assert {each["jobDefinitionArn"] for each in described} == {answer["jobDefinitionArn"] for answer in answers}


def test_a_revision_has_what_it_was_registered_with_and_not_what_the_last_one_had(batch: Any, name: str) -> None:
    """Its capabilities, retries and tags."""
    batch.register_job_definition(**job(name, tags={"a": "1"}, retryStrategy={"attempts": 3}))
    on_fargate = job(name, platformCapabilities=["FARGATE"], containerProperties=ON_FARGATE, propagateTags=True)
    batch.register_job_definition(**on_fargate)
    first, second = sorted(
        batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"], key=lambda each: each["revision"]
    )
    assert (first["retryStrategy"], first["tags"]) == ({"attempts": 3}, {"a": "1"})
    assert (second["platformCapabilities"], second["propagateTags"]) == (["FARGATE"], True)
    assert not second["tags"]


def test_a_deregistered_job_definition_is_inactive(batch: Any, name: str) -> None:
    """It keeps its number: the next revision gets another."""
    arn = batch.register_job_definition(**job(name))["jobDefinitionArn"]
    batch.deregister_job_definition(jobDefinition=arn)
    assert batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")["jobDefinitions"] == []
    assert batch.register_job_definition(**job(name))["revision"] == 2


def test_tags_of_a_job_definition_change_without_a_revision(batch: Any, name: str) -> None:
    """DescribeJobDefinitions shows them."""
    arn = batch.register_job_definition(**job(name, tags={"a": "1"}))["jobDefinitionArn"]
    batch.tag_resource(resourceArn=arn, tags={"b": "2"})
    [described] = batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"]
    assert described["tags"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"jobDefinitionName": "with space"}, "Job definition name should match valid pattern"),
        ({"jobDefinitionName": "x" * 129}, "Job definition name should match valid pattern"),
        ({"platformCapabilities": ["FARGATE"]}, r"\(1 vCPU, 128 MiB\) not valid"),
        (
            {"platformCapabilities": ["FARGATE"], "containerProperties": {**ON_FARGATE, "executionRoleArn": ""}},
            "execution role",
        ),
        ({"containerProperties": {"resourceRequirements": AMOUNTS[:1]}}, "must contain memory"),
    ],
)
def test_batch_rejects_definitions(batch: Any, name: str, change: dict[str, Any], said: str) -> None:
    """With a ClientException; nothing is registered."""
    with pytest.raises(ClientError, match=said) as raised:
        batch.register_job_definition(**job(name, **change) | {k: v for k, v in change.items() if k[0] == "j"})
    assert raised.value.response["Error"]["Code"] == "ClientException"
    assert batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"] == []


# ECS.


def test_every_task_definition_gets_a_number_of_its_own(ecs: Any, name: str) -> None:
    """Also those that are registered at the same time."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ecs.register_task_definition(**task(name)), range(8)))
    assert sorted(answer["taskDefinition"]["revision"] for answer in answers) == list(range(1, 9))


def test_a_family_means_its_newest_active_revision(ecs: Any, name: str) -> None:
    """Not an inactive one, which is found by its number only."""
    for _ in range(2):
        ecs.register_task_definition(**task(name))
    ecs.deregister_task_definition(taskDefinition=f"{name}:2")
    assert ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["revision"] == 1
    assert ecs.describe_task_definition(taskDefinition=f"{name}:2")["taskDefinition"]["status"] == "INACTIVE"
    ecs.deregister_task_definition(taskDefinition=f"{name}:1")
    with pytest.raises(ClientError, match="Unable to describe task definition") as raised:
        ecs.describe_task_definition(taskDefinition=name)
    assert raised.value.response["Error"]["Code"] == "ClientException"


def test_a_task_definition_is_described_as_it_was_registered(ecs: Any, name: str) -> None:
    """With ECS's defaults, and its tags if they are asked for."""
    tags = [{"key": "a", "value": "1"}]
    ecs.register_task_definition(**task(name, taskRoleArn=EXECUTION_ROLE, tags=tags))
    ecs.tag_resource(
        resourceArn=ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["taskDefinitionArn"],
        tags=[{"key": "b", "value": "2"}],
    )
    plain = ecs.describe_task_definition(taskDefinition=name)
    described = plain["taskDefinition"]
    assert (described["taskRoleArn"], described["executionRoleArn"]) == (EXECUTION_ROLE, EXECUTION_ROLE)
    assert described["containerDefinitions"][0] | {"logConfiguration": LOG} == described["containerDefinitions"][0]
    assert described["containerDefinitions"][0]["essential"] is True
    assert "tags" not in plain
    tagged = ecs.describe_task_definition(taskDefinition=name, include=["TAGS"])
    assert {tag["key"]: tag["value"] for tag in tagged["tags"]} == {"a": "1", "b": "2"}


def test_families_are_listed_by_prefix_and_status(ecs: Any, name: str) -> None:
    """A family without an active revision is inactive."""
    for number in range(2):
        ecs.register_task_definition(**task(f"{name}-{number}"))
    ecs.deregister_task_definition(taskDefinition=f"{name}-0:1")

    def families(**more: Any) -> list[str]:
        return list(ecs.list_task_definition_families(familyPrefix=name, **more)["families"])

    assert families() == [f"{name}-0", f"{name}-1"]
    assert families(status="ACTIVE") == [f"{name}-1"]
    assert families(status="INACTIVE") == [f"{name}-0"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "with space"}, "invalid characters"),
        ({"cpu": "1024"}, "No Fargate configuration exists for given values: 1024 CPU, 512 memory"),
        ({"executionRoleArn": ""}, "execution role ARN to support log driver awslogs"),
    ],
)
def test_ecs_rejects_definitions(ecs: Any, name: str, change: dict[str, Any], said: str) -> None:
    """With a ClientException."""
    with pytest.raises(ecs.exceptions.ClientException, match=said):
        ecs.register_task_definition(**task(name) | change)
