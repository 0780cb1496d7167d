"""EcsTaskOperator and EcsMapOperator on the local AWS: tasks on EC2 and external instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.operators.definitions import forget_definitions
from airflow_jobflow.operators.ecs import EcsMapOperator, EcsTaskOperator
from tests.local.tries import retried

EC2 = {"launch_type": "EC2"}
SPOT = "spot-instances"


@pytest.fixture(scope="module")
def small() -> Iterator[LocalAws]:
    """A local AWS whose clusters have two instances of 1 vCPU and 1 GiB."""
    with LocalAws(settings=Settings(instances=2, instance_cpu=1024, instance_memory=1024, stop_grace=1)) as server:
        group = {"autoScalingGroupArn": "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:x:y/x"}
        server.client("ecs").create_capacity_provider(name=SPOT, autoScalingGroupProvider=group)
        yield server


@pytest.fixture
def kit(small: LocalAws, kit_class: dict[str, Any], here: Callable[[Any], None]) -> Any:
    """A cluster of the test's own, with a capacity provider of Spot instances."""
    here(small)
    small.set_faults(Faults())
    made = kit_class["ecs"](small)
    made.ecs.put_cluster_capacity_providers(
        cluster=made.cluster, capacityProviders=[SPOT], defaultCapacityProviderStrategy=[]
    )
    return made


def defined(kit: Any, script: str, *, network: str = "bridge", memory: int = 512) -> str:
    """Register a task definition for instances, and return its ARN."""
    main = kit.container(["sh", "-c", script], image="i", memory=memory)
    answer = kit.ecs.register_task_definition(family="f", networkMode=network, containerDefinitions=[main])
    return str(answer["taskDefinition"]["taskDefinitionArn"])


@pytest.fixture
def make(kit: Any) -> Callable[..., EcsTaskOperator]:
    """Return a function that creates an operator for the test's cluster, which by default waits on the worker."""

    def operator(script: str = "true", **parameters: Any) -> EcsTaskOperator:
        if not {"image", "definition", "task_definition"} & set(parameters):
            parameters["task_definition"] = defined(kit, script)
        defaults = {"task_id": "t", "cluster": kit.cluster, "aws_conn_id": None, "deferrable": False}
        return EcsTaskOperator(**{**defaults, **parameters})

    return operator


@pytest.fixture
def make_map(kit: Any) -> Callable[..., EcsMapOperator]:
    """Return a function that creates a map for the test's cluster."""

    def operator(script: str = "true", **parameters: Any) -> EcsMapOperator:
        defaults = {"task_id": "t", "cluster": kit.cluster, "aws_conn_id": None, "deferrable": False}
        return EcsMapOperator(**{**defaults, "task_definition": defined(kit, script), **parameters})

    return operator


def test_a_task_runs_on_an_instance_without_a_network(kit: Any, make: Any, context: Any) -> None:
    """Its usage says on which capacity."""
    outcome = make("echo hi", **EC2).execute(context)
    assert (outcome["state"], outcome["exit_code"]) == ("SUCCEEDED", 0)
    assert outcome["usage"]["capacity"] == "EC2"
    assert "containerInstanceArn" in kit.look(outcome["job_id"])
    assert kit.lines(outcome["job_id"]) == ["hi"]


def test_a_task_without_launch_type_and_strategy_runs_where_the_cluster_decides(
    kit: Any, make: Any, context: Any
) -> None:
    """Nothing about capacity is sent."""
    strategy = [{"capacityProvider": SPOT, "weight": 1}]
    kit.ecs.put_cluster_capacity_providers(
        cluster=kit.cluster, capacityProviders=[SPOT], defaultCapacityProviderStrategy=strategy
    )
    assert make().execute(context)["usage"]["capacity"] == SPOT


def test_a_task_with_an_interface_of_its_own(kit: Any, make: Any, context: Any) -> None:
    """The network mode awsvpc takes subnets."""
    definition = defined(kit, "true", network="awsvpc")
    outcome = make(task_definition=definition, subnets=["subnet-1"], **EC2).execute(context)
    [attachment] = kit.look(outcome["job_id"])["attachments"]
    assert {"name": "subnetId", "value": "subnet-1"} in attachment["details"]


def test_a_missing_network_of_an_existing_definition_is_rejected_by_aws(kit: Any, make: Any, context: Any) -> None:
    """Its network mode is not looked up, because AWS's error is clear."""
    definition = defined(kit, "true", network="awsvpc")
    with pytest.raises(exceptions.SubmissionRejected, match="Network Configuration must be provided when networkMode"):
        make(task_definition=definition, **EC2).execute(context)


