"""What ``on_out_of_memory``, ``on_capacity`` and ``on_timeout`` may say: all else is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.exceptions import InvalidParameter, JobFailed
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import EcsTaskOperator, FargateTaskOperator
from tests.unit.scripted_aws import context

BATCH: dict[str, Any] = {"task_id": "t", "job_name": "n", "job_queue": "q", "job_definition": "d"}
ECS: dict[str, Any] = {"task_id": "t", "cluster": "c", "task_definition": "d", "subnets": ["s"]}
SPOT = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on_out_of_memory": {}}, "on_out_of_memory={}: must set at least one parameter"),
        ({"on_out_of_memory": "x2"}, "on_out_of_memory='x2': must be a dict with what the next attempt gets"),
        (
            {"on_out_of_memory": {"job_name": "m"}},
            "'job_name' cannot be changed; it may set job_queue, memory, vcpus, gpus, attempt_timeout, retry_strategy",
        ),
        (
            {"on_capacity": {"memory": "2x"}},
            "on_capacity['memory']='2x': must be a number of at least 4 (MiB), or a factor",
        ),
        ({"on_out_of_memory": {"memory": "x1"}}, "on_out_of_memory['memory']='x1': a factor must be above 1"),
        ({"on_out_of_memory": {"memory": "x1e308"}}, "a factor must be above 1, and at most 1000"),
        ({"on_capacity": {"job_queue": "x2"}}, "a factor applies only to vcpus, memory, attempt_timeout"),
        ({"on_out_of_memory": {"memory": 1024, "max": 2048}}, "on_out_of_memory['max']=2048: bounds one factor"),
        ({"on_out_of_memory": {"memory": "x2", "vcpus": "x2", "max": 4}}, "and there is more than one"),
        ({"on_out_of_memory": {"memory": "x2", "max": "much"}}, "on_out_of_memory['max']='much': must be a number"),
        (
            {"memory": 4096, "on_out_of_memory": {"memory": "x2", "max": 2048}},
            "on_out_of_memory['max']=2048: is less than memory=4096, which the first attempt gets",
        ),
        (
            {"memory": 4096, "on_out_of_memory": {"memory": 512}},
            "on_out_of_memory['memory']=512: is less than memory=4096",
        ),
        (
            {"on_out_of_memory": {"memory": "x2"}, "on_capacity": {"memory": 8192}},
            "on_capacity['memory']=8192: on_out_of_memory sets memory to 'x2'; give both the same value, or only one",
        ),
        (
            {"on_out_of_memory": {"job_queue": "a"}, "on_capacity": {"job_queue": "b"}},
            "on_capacity['job_queue']='b': on_out_of_memory sets job_queue to 'a'",
        ),
        ({"on_capacity": {"retry_strategy": {"tries": 2}}}, "on_capacity['retry_strategy']"),
        (
            {"on_out_of_memory": {"memory": "x2"}, "node_overrides": {"numNodes": 2}},
            "'memory' cannot be changed; it may set job_queue, attempt_timeout",
        ),
        (
            {"on_capacity": {"job_queue": "b"}, "durable": False},
            "durable=False: must be True with on_capacity, because",
        ),
        (
            {"on_timeout": {"memory": "x2"}, "wait_for_completion": False},
            "wait_for_completion=False: must be True with",
        ),
        ({"on_timeout": {"memory": "x2"}, "raise_on_failure": False}, "raise_on_failure=False: must be True with"),
    ],
)
def test_a_rule_that_makes_no_sense_is_rejected_by_name(given: dict[str, Any], message: str) -> None:
    """A rule that is misread costs money, or helps nobody when it is needed."""
    with pytest.raises(InvalidParameter) as rejected:
        BatchJobOperator(**BATCH, **given).check()
    assert message in str(rejected.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {**SPOT, "on_capacity": {"subnets": ["s"]}, "on_spot_interruption": "on_demand"},
            "on_spot_interruption='on_demand': on_capacity is also given",
        ),
        ({"on_capacity": {"capacity_provider_strategy": {"mine": 1}}}, "mine is not a capacity provider of Fargate"),
        ({"on_capacity": {"launch_type": "EC2"}}, "'launch_type' cannot be changed"),
        ({"on_capacity": {"cluster": "other"}}, "'cluster' cannot be changed"),
        (
            {
                "subnets": None,
                "network_configuration": {"awsvpcConfiguration": {"subnets": ["s"]}},
                "on_capacity": {"subnets": ["t"]},
            },
            "on_capacity={'subnets': ['t']}: cannot be applied: subnets=['t']: is also set in network_configuration",
        ),
        ({"on_out_of_memory": {"memory": 100}}, "on_out_of_memory['memory']=100: must be a number of at least 512"),
    ],
)
def test_a_rule_of_fargate_that_makes_no_sense_is_rejected_by_name(given: dict[str, Any], message: str) -> None:
    """Such a task would start, and its retry would be rejected by AWS."""
    with pytest.raises(InvalidParameter) as rejected:
        FargateTaskOperator(**{**ECS, **given}).check()
    assert message in str(rejected.value)


@pytest.mark.parametrize("operator", [BatchJobOperator(**BATCH), FargateTaskOperator(**ECS)], ids=["batch", "ecs"])
def test_rules_may_be_text(operator: Any) -> None:
    """Templates render numbers, and whole dicts, as text."""
    operator.on_out_of_memory, operator.on_capacity = '{"memory": "x2", "max": "8192"}', {"memory": "x1.5"}
    operator.check()
    assert operator._execution.spec.changes.rules == {"m": {"memory": "x2", "max": 8192}, "c": {"memory": "x1.5"}}


def test_the_same_value_in_two_rules_is_no_conflict() -> None:
    """It is clear what the next attempt gets."""
    large = {"job_queue": "large"}
    operator = BatchJobOperator(**BATCH, on_out_of_memory={"memory": "x2", **large}, on_capacity=large)
    operator.check()
    assert operator._execution.spec.changes


def test_a_strategy_replaces_the_launch_type() -> None:
    """ECS rejects a request that has both."""
    rule = {"capacity_provider_strategy": {"FARGATE": 1}, "memory": 1024}
    operator = FargateTaskOperator(**ECS, on_capacity=rule)
    operator.check()
    spec: Any = operator._execution.spec
    from airflow_jobflow.operators.ecs_parameters import changed

    request = spec.parameters.request(changed(spec.values, spec.changes.rules["c"]), "main")
    assert request["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE", "weight": 1}]
    assert "launchType" not in request


def test_a_rule_without_a_store_is_checked_only_where_it_matters() -> None:
    """On Airflow 3.2, memory can be changed, because that does not change where the job is found."""
    task_context: Any = context()
    del task_context["task_state_store"]
    operator = BatchJobOperator(**BATCH, on_out_of_memory={"memory": "x2"}, deferrable=False)
    execution = operator._execution
    execution.record.begin(task_context)
    from airflow_jobflow.operators.change_rules import check_store

    check_store(execution)
    assert JobFailed("it failed").change is None


def test_two_rules_that_a_task_cannot_have_together_are_rejected() -> None:
    """A task that failed for one cause and then for the other would be rejected by AWS."""
    strategy = {"capacity_provider_strategy": {"mine": 1}}
    rules: dict[str, Any] = {"on_out_of_memory": {"launch_type": "EC2"}, "on_capacity": strategy}
    EcsTaskOperator(**ECS, on_capacity=strategy).check()
    with pytest.raises(InvalidParameter, match=r"on_capacity=.*launch_type='EC2': capacity_provider"):
        EcsTaskOperator(**ECS, **rules).check()
