"""Definitions made of an image: their names, their sizes, and what counts as the same content. Pure."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from airflow_jobflow.jobs import definitions
from airflow_jobflow.jobs.definitions import batch_definition, comparable, differences, digest, named, task_definition

ROLE = "arn:aws:iam::123456789012:role/r"
BATCH = batch_definition(
    "public.ecr.aws/docker/library/python:3.13",
    platform="FARGATE",
    vcpus=0.25,
    memory=512,
    execution_role=ROLE,
    log_group="/jobs",
    assign_public_ip=True,
)
ECS = task_definition("busybox@sha256:0123", cpu=256, memory=512, region="eu-west-1", execution_role=ROLE)


def model(service: str) -> ServiceModel:
    """Botocore's model of a service."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def test_a_name_has_the_image_and_a_hash_of_the_content() -> None:
    """It can be read, and a policy can be restricted to its prefix."""
    assert re.fullmatch(r"jobflow-python-[0-9a-f]{16}", named("batch", BATCH)["jobDefinitionName"])
    assert re.fullmatch(r"jobflow-busybox-[0-9a-f]{16}", named("ecs", ECS)["family"])


@pytest.mark.parametrize(
    ("image", "readable"),
    [
        ("localhost:5000/team/etl", "etl"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/my.app:v1.2", "my-app"),
        ("x" * 300, "x" * 60),
        ("€", ""),
    ],
)
def test_any_image_makes_a_name_that_aws_accepts(image: str, readable: str) -> None:
    """Batch takes 128 letters, digits, hyphens and underscores."""
    name = named("batch", {"containerProperties": {"image": image}})["jobDefinitionName"]
    assert name.startswith(f"jobflow-{readable}-")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name)


def test_the_name_that_a_user_gives_is_the_readable_part() -> None:
    """The hash follows, so that a changed definition gets another name."""
    given = named("ecs", {**ECS, "family": "etl"})["family"]
    assert given.startswith("jobflow-etl-")
    assert given.rpartition("-")[2] == named("ecs", ECS)["family"].rpartition("-")[2]


def test_the_hash_does_not_depend_on_the_order_of_members() -> None:
    """A dict that is built in another order is the same definition."""
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    "change",
    [{"vcpus": 0.5}, {"memory": 1024}, {"platform": "EC2"}, {"gpus": 1}, {"job_role": ROLE}, {"log_group": "/others"}],
)
def test_other_content_has_another_name(change: dict[str, Any]) -> None:
    """A definition is never used for something else."""
    same: dict[str, Any] = {"platform": "FARGATE", "vcpus": 0.25, "memory": 512}
    assert named("batch", batch_definition("i", **same)) == named("batch", batch_definition("i", **same))
    assert named("batch", batch_definition("i", **same)) != named("batch", batch_definition("i", **{**same, **change}))


def described_by_batch(request: dict[str, Any]) -> dict[str, Any]:
    """A job definition as Batch describes it: with defaults, empty lists and members of its own."""
    container = {
        "command": [],
        "volumes": [],
        "environment": [],
        "mountPoints": [],
        "ulimits": [],
        "secrets": [],
        "networkConfiguration": {"assignPublicIp": "DISABLED"},
        "fargatePlatformConfiguration": {"platformVersion": "LATEST"},
        **request["containerProperties"],
    }
    return {
        **named("batch", request),
        "jobDefinitionArn": "arn:aws:batch:eu-west-1:1:job-definition/d:1",
        "revision": 1,
        "status": "ACTIVE",
        "parameters": {},
        "retryStrategy": {"attempts": 1, "evaluateOnExit": []},
        "containerProperties": container,
        "tags": {"a": "b"},
        "propagateTags": False,
        "containerOrchestrationType": "ECS",
    }


def described_by_ecs(request: dict[str, Any]) -> dict[str, Any]:
    """A task definition as ECS describes it."""
    defaults: dict[str, Any] = {
        "cpu": 0,
        "portMappings": [],
        "environment": [],
        "mountPoints": [],
        "volumesFrom": [],
        "systemControls": [],
    }
    return {
        **named("ecs", request),
        "containerDefinitions": [{**defaults, **each} for each in request["containerDefinitions"]],
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:1:task-definition/d:1",
        "revision": 1,
        "volumes": [],
        "status": "ACTIVE",
        "requiresAttributes": [{"name": "com.amazonaws.ecs.capability.logging-driver.awslogs"}],
        "placementConstraints": [],
        "compatibilities": ["EC2", "FARGATE"],
        "registeredBy": "arn:aws:iam::1:user/u",
        "enableFaultInjection": False,
    }


