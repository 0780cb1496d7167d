"""Which definition an operator's jobs run: what its parameters may say, and how often AWS is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.exceptions import CapacityUnavailable, InvalidParameter, SubmissionError
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.definitions import of_batch
from tests.unit.jobs.scripted_definitions import Registered

ROLE = "arn:aws:iam::123456789012:role/r"
of_fargate = partial(definitions.of_ecs, launch_type="FARGATE")
IMAGE = {"image": "busybox", "execution_role": ROLE}


def content(definition: definitions.Definition) -> dict[str, Any]:
    """The request that registers a definition."""
    assert definition.build
    return definition.build("eu-west-1")


# What the parameters say.


def test_an_image_on_batch_runs_on_fargate_unless_it_needs_gpus() -> None:
    """And gets the least that Fargate has, or AWS's default on EC2."""
    on_fargate, on_ec2 = content(of_batch(IMAGE)), content(of_batch({"image": "busybox", "gpus": 1}))
    amounts = [
        {each["type"]: each["value"] for each in request["containerProperties"]["resourceRequirements"]}
        for request in (on_fargate, on_ec2)
    ]
    assert (on_fargate["platformCapabilities"], amounts[0]) == (["FARGATE"], {"VCPU": "0.25", "MEMORY": "512"})
    assert (on_ec2["platformCapabilities"], amounts[1]) == (["EC2"], {"VCPU": "1", "MEMORY": "2048", "GPU": "1"})


def test_command_and_environment_are_no_part_of_a_definition() -> None:
    """They differ between runs, which would make a revision each."""
    varying = {"command": ["echo", "1"], "environment": {"DAY": "1"}}
    assert content(of_batch({**IMAGE, **varying})) == content(of_batch(IMAGE))
    assert content(of_fargate({**IMAGE, **varying})) == content(of_fargate(IMAGE))


def test_parts_of_a_definition_are_in_it() -> None:
    """Roles, log group, size and address."""
    parts = {"job_role": "arn:job", "log_group": "/mine", "memory": 1024}
    batch = content(of_batch({**IMAGE, **parts, "vcpus": 0.5, "assign_public_ip": True}))["containerProperties"]
    assert (batch["jobRoleArn"], batch["executionRoleArn"]) == ("arn:job", ROLE)
    assert batch["logConfiguration"]["options"] == {"awslogs-group": "/mine"}
    assert batch["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    ecs = content(of_fargate({**IMAGE, **parts, "cpu": 512, "container_name": "etl"}))
    [container] = ecs["containerDefinitions"]
    assert (ecs["taskRoleArn"], ecs["executionRoleArn"], container["name"]) == ("arn:job", ROLE, "etl")
    assert (ecs["cpu"], ecs["memory"]) == ("512", "1024")
    options = container["logConfiguration"]["options"]
    assert (options["awslogs-group"], options["awslogs-region"]) == ("/mine", "eu-west-1")


def test_a_definition_in_aws_shape_is_registered_as_it_is() -> None:
    """Under a name that has its hash."""
    given = {"jobDefinitionName": "mine", "containerProperties": {"image": "i", "privileged": True}}
    batch = of_batch({"definition": given})
    assert batch.label.startswith("jobflow-mine-")
    assert content(batch) == {**given, "type": "container", "jobDefinitionName": batch.label}
    containers = [{"name": "log", "image": "i", "essential": False}, {"name": "etl", "image": "i"}]
    ecs = of_fargate({"definition": {"containerDefinitions": containers}})
    assert (ecs.containers, ecs.main_container) == (["log", "etl"], "etl")


def test_a_definition_that_exists_is_used_as_it_is() -> None:
    """Nothing is looked up."""
    assert of_batch({"job_definition": "mine:3"}).resolve(jobs(Registered()), "it") == "mine:3"


@pytest.mark.parametrize("of", [of_batch, of_fargate])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "exactly one of (job|task)_definition, image and definition"),
        ({"image": "i", "definition": {"a": 1}}, "image is also given; keep only one of them"),
        ({"definition": {"a": 1}, "log_group": "/g"}, "log_group='/g': applies only with image, not with definition"),
        ({"image": "i"}, "execution_role=None: Fargate needs the ARN of a role"),
        ({**IMAGE, "memory": 3000}, "memory=3000: .* 0.5 vCPU and 3000 MiB; the nearest has 0.5 vCPU .* and 3072 MiB"),
    ],
)
def test_a_missing_or_ambiguous_definition_is_rejected(
    of: Callable[..., Any], values: dict[str, Any], said: str
) -> None:
    """By name, before anything is started."""
    with pytest.raises(InvalidParameter, match=said):
        of(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"job_definition": "d", "image": "i"}, "job_definition is also given"),
        ({"job_definition": "d", "job_role": "r"}, "job_role='r': applies only with image, not with job_definition"),
        ({**IMAGE, "platform": "FARGATE", "gpus": 1}, "Fargate has no GPUs; platform must be EC2"),
        ({"image": "i", "platform": "EC2", "assign_public_ip": True}, "is for Fargate"),
        ({**IMAGE, "vcpus": 0.3}, "Fargate has 0.25, 0.5, 1, 2, 4"),
        ({**IMAGE, "vcpus": 3}, "vcpus=3: Fargate has no size with 3 vCPU .* the nearest has 4 vCPU"),
    ],
)
def test_what_batch_cannot_run_is_rejected(values: dict[str, Any], said: str) -> None:
    """By name, before anything is started."""
    with pytest.raises(InvalidParameter, match=said):
        of_batch(values)


