"""Short forms together with AWS's own format: merged if they set different values, rejected if they set the same."""

from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import batch_request
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from tests.unit.scripted_aws import ScriptedAws, context, map_requests


def batch(**given: Any) -> dict[str, Any]:
    """The SubmitJob request."""
    return BatchJobOperator(task_id="t", job_name="n", job_queue="q", job_definition="d", **given)._job_spec().request


def batch_map(*items: dict[str, Any], **given: Any) -> list[dict[str, Any]]:
    """The containerOverrides of each item, without the item's index."""
    task = BatchMapOperator(task_id="t", job_name="n", job_queue="q", job_definition="d", items=items, **given)
    task.check()
    return [without_index(request["containerOverrides"]) for request in map_requests(task)]


def ecs(**given: Any) -> dict[str, Any]:
    """The overrides of the RunTask request."""
    task = FargateTaskOperator(
        task_id="t", cluster="c", task_definition="d", subnets=["s"], **{"container_name": "main", **given}
    )
    parameters = task._job_spec().parameters
    overrides: dict[str, Any] = parameters.request(parameters.values, "main")["overrides"]
    return overrides


def ecs_map(*items: dict[str, Any], **given: Any) -> list[dict[str, Any]]:
    """The overrides of each item, without the item's index."""
    task = FargateMapOperator(
        task_id="t",
        cluster="c",
        task_definition="d",
        subnets=["s"],
        items=items,
        **{"container_name": "main", **given},
    )
    task.check()
    overrides = [request["overrides"] for request in map_requests(task)]
    return [
        {**each, "containerOverrides": [without_index(container) for container in each["containerOverrides"]]}
        for each in overrides
    ]


def without_index(container: dict[str, Any]) -> dict[str, Any]:
    """Return the overrides of a container, with its environment as a dict without the index of the item."""
    said = {each["name"]: each["value"] for each in container.get("environment", [])}
    said.pop("JOBFLOW_MAP_INDEX", None)
    return {**container, "environment": said}


def variables(**said: str) -> list[dict[str, str]]:
    """Return variables in AWS's format."""
    return [{"name": name, "value": value} for name, value in said.items()]


def resources(**said: str) -> list[dict[str, str]]:
    """Return resource requirements in AWS's format."""
    return [{"type": kind, "value": value} for kind, value in said.items()]


# Batch.


def test_a_batch_job_has_the_short_forms_of_maps_and_fargate() -> None:
    """They become members of containerOverrides, converted to text for AWS."""
    assert batch(command=["a"], environment={"A": "1"}, vcpus=0.25, memory="2048", gpus=1)["containerOverrides"] == {
        "command": ["a"],
        "environment": variables(A="1"),
        "resourceRequirements": resources(VCPU="0.25", MEMORY="2048", GPU="1"),
    }
    assert batch(vcpus="16")["containerOverrides"] == {"resourceRequirements": resources(VCPU="16")}


def test_short_forms_are_merged_into_container_overrides() -> None:
    """The two set different values."""
    overrides = {
        "instanceType": "m5.large",
        "environment": variables(A="1"),
        "resourceRequirements": resources(GPU="1"),
    }
    assert batch(container_overrides=overrides, environment={"B": 2}, vcpus=4)["containerOverrides"] == {
        "instanceType": "m5.large",
        "environment": variables(A="1", B="2"),
        "resourceRequirements": resources(GPU="1", VCPU="4"),
    }


CONTRADICTIONS = [
    ("command", ["a"], {"command": ["b"]}),
    ("environment", {"A": "1"}, {"environment": variables(A="2")}),
    ("vcpus", 2, {"resourceRequirements": resources(VCPU="4")}),
    ("vcpus", 2, {"vcpus": 4}),
    ("memory", 2048, {"resourceRequirements": resources(MEMORY="4096")}),
    ("memory", 2048, {"memory": 4096}),
    ("gpus", 1, {"resourceRequirements": resources(GPU="1")}),
]


@pytest.mark.parametrize(("name", "value", "overrides"), CONTRADICTIONS)
def test_a_short_form_that_contradicts_container_overrides_is_rejected(
    name: str, value: Any, overrides: dict[str, Any]
) -> None:
    """Which of the two is meant cannot be known, neither for an operator nor for an item."""
    with pytest.raises(InvalidParameter) as error:
        batch(**{name: value}, container_overrides=overrides)
    assert str(error.value) == f"{name}={value!r}: is also set in container_overrides; set it in one place only"
    with pytest.raises(
        InvalidParameter, match=rf"items\[1\]=.*{name} is also set in container_overrides; set it in one place only"
    ):
        batch_map({}, {name: value, "container_overrides": overrides})