def test_what_aws_adds_to_a_definition_is_no_change() -> None:
    """Otherwise every start would register a revision."""
    assert differences("batch", named("batch", BATCH), described_by_batch(BATCH)) == []
    assert differences("ecs", named("ecs", ECS), described_by_ecs(ECS)) == []


def test_a_definition_is_the_same_in_another_order_and_without_empty_variables() -> None:
    """AWS reorders the environment; Batch drops empty variables and writes actions in lower case."""
    environment = [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}, {"name": "C", "value": ""}]
    rules = {"attempts": 2, "evaluateOnExit": [{"onReason": "x", "action": "RETRY"}]}
    ours = {"containerProperties": {"image": "i", "environment": environment}, "retryStrategy": rules}
    theirs = {
        "containerProperties": {"image": "i", "environment": [environment[1], environment[0]]},
        "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "x", "action": "retry"}]},
    }
    assert differences("batch", ours, theirs) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"image": "other"}, "containerProperties.image"),
        ({"privileged": True}, "containerProperties.privileged"),
        ({"environment": [{"name": "A", "value": "1"}]}, "containerProperties.environment"),
        ({"logConfiguration": None}, "containerProperties.logConfiguration"),
        (
            {"resourceRequirements": [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "1024"}]},
            "containerProperties.resourceRequirements[0].value",
        ),
    ],
)
def test_what_a_person_changed_is_named(change: dict[str, Any], path: str) -> None:
    """Members that were changed, added or removed."""
    theirs = described_by_batch(BATCH)
    theirs["containerProperties"] |= change
    assert differences("batch", BATCH, theirs) == [path]


def test_a_container_that_is_not_essential_differs_from_one_that_is() -> None:
    """The default is true, so false says something."""
    changed = {**ECS, "containerDefinitions": [{**ECS["containerDefinitions"][0], "essential": False}]}
    assert differences("ecs", ECS, changed) == ["containerDefinitions[0].essential"]


@pytest.mark.parametrize(
    ("service", "register", "describe", "member"),
    [
        ("batch", "RegisterJobDefinition", "DescribeJobDefinitions", "jobDefinitions"),
        ("ecs", "RegisterTaskDefinition", "DescribeTaskDefinition", "taskDefinition"),
    ],
)
def test_all_members_that_only_a_described_definition_has_are_known(
    service: str, register: str, describe: str, member: str
) -> None:
    """An unknown one would count as a change."""
    aws: Any = model(service)
    shape = aws.operation_model(describe).output_shape.members[member]
    described = set((shape.member if shape.type_name == "list" else shape).members)
    assert described - set(aws.operation_model(register).input_shape.members) == set(
        definitions.DESCRIBED_ONLY[service]
    )


def test_neither_name_nor_tags_are_content() -> None:
    """Tags change without a new revision."""
    assert comparable("ecs", {"family": "f", "tags": [{"key": "k", "value": "v"}], "cpu": "256"}) == {"cpu": "256"}
    assert comparable("ecs", {"family": "f"}) is None


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((None, None), (256, 512)),
        ((None, 3000), (512, 3000)),
        ((4096, None), (4096, 8192)),
        ((None, 16384), (2048, 16384)),
        ((1024, 2048), (1024, 2048)),
    ],
)
def test_a_missing_part_of_a_size_is_the_smallest_possible(
    given: tuple[int | None, int | None], size: tuple[int, int]
) -> None:
    """A job that needs little pays little."""
    assert definitions.fargate_size(*given) == size


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((1024, 3000), "1 vCPU (1024 CPU units) and 3072 MiB"),
        ((256, 4096), "0.5 vCPU (512 CPU units) and 4096 MiB"),
        ((768, 1024), "1 vCPU (1024 CPU units) and 2048 MiB"),
        ((65536, 999_999), "32 vCPU (32768 CPU units) and 249856 MiB"),
    ],
)
def test_the_nearest_size_is_named(size: tuple[int, int], nearest: str) -> None:
    """It is large enough, if one is."""
    assert str(definitions.fargate_size_error(*size)).endswith(f"the nearest has {nearest}")


def test_a_size_that_fargate_has_is_no_error() -> None:
    """All sizes of the table."""
    assert definitions.fargate_size_error(512, 1024) is None


def test_containers_are_known_without_a_call() -> None:
    """The content names them; that of a plain Batch job has no name."""
    sidecar = {"name": "sidecar", "image": "i", "essential": False}
    several = {**ECS, "containerDefinitions": [sidecar, *ECS["containerDefinitions"]]}
    assert definitions.container_names("ecs", several) == ["sidecar", "main"]
    assert definitions.main_container(several) == "main"
    assert definitions.container_names("batch", BATCH) == []