def test_the_address_of_a_fargate_task_is_no_part_of_its_definition() -> None:
    """RunTask has it, whichever definition is used."""
    assert of_fargate({"task_definition": "d", "assign_public_ip": True}).label == "d"


# How often AWS is asked.


def jobs(aws: Registered, connection: str = "aws_default") -> Any:
    """What makes calls for a task, without retries."""
    return SimpleNamespace(
        call=lambda function, retry=None: function(aws),  # noqa: ARG005 -- as RemoteJobs has it
        access=SimpleNamespace(key=connection),
        origin="aws_default in eu-west-1",
    )


@pytest.mark.parametrize("of", [of_batch, of_fargate])
def test_a_thousand_starts_of_a_process_look_up_once_and_register_once(of: Callable[..., Any]) -> None:
    """Also starts at the same time, which wait for the first."""
    aws, at_once = Registered(), threading.Barrier(8)

    def starts(_: int) -> set[str]:
        at_once.wait()
        return {of(IMAGE).resolve(jobs(aws), "it") for _ in range(125)}

    with ThreadPoolExecutor(8) as pool:
        [revision] = set().union(*pool.map(starts, range(8)))
    assert revision.endswith(":1")
    assert [call.partition("_")[0] for call in aws.calls] == ["describe", "register"]


def test_each_connection_has_its_own_definitions() -> None:
    """Another connection may be another account."""
    first, second = Registered(), Registered()
    of_batch(IMAGE).resolve(jobs(first, "a"), "it")
    of_batch(IMAGE).resolve(jobs(second, "b"), "it")
    assert (len(first.definitions), len(second.definitions)) == (1, 1)


def test_a_definition_is_looked_up_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have deregistered it, and its use is noted."""
    aws = Registered()
    monkeypatch.setattr(definitions, "LIFETIME", 0.0)
    of_batch(IMAGE).resolve(jobs(aws), "it")
    aws.definitions.clear()
    assert of_batch(IMAGE).resolve(jobs(aws), "it").endswith(":1")
    assert len(aws.definitions) == 1


def test_a_definition_that_could_not_be_looked_up_is_looked_up_by_the_next_start() -> None:
    """A failure is not kept."""
    aws = Registered()
    aws.errors["describe_job_definitions"] = [CallError(Fault.DENIED, "no")]
    with pytest.raises(SubmissionError, match=r"Batch job x .* was not submitted: the call is not permitted"):
        of_batch(IMAGE).resolve(jobs(aws), "Batch job x")
    assert of_batch(IMAGE).resolve(jobs(aws), "Batch job x").endswith(":1")


def test_a_start_waits_if_its_registration_is_throttled() -> None:
    """As if the start itself was."""
    aws = Registered()
    aws.errors["register_job_definition"] = [CallError(Fault.THROTTLED, "RegisterJobDefinition: Rate exceeded")]
    with pytest.raises(CapacityUnavailable, match="Batch job x was not started, because AWS throttled the call"):
        of_batch(IMAGE).resolve(jobs(aws), "Batch job x")


def test_a_registration_without_a_response_has_started_no_job() -> None:
    """The error must not send anybody looking for one."""
    aws = Registered()
    aws.errors["register_job_definition"] = [CallError(Fault.TRANSIENT, "timed out", sent=True)]
    with pytest.raises(SubmissionError, match="nothing was started"):
        of_batch(IMAGE).resolve(jobs(aws), "Batch job x")