@pytest.mark.parametrize(("name", "value", "overrides"), CONTRADICTIONS)
def test_an_item_takes_precedence_over_the_operator(name: str, value: Any, overrides: dict[str, Any]) -> None:
    """This holds for both formats, in either place."""
    [alone] = batch_map({name: value})
    [said_by_item, other] = batch_map({name: value}, {}, container_overrides=overrides)
    assert said_by_item == alone
    assert other == batch_map({"container_overrides": overrides})[0]
    [said_by_item, other] = batch_map({"container_overrides": overrides}, {}, **{name: value})
    assert said_by_item == batch_map({"container_overrides": overrides})[0]
    assert other == alone


def test_an_item_adds_to_the_environment_of_the_operator() -> None:
    """This holds for the short form and for overrides."""
    [item] = batch_map(
        {"environment": {"B": "2", "C": "3"}, "container_overrides": {"environment": variables(A="9", D="4")}},
        environment={"A": "1", "B": "1", "E": "5"},
    )
    assert item["environment"] == {"A": "9", "B": "2", "C": "3", "D": "4", "E": "5"}


@pytest.mark.parametrize("elsewhere", ["node_overrides", "ecs_properties_override", "eks_properties_override"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value, _ in CONTRADICTIONS])
def test_a_job_without_container_overrides_rejects_short_forms(elsewhere: str, name: str, value: Any) -> None:
    """AWS accepts no containerOverrides for such a job."""
    with pytest.raises(InvalidParameter, match=f"{name}=.*does not apply with {elsewhere}; set it there"):
        batch(**{name: value, elsewhere: {}})


@pytest.mark.parametrize(
    ("name", "value"), [("container_overrides", {}), ("eks_properties_override", {}), ("image", "busybox")]
)
def test_parameters_for_different_types_of_jobs_exclude_each_other(name: str, value: Any) -> None:
    """AWS would reject them only after a definition was registered."""
    with pytest.raises(InvalidParameter, match=f"{name}=.*cannot be combined with node_overrides"):
        batch(**{"node_overrides": {}, name: value})


@pytest.mark.parametrize(
    "given", [{"vcpus": 0}, {"vcpus": "many"}, {"memory": 1}, {"memory": 2.5}, {"gpus": 0}, {"environment": ["A=1"]}]
)
def test_a_wrong_size_is_rejected(given: dict[str, Any]) -> None:
    """Nothing is sent before."""
    [(name, value)] = given.items()
    with pytest.raises(InvalidParameter) as error:
        batch(**given)
    assert str(error.value).startswith(f"{name}={value!r}: must be")


# An array of one.


def test_an_array_of_one_is_a_single_job_with_an_index() -> None:
    """AWS has no arrays of one."""
    from airflow_jobflow.jobs.array import as_plain_job

    request = batch(
        array_size=1,
        environment={"A": "1"},
        depends_on=[{"type": "SEQUENTIAL"}, {"jobId": "a", "type": "N_TO_N"}, {"jobId": "b"}],
    )
    job = as_plain_job(request)
    assert "arrayProperties" not in job
    assert job["dependsOn"] == [{"jobId": "a"}, {"jobId": "b"}]
    assert job["containerOverrides"]["environment"] == variables(A="1", JOBFLOW_ARRAY_INDEXES="0")


def test_an_array_of_one_may_have_several_containers() -> None:
    """They do not get the index, which is always 0."""
    from airflow_jobflow.jobs.array import as_plain_job

    job = as_plain_job(batch(array_size="1", ecs_properties_override={"taskProperties": []}, depends_on=[]))
    assert job.keys() == {"jobName", "jobQueue", "jobDefinition", "ecsPropertiesOverride"}


