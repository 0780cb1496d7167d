"""ECS tasks on container instances: where they are placed, what is free, and what is rejected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.local.ecs import placement
from airflow_jobflow.local.ecs.placement import Host, Resources

UNTIL_STOPPED = "sleep 30"
AWSVPC = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}


class Cluster:
    """A cluster with two small instances, and short forms to run and stop tasks."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.ecs = kit.ecs

    def define(self, script: str = UNTIL_STOPPED, *, network: str = "bridge", **container: Any) -> str:
        """Register a task definition for instances, and return its ARN."""
        main = self.kit.container(["sh", "-c", script], image="i", memoryReservation=64, **container)
        answer = self.ecs.register_task_definition(
            family="on-instances", networkMode=network, containerDefinitions=[main]
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def run(self, **request: Any) -> dict[str, Any]:
        """Return the response of RunTask for EC2, unless the request says something else."""
        if not {"launchType", "capacityProviderStrategy"} & set(request):
            request["launchType"] = "EC2"
        if "taskDefinition" not in request:
            request["taskDefinition"] = self.define()
        return dict(self.ecs.run_task(cluster=self.kit.cluster, **request))

    def place(self, **request: Any) -> str:
        """Run one task, and return the ARN of its instance."""
        answer = self.run(**request)
        assert answer["failures"] == []
        [task] = answer["tasks"]
        return str(task["containerInstanceArn"])

    def instances(self) -> list[dict[str, Any]]:
        """Return the instances of the cluster, as ECS describes them."""
        arns = self.ecs.list_container_instances(cluster=self.kit.cluster)["containerInstanceArns"]
        answer = self.ecs.describe_container_instances(cluster=self.kit.cluster, containerInstances=arns)
        return list(answer["containerInstances"])

    def free(self, name: str) -> list[int]:
        """Return what the instances have free of a resource."""
        return [
            resource["integerValue"]
            for each in self.instances()
            for resource in each["remainingResources"]
            if resource["name"] == name
        ]


@pytest.fixture(scope="module")
def small() -> Iterator[LocalAws]:
    """A local AWS whose clusters have two instances of 2 vCPUs and 2 GiB."""
    with LocalAws(settings=Settings(instances=2, instance_cpu=2048, instance_memory=2048, stop_grace=1)) as server:
        yield server


@pytest.fixture
def cluster(small: LocalAws, kit_class: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster of the test's own, whose tasks are stopped at its end."""
    small.set_faults(Faults())
    made = Cluster(kit_class["ecs"](small))
    yield made
    for arn in made.kit.listed():
        made.ecs.stop_task(cluster=made.kit.cluster, task=arn)


def test_a_task_on_an_instance_runs_without_a_network(cluster: Cluster) -> None:
    """It has its instance instead of a platform version, and its size is that of its containers."""
    answer = cluster.run(taskDefinition=cluster.define("echo $AWS_EXECUTION_ENV", cpu=128))
    task = cluster.kit.wait(answer["tasks"][0]["taskArn"])
    assert (task["launchType"], task["cpu"], task["memory"]) == ("EC2", "128", "64")
    assert task["containers"][0]["exitCode"] == 0
    assert task["containerInstanceArn"] in {each["containerInstanceArn"] for each in cluster.instances()}
    assert not {"platformVersion", "ephemeralStorage"} & set(task)
    assert task["attachments"] == []
    assert cluster.kit.lines(task["taskArn"]) == ["AWS_ECS_EC2"]


def test_a_full_cluster_says_what_each_instance_lacks_until_a_task_stops(cluster: Cluster) -> None:
    """A failure names the instance."""
    definition = cluster.define()
    large = {"taskDefinition": definition, "overrides": {"cpu": "1024", "memory": "2048"}}
    first, second = cluster.run(count=2, **large)["tasks"]
    assert first["containerInstanceArn"] != second["containerInstanceArn"]
    assert (cluster.free("CPU"), cluster.free("MEMORY")) == ([1024, 1024], [0, 0])
    answer = cluster.run(**large)
    assert answer["tasks"] == []
    assert {each["reason"] for each in answer["failures"]} == {"RESOURCE:MEMORY"}
    assert {each["arn"] for each in answer["failures"]} == {
        each["containerInstanceArn"] for each in cluster.instances()
    }
    cluster.ecs.stop_task(cluster=cluster.kit.cluster, task=first["taskArn"])
    cluster.kit.wait(first["taskArn"])
    assert cluster.place(**large) == first["containerInstanceArn"]


def test_only_the_tasks_that_fit_are_started(cluster: Cluster) -> None:
    """As on AWS, a response may have both."""
    answer = cluster.run(count=3, overrides={"cpu": "2048"})
    assert len(answer["tasks"]) == 2
    assert [each["reason"] for each in answer["failures"]] == ["RESOURCE:CPU"] * 2


def test_a_gpu_is_used_by_one_task(cluster: Cluster) -> None:
    """Each instance has one."""
    gpu = {"taskDefinition": cluster.define(resourceRequirements=[{"type": "GPU", "value": "1"}])}
    assert len(cluster.run(count=2, **gpu)["tasks"]) == 2
    assert {each["reason"] for each in cluster.run(**gpu)["failures"]} == {"RESOURCE:GPU"}


def test_placement_constraints_and_strategies_choose_the_instance(cluster: Cluster) -> None:
    """Distinct instances, members of an expression, and packing."""
    distinct = {"placementConstraints": [{"type": "distinctInstance"}], "group": "apart"}
    assert len({cluster.place(**distinct) for _ in range(2)}) == 2
    reasons = {each["reason"] for each in cluster.run(**distinct)["failures"]}
    assert reasons == {"DistinctInstance placement constraint unsatisfied."}
    in_zone = [{"type": "memberOf", "expression": "attribute:ecs.availability-zone == us-east-1b"}]
    [second] = {cluster.place(placementConstraints=in_zone) for _ in range(2)}
    assert cluster.place(placementStrategy=[{"type": "binpack", "field": "memory"}]) == second
    assert cluster.place(placementStrategy=[{"type": "spread", "field": "instanceId"}]) != second
    nowhere = [{"type": "memberOf", "expression": "attribute:ecs.instance-type =~ g4.*"}]
    reasons = {each["reason"] for each in cluster.run(placementConstraints=nowhere)["failures"]}
    assert reasons == {"MemberOf placement constraint unsatisfied."}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"networkConfiguration": AWSVPC}, "not valid for the given networkMode"),
        ({"platformVersion": "LATEST"}, "platform version must be null"),
        ({"placementConstraints": [{"type": "memberOf"}]}, "memberOf requires an expression"),
        ({"placementConstraints": [{"type": "memberOf", "expression": "nonsense"}]}, "does not support the expression"),
        ({"placementConstraints": [{"type": "distinctInstance"}] * 11}, "at most 10"),
        ({"placementStrategy": [{"type": "random"}] * 6}, "at most 5"),
        ({"placementStrategy": [{"type": "tight"}]}, "enum value set"),
        (
            {"placementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.os-type =~ ["}]},
            "is not a valid pattern",
        ),
        ({"overrides": {"cpu": "much"}}, "Invalid 'cpu' setting for task"),
        ({"overrides": {"memory": "0"}}, "Invalid 'memory' setting for task"),
        ({"launchType": "FARGATE"}, "does not support launch_type FARGATE"),
        ({"launchType": "MANAGED_INSTANCES"}, "require a capacity provider strategy"),
    ],
)
def test_what_does_not_apply_to_instances_is_rejected(cluster: Cluster, request_: dict[str, Any], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(ClientError, match=said):
        cluster.run(**request_)
    assert cluster.kit.listed() == set()


def test_the_network_mode_awsvpc_needs_a_network(cluster: Cluster) -> None:
    """And gives the task an interface."""
    definition = cluster.define(network="awsvpc")
    with pytest.raises(ClientError, match="Network Configuration must be provided"):
        cluster.run(taskDefinition=definition)
    [task] = cluster.run(taskDefinition=definition, networkConfiguration=AWSVPC)["tasks"]
    assert [each["type"] for each in task["attachments"]] == ["ElasticNetworkInterface"]
    with pytest.raises(ClientError, match="does not support launch_type EXTERNAL"):
        cluster.run(taskDefinition=definition, networkConfiguration=AWSVPC, launchType="EXTERNAL")


def test_a_container_on_an_instance_needs_memory(cluster: Cluster) -> None:
    """ECS has no default."""
    with pytest.raises(ClientError, match="At least one of 'memory' or 'memoryReservation' must be specified"):
        cluster.ecs.register_task_definition(family="f", containerDefinitions=[{"name": "main", "image": "i"}])


def test_external_instances_run_only_external_tasks(cluster: Cluster) -> None:
    """They are instances of their own."""
    external, other = cluster.place(launchType="EXTERNAL"), cluster.place()
    ids = {each["containerInstanceArn"]: each["ec2InstanceId"] for each in cluster.instances()}
    assert (ids[external][:3], ids[other][:2]) == ("mi-", "i-")


def test_a_capacity_provider_has_instances_of_its_own(cluster: Cluster) -> None:
    """Of EC2, of which launch type EC2 may use them too."""
    group = {
        "autoScalingGroupArn": "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:x:autoScalingGroupName/x"
    }
    mine = f"mine-{cluster.kit.cluster}"
    cluster.ecs.create_capacity_provider(name=mine, autoScalingGroupProvider=group)
    strategy = [{"capacityProvider": mine, "weight": 1}]
    with pytest.raises(ClientError, match="capacity provider was not found"):
        cluster.run(capacityProviderStrategy=strategy)
    cluster.ecs.put_cluster_capacity_providers(
        cluster=cluster.kit.cluster, capacityProviders=[mine], defaultCapacityProviderStrategy=strategy
    )
    definition = cluster.define()
    [task] = cluster.ecs.run_task(cluster=cluster.kit.cluster, taskDefinition=definition)["tasks"]
    assert (task["launchType"], task["capacityProviderName"]) == ("EC2", mine)
    [name] = {each.get("capacityProviderName") for each in cluster.instances()}
    assert name == mine


def test_registered_instances_replace_simulated_ones(cluster: Cluster) -> None:
    """They are moto's, and stay away when they are deregistered."""
    ec2 = cluster.kit.aws.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    [instance] = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"]
    document = f'{{"instanceId": "{instance["InstanceId"]}"}}'
    answer = cluster.ecs.register_container_instance(cluster=cluster.kit.cluster, instanceIdentityDocument=document)
    registered = answer["containerInstance"]["containerInstanceArn"]
    assert cluster.place() == registered
    [found] = cluster.instances()
    assert found["ec2InstanceId"] == instance["InstanceId"]
    cluster.ecs.deregister_container_instance(cluster=cluster.kit.cluster, containerInstance=registered, force=True)
    with pytest.raises(ClientError, match="No Container Instances were found in your cluster"):
        cluster.run()


def test_a_draining_instance_gets_no_task(cluster: Cluster) -> None:
    """Nor does a cluster whose instances all drain."""
    arns = [each["containerInstanceArn"] for each in cluster.instances()]
    for arn in arns:
        cluster.ecs.update_container_instances_state(
            cluster=cluster.kit.cluster, containerInstances=[arn], status="DRAINING"
        )
    with pytest.raises(ClientError, match="No Container Instances were found in your cluster"):
        cluster.run()


def test_start_task_uses_the_given_instances(cluster: Cluster) -> None:
    """An unknown one is a failure."""
    instance = cluster.instances()[0]["containerInstanceArn"]
    answer = cluster.ecs.start_task(
        cluster=cluster.kit.cluster, taskDefinition=cluster.define(), containerInstances=[instance, "nowhere"]
    )
    [task] = answer["tasks"]
    assert task["containerInstanceArn"] == instance
    assert answer["failures"] == [{"arn": "nowhere", "reason": "MISSING"}]
    assert cluster.kit.listed(containerInstance=instance) == {task["taskArn"]}


def test_the_end_of_an_instance_ends_its_tasks(cluster: Cluster) -> None:
    """With the reason that EC2 gives."""
    [task] = cluster.run()["tasks"]
    cluster.kit.wait(task["taskArn"], "RUNNING")
    cluster.kit.aws.interrupt_task(task["taskArn"])
    ended = cluster.kit.wait(task["taskArn"])
    assert ended["stopCode"] == "TerminationNotice"
    assert ended["stoppedReason"].startswith("Host EC2 (instance i-")


HOST = Host("arn", "i-1", {"ecs.os-type": "linux", "ecs.instance-type": "g4dn.xlarge"}, Resources(1, 1, 0), ())


@pytest.mark.parametrize(
    ("expression", "is_member"),
    [
        ("attribute:ecs.os-type == linux", True),
        ("attribute:ecs.os-type != linux", False),
        ("attribute:ecs.instance-type =~ g4.*", True),
        ("attribute:ecs.instance-type !~ g4.*", False),
        ("attribute:ecs.instance-type in [m5.large, g4dn.xlarge]", True),
        ("attribute:ecs.instance-type not_in [m5.large]", True),
        ("attribute:stack exists", False),
        ("attribute:stack !exists and attribute:ecs.os-type == linux", True),
        ("ec2InstanceId == i-2", False),
    ],
)
def test_expressions_select_instances(expression: str, is_member: bool) -> None:
    """The part of the cluster query language that the local AWS has."""
    assert placement.is_member(HOST, expression) is is_member