def test_an_external_task_runs(kit: Any, make: Any, context: Any) -> None:
    """On an instance that is not in EC2."""
    outcome = make(launch_type="EXTERNAL").execute(context)
    assert outcome["usage"]["capacity"] == "EXTERNAL"


def test_a_deferred_task_on_an_instance_ends_the_same_way(make: Any, context: Any, gate: Any) -> None:
    """The trigger is the same as on Fargate."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True, **EC2)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    gate.touch()
    event = asyncio.run(deferred.value.trigger.wait())
    assert operator.execute_complete(context, event)["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("parameters", "registered"),
    [
        ({**EC2}, {"requiresCompatibilities": ["EC2"], "networkMode": "bridge", "memory": None}),
        (
            {**EC2, "subnets": ["subnet-1"], "cpu": 128, "memory": 64},
            {"requiresCompatibilities": ["EC2"], "networkMode": "awsvpc", "cpu": "128", "memory": "64"},
        ),
        ({"launch_type": "EXTERNAL", "network_mode": "host"}, {"networkMode": "host"}),
        ({"capacity_provider_strategy": {SPOT: 1}, "gpus": 1}, {"networkMode": "bridge"}),
    ],
    ids=["EC2", "awsvpc", "external", "strategy"],
)
def test_an_image_runs_on_instances(
    kit: Any, make: Any, context: Any, parameters: dict[str, Any], registered: dict[str, Any]
) -> None:
    """Its definition fits the capacity, needs no execution role, and is registered once."""
    for _ in range(2):
        forget_definitions()
        outcome = make(image="busybox", command=["true"], **parameters).execute(context)
        assert outcome["state"] == "SUCCEEDED"
        arn = kit.look(outcome["job_id"])["taskDefinitionArn"]
        definition = kit.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
        assert arn.endswith(":1")
        assert {name: definition.get(name) for name in registered} == registered


def test_a_task_on_an_instance_returns_a_result(make: Any, context: Any) -> None:
    """Its container gets the same variables as on Fargate."""
    script = """echo "JOBFLOW_RESULT [\\"$AIRFLOW_CTX_TASK_ID\\"]" """
    outcome = make(image="busybox", command=["sh", "-c", script], result="log", **EC2).execute(context)
    assert outcome["result"] == [context["ti"].task_id]


def test_a_task_waits_for_the_resources_of_another(kit: Any, make: Any, context: Any, gate: Any) -> None:
    """It is not started before, and not failed."""
    waits = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    large = {"overrides": {"memory": "1024"}, "taskDefinition": defined(kit, waits)}
    kit.ecs.run_task(cluster=kit.cluster, launchType="EC2", count=2, **large)
    with pytest.raises(exceptions.QueueTimeout, match=r"RESOURCE:MEMORY.*nothing was started"):
        make(queued_timeout=0.2, **EC2).execute(context)
    gate.touch()
    assert make(**EC2).execute(context)["state"] == "SUCCEEDED"


def test_a_cluster_without_instances_is_waited_for(kit: Any, make: Any, context: Any) -> None:
    """Somebody, or an Auto Scaling group, may start some."""
    kit.ecs.list_container_instances(cluster=kit.cluster)
    arns = kit.ecs.list_container_instances(cluster=kit.cluster)["containerInstanceArns"]
    kit.ecs.update_container_instances_state(cluster=kit.cluster, containerInstances=arns, status="DRAINING")
    with pytest.raises(exceptions.QueueTimeout, match=r"No Container Instances were found.*nothing was started"):
        make(queued_timeout=0.2, **EC2).execute(context)


def test_a_constraint_that_no_instance_satisfies_is_final(make: Any, context: Any) -> None:
    """ECS starts no instance because of it."""
    nowhere = [{"type": "memberOf", "expression": "attribute:ecs.instance-type == p5.48xlarge"}]
    with pytest.raises(exceptions.SubmissionRejected, match="MemberOf placement constraint unsatisfied"):
        make(placement_constraints=nowhere, **EC2).execute(context)


def test_a_full_instance_that_satisfies_a_constraint_is_waited_for(kit: Any, make: Any, context: Any) -> None:
    """The other instances do not satisfy it, and are named in the same response."""
    one = [{"type": "memberOf", "expression": "attribute:ecs.availability-zone == us-east-1b"}]
    definition = defined(kit, "sleep 30", memory=1024)
    kit.ecs.run_task(cluster=kit.cluster, launchType="EC2", taskDefinition=definition, placementConstraints=one)
    with pytest.raises(exceptions.QueueTimeout, match=r"MemberOf .*; RESOURCE:MEMORY"):
        make(queued_timeout=0.2, placement_constraints=one, **EC2).execute(context)


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_the_end_of_a_spot_instance_starts_another_attempt(
    small: LocalAws, kit: Any, make: Any, context: Any, policy: str
) -> None:
    """Unless the task says otherwise."""
    small.set_faults(Faults(interrupt_spot=1))
    operator = make("sleep 0.3", capacity_provider_strategy={SPOT: 1}, on_spot_interruption=policy)
    if policy == "fail":
        with pytest.raises(exceptions.JobFailed, match=r"Host EC2 \(instance i-\w+\) terminated") as error:
            operator.execute(context)
        assert error.value.diagnosis
        assert error.value.diagnosis.cause == "spot_reclaimed"
    else:
        assert operator.execute(context)["state"] == "SUCCEEDED"
    started = [each for each in small.started("ecs") if each["clusterArn"].endswith(kit.cluster)]
    assert len(started) == (2 if policy == "retry" else 1)


def test_a_container_with_a_limit_of_its_own_gets_more_memory(kit: Any, make: Any, context: Any) -> None:
    """On instances, most definitions limit the container and not the task."""
    context["ti"].max_tries = 1
    rules = {**EC2, "on_out_of_memory": {"memory": "x1.5"}}
    with pytest.raises(exceptions.JobFailed, match="the limit of container main to 768 MiB"):
        make("exit 137", **rules).execute(context)
    outcome = make("true", **rules).execute(retried(context))
    task = kit.look(outcome["job_id"])
    assert (task["memory"], task["containers"][0]["memory"]) == ("768", "768")


def test_a_task_without_free_resources_is_started_on_other_capacity(
    kit: Any, make: Any, context: Any, gate: Any
) -> None:
    """With ``on_capacity``, launch type and capacity provider replace each other."""
    definition = defined(kit, f"while [ ! -e {gate} ]; do sleep 0.02; done", memory=1024)
    kit.ecs.run_task(cluster=kit.cluster, launchType="EC2", taskDefinition=definition, count=2)
    outcome = make(**EC2, on_capacity={"capacity_provider_strategy": {SPOT: 1}}).execute(context)
    gate.touch()
    assert outcome["usage"]["capacity"] == SPOT


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"ephemeral_storage": 30}, r"items\[1\]\['ephemeral_storage'\]=30: only Fargate supports it"),
        ({"memory": 5}, r"items\[1\]\['memory'\]=5: must be a number of at least 6"),
    ],
)
def test_a_bad_item_is_named(make_map: Any, context: Any, item: dict[str, Any], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(exceptions.InvalidParameter, match=said):
        make_map(items=[{}, item], **EC2).execute(context)


def test_a_map_of_more_tasks_than_fit_runs_them_all(small: LocalAws, kit: Any, make_map: Any, context: Any) -> None:
    """Two run at a time; the others wait for free memory. Each is started once."""
    items = [{"environment": {"N": str(number)}} for number in range(8)]
    result = make_map("sleep 0.1", items=items, memory=1024, **EC2).execute(context)
    assert result["statuses"] == "S" * 8
    assert len([each for each in small.started("ecs") if each["clusterArn"].endswith(kit.cluster)]) == 8


def test_an_item_whose_instance_ends_gets_another_attempt(
    small: LocalAws, kit: Any, make_map: Any, context: Any
) -> None:
    """Only this item."""
    small.set_faults(Faults(interrupt_spot=1))
    strategy = {"capacity_provider_strategy": {SPOT: 1}}
    assert make_map("sleep 0.2", items=[{}] * 3, **strategy).execute(context)["statuses"] == "SSS"
    assert len([each for each in small.started("ecs") if each["clusterArn"].endswith(kit.cluster)]) == 4


AWSVPC = {"definition": {"networkMode": "awsvpc", "containerDefinitions": [{"name": "main", "image": "i"}]}}
BRIDGE = {"definition": {"containerDefinitions": [{"name": "main", "image": "i"}]}}
SUBNETS = {"subnets": ["s"]}
WHOLE = {"network_configuration": {"awsvpcConfiguration": {"subnets": ["s"]}}}
IMAGE = {"image": "i"}
FARGATE = {"launch_type": "FARGATE", "subnets": ["s"]}
GPU = {"containerOverrides": [{"name": "main", "resourceRequirements": [{"type": "GPU", "value": "1"}]}]}
STRATEGY = {"capacity_provider_strategy": {SPOT: 1}}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            AWSVPC,
            "subnets=None: the network mode awsvpc needs at least one subnet; give subnets, or use the mode bridge",
        ),
        ({**IMAGE, "network_mode": "awsvpc"}, "subnets=None: the network mode awsvpc needs"),
        ({**BRIDGE, **SUBNETS}, "subnets=.*: the network mode bridge of the task definition takes no network"),
        ({**BRIDGE, **WHOLE}, "network_configuration=.*: the network mode bridge"),
        ({**IMAGE, **SUBNETS, "network_mode": "host"}, "subnets=.*: the network mode host"),
        ({"security_groups": ["g"]}, "subnets=None: security_groups needs at least one subnet"),
        ({**SUBNETS, **WHOLE}, "is also set in network_configuration"),
        ({"network_mode": "host"}, "network_mode='host': applies only with image, not with task_definition"),
        ({**IMAGE, "network_mode": "bridged"}, "must be one of bridge, host, awsvpc, none"),
        ({"launch_type": "FARGATE"}, "subnets=None: a Fargate task needs at least one subnet"),
        ({"capacity_provider_strategy": {"FARGATE_SPOT": 1}}, "a Fargate task needs at least one subnet"),
        ({**FARGATE, **IMAGE}, "execution_role=None: Fargate needs the ARN"),
        ({**FARGATE, **IMAGE, "execution_role": "r", "network_mode": "host"}, "Fargate supports only awsvpc"),
        ({**FARGATE, "gpus": 1}, "gpus=1: Fargate has no GPUs"),
        ({**FARGATE, "placement_strategy": [{"type": "random"}]}, "placement_strategy=.*: Fargate has no instances"),
        ({**FARGATE, "placement_constraints": [{"type": "distinctInstance"}]}, "Fargate has no instances"),
        ({"launch_type": "EC2", **STRATEGY}, "launch_type='EC2': capacity_provider_strategy is also given"),
        ({"launch_type": "ec2"}, "launch_type='ec2': must be one of EC2, EXTERNAL, FARGATE"),
        ({"launch_type": "MANAGED_INSTANCES"}, "name the capacity provider of the instances"),
        ({**EC2, "platform_version": "LATEST"}, "platform_version='LATEST': only Fargate supports it"),
        ({**EC2, "ephemeral_storage": 30}, "ephemeral_storage=30: only Fargate supports it"),
        ({**EC2, **SUBNETS, "assign_public_ip": True}, "assign_public_ip=True: only Fargate supports it"),
        ({"launch_type": "EXTERNAL", **SUBNETS}, "subnets=.*: external instances take no network"),
        ({"launch_type": "EXTERNAL", **IMAGE, "network_mode": "awsvpc"}, "external instances support only bridge"),
        ({"on_spot_interruption": "on_demand"}, "on_spot_interruption='on_demand': must be one of fail, retry"),
        ({"placement_constraints": {"type": "distinctInstance"}}, "placement_constraints=.*must be a list"),
        ({"placement_constraints": [{"kind": "distinctInstance"}]}, "AWS has no member 'kind'"),
        ({"placement_strategy": "spread"}, "placement_strategy='spread': must be a list"),
        ({"placement_strategy": [{"type": "spread", "fields": ["x"]}]}, "AWS has no member 'fields'"),
        ({"cpu": 0.5}, "cpu=0.5: must be a number of at least 128"),
        ({"cpu": 128.5}, "cpu=128.5: must be a whole number"),
        ({"memory": "64.5"}, "memory='64.5': must be a whole number"),
        ({"memory": 5}, r"memory=5: must be a number of at least 6 \(MiB\)"),
        ({"gpus": 0}, "gpus=0: must be a number of at least 1"),
        ({"gpus": 1.5}, "gpus=1.5: must be a whole number"),
        ({"gpus": 1, "container_name": "main", "overrides": GPU}, "gpus=1: is also set in overrides"),
        (
            {**IMAGE, **EC2, "execution_role": "r", "on_capacity": FARGATE},
            "on_capacity=.*: cannot be applied: image='i': the next attempt would need another task definition",
        ),
        (
            {**EC2, "on_capacity": {"launch_type": "FARGATE"}},
            "on_capacity=.*: a Fargate task needs at least one subnet",
        ),
    ],
)
def test_bad_parameters_are_rejected_by_name(parameters: dict[str, Any], said: str) -> None:
    """Before anything is started, in tasks and in maps."""
    names = {"task_id": "t", "cluster": "c"}
    if not {"image", "definition"} & set(parameters):
        names["task_definition"] = "d"
    for operator in (EcsTaskOperator(**names, **parameters), EcsMapOperator(**names, **parameters, items=[{}])):
        with pytest.raises(exceptions.InvalidParameter, match=said):
            operator.check()