@pytest.mark.parametrize("pass_context", [True, False])
def test_an_array_of_one_may_run_on_eks(pass_context: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch rejects the index there. It is 0, which scripts take for granted."""
    given: Any = {"job_name": "n", "job_queue": "q", "job_definition": "on-eks", "array_size": 1}
    aws, sent = ScriptedAws(), []

    def submit_job(**request: Any) -> Any:
        sent.append(request)
        if "containerOverrides" in request:
            message = "Container overrides or node overrides should not be set for Batch on EKS jobs."
            raise CallError(Fault.REJECTED, f"SubmitJob: ClientException: {message}", "ClientException")
        return {"jobId": "job-1"}

    monkeypatch.setattr(aws, "submit_job", submit_job, raising=False)
    task = BatchJobOperator(task_id="t", pass_context=pass_context, **given)
    jobs, record = task._execution.jobs, task._execution.record
    monkeypatch.setattr(jobs, "call", lambda function, *arguments, **_: function(aws, *arguments))
    record._resolved_location = "here"
    record.begin(cast("Any", context()))
    assert task._execution.spec.submit(record, jobs) == ["job-1"]
    assert [bool(request.get("containerOverrides")) for request in sent] == [True, False]


# Fargate.


def test_a_command_with_overrides_of_another_container() -> None:
    """Only overrides of the same container are a contradiction."""
    other = {"name": "sidecar", "command": ["b"], "environment": variables(A="2")}
    overrides = ecs(command=["a"], environment={"A": "1"}, overrides={"containerOverrides": [other]})
    assert overrides["containerOverrides"] == [
        other,
        {"name": "main", "command": ["a"], "environment": variables(A="1")},
    ]


def test_overrides_of_the_same_container_are_merged() -> None:
    """The two set different values."""
    own = {"name": "main", "cpu": 256, "environment": variables(A="1")}
    overrides = ecs(command=["a"], environment={"B": "2"}, overrides={"containerOverrides": [own], "cpu": "1024"})
    merged = {"name": "main", "cpu": 256, "command": ["a"], "environment": variables(A="1", B="2")}
    assert overrides == {"cpu": "1024", "containerOverrides": [merged]}


ECS_CONTRADICTIONS = [
    ("command", ["a"], {"containerOverrides": [{"name": "main", "command": ["b"]}]}),
    ("environment", {"A": "1"}, {"containerOverrides": [{"name": "main", "environment": variables(A="2")}]}),
    ("cpu", 512, {"cpu": "1024"}),
    ("memory", 1024, {"memory": "2048"}),
    ("ephemeral_storage", 30, {"ephemeralStorage": {"sizeInGiB": 40}}),
]


@pytest.mark.parametrize(("name", "value", "overrides"), ECS_CONTRADICTIONS)
def test_a_short_form_that_contradicts_overrides_is_rejected(name: str, value: Any, overrides: dict[str, Any]) -> None:
    """This holds for an operator and for an item."""
    with pytest.raises(InvalidParameter) as error:
        ecs(**{name: value}, overrides=overrides)
    assert str(error.value) == f"{name}={value!r}: is also set in overrides; set it in one place only"
    with pytest.raises(
        InvalidParameter, match=rf"items\[0\]=.*{name} is also set in overrides; set it in one place only"
    ):
        ecs_map({name: value, "overrides": overrides})


@pytest.mark.parametrize(("name", "value", "overrides"), ECS_CONTRADICTIONS)
def test_a_fargate_item_takes_precedence_over_the_operator(name: str, value: Any, overrides: dict[str, Any]) -> None:
    """This holds for both formats, in either place."""
    [said_by_item, other] = ecs_map({name: value}, {}, overrides=overrides)
    assert said_by_item == ecs_map({name: value})[0]
    assert other == ecs_map({"overrides": overrides})[0]
    [said_by_item, other] = ecs_map({"overrides": overrides}, {}, **{name: value})
    assert said_by_item == ecs_map({"overrides": overrides})[0]
    assert other == ecs_map({name: value})[0]


def test_a_fargate_item_for_another_container_keeps_the_command() -> None:
    """The operator's command is for the main container."""
    sidecar = {"name": "sidecar", "command": ["b"]}
    [item] = ecs_map({"overrides": {"containerOverrides": [sidecar]}}, command=["a"])
    assert item["containerOverrides"] == [
        {**sidecar, "environment": {}},
        {"name": "main", "command": ["a"], "environment": {}},
    ]


def test_a_log_line_has_only_the_beginning_of_long_variables() -> None:
    """Such as the source of a function; nobody could read the rest of the line."""
    request = batch(environment={"DAY": "1", "SOURCE": "x" * 2000})
    logged = batch_request.shortened(request)["containerOverrides"]["environment"]
    assert {each["name"]: each["value"] for each in logged} == {"DAY": "1", "SOURCE": "x" * 20 + "…"}
    assert len(request["containerOverrides"]["environment"][1]["value"]) == 2000
