"""ECS's calls for tasks: responses and rejections."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    """Return the code of a rejection."""
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        ({"count": 0}, "InvalidParameterException", "between 1 and 10"),
        ({"count": 11}, "InvalidParameterException", "between 1 and 10"),
        ({"clientToken": "x" * 65}, "InvalidParameterException", "clientToken"),
        ({"clientToken": "with space"}, "InvalidParameterException", "clientToken"),
        ({"startedBy": "x" * 129}, "InvalidParameterException", "startedBy"),
        (
            {"launchType": "FARGATE", "capacityProviderStrategy": SPOT},
            "InvalidParameterException",
            "Specify either Launch Type or Capacity Provider Strategy, but not both",
        ),
        ({"launchType": "EC2"}, "InvalidParameterException", "Assign public IP is not supported"),
        ({"launchType": "EXTERNAL"}, "InvalidParameterException", "does not support launch_type EXTERNAL"),
        ({"launchType": "MANAGED_INSTANCES"}, "InvalidParameterException", "require a capacity provider strategy"),
        (
            {"placementStrategy": [{"type": "random"}]},
            "InvalidParameterException",
            "placement is not supported with launch type FARGATE",
        ),
        (
            {"capacityProviderStrategy": [*SPOT, {"capacityProvider": "mine"}]},
            "InvalidParameterException",
            "cannot contain a mix of capacity providers",
        ),
        ({"launchType": "Fargate"}, "InvalidParameterException", r"'launchType' .* enum value set: \[EC2, FARGATE,"),
        ({"capacityProviderStrategy": []}, "InvalidParameterException", "Assign public IP is not supported"),
        ({"platformVersion": "9"}, "InvalidParameterException", "platform version does not exist"),
        ({"propagateTags": "SERVICE"}, "InvalidParameterException", "Tags can only be propagated"),
        (
            {"networkConfiguration": {}},
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": []}}},
            "InvalidParameterException",
            "subnets can not be empty.",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "other"}]}},
            "InvalidParameterException",
            "Override for container named other is not a container in the TaskDefinition.",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "main", "command": ["x" * 8192]}]}},
            "InvalidParameterException",
            "Container Overrides length must be at most 8192",
        ),
        ({"cluster": "nowhere"}, "ClusterNotFoundException", "Cluster not found."),
        (
            {"cluster": "arn:aws:ecs:us-east-1:999999999999:cluster/x"},
            "InvalidParameterException",
            "Identifier is for account 999999999999. Your accountId is",
        ),
        (
            {"cluster": "arn:aws:ecs:eu-west-1:999999999999:cluster/x"},
            "InvalidParameterException",
            "Identifier is for eu-west-1. Your region is us-east-1",
        ),
        (
            {"taskDefinition": "arn:aws:ecs:us-east-1:999999999999:task-definition/x:1"},
            "InvalidParameterException",
            "Identifier is for account 999999999999. Your accountId is",
        ),
        ({"overrides": {"cpu": "256", "memory": "128"}}, "ClientException", "No Fargate configuration exists"),
        ({"tags": [{"value": "x"}]}, "InvalidParameterException", "'tags.1.member.key'"),
        (
            {"overrides": {"containerOverrides": [{"name": "main", "environment": [{"value": "x"}]}]}},
            "InvalidParameterException",
            "'overrides.containerOverrides.1.member.environment.1.member.name'",
        ),
        ({"taskDefinition": "none"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "none:1"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "a:b:c"}, "InvalidParameterException", "Invalid task definition"),
    ],
)
def test_run_rejects(ecs_kit: Any, request_: dict[str, Any], code: str, said: str) -> None:
    """No task is started, and the messages are those of AWS if they are known."""
    with pytest.raises(ClientError, match=said) as caught:
        ecs_kit.ecs.run_task(**ecs_kit.request(**request_))
    assert code_of(caught) == code
    assert ecs_kit.listed() | ecs_kit.listed(desiredStatus="STOPPED") == set()


def test_definition_must_fit_fargate(ecs_kit: Any) -> None:
    """Its required compatibilities and its size count."""
    bare = {"requiresCompatibilities": ["EC2"], "networkMode": "bridge"}
    with pytest.raises(ClientError, match="Task definition does not support launch_type FARGATE"):
        ecs_kit.run(taskDefinition=ecs_kit.define(**bare))
    unsized = ecs_kit.ecs.register_task_definition(
        family=f"unsized-{uuid.uuid4().hex}",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        containerDefinitions=[{"name": "main", "image": "x", "command": ["true"], "memory": 128}],
    )["taskDefinition"]["taskDefinitionArn"]
    with pytest.raises(ClientError, match="'cpu' be defined at the task level"):
        ecs_kit.run(taskDefinition=unsized)
    task = ecs_kit.look(ecs_kit.run(taskDefinition=unsized, overrides={"cpu": "512", "memory": "1024"}))
    assert (task["cpu"], task["memory"]) == ("512", "1024")


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ([], "Container list cannot be empty."),
        ([{"image": "x"}], "Container.name should not be null or empty."),
        ([{"name": "main"}], "Container.image should not be null or empty."),
        ([{"name": "main", "image": "x"}, {"name": "other", "image": ""}], "Container.image should not be null"),
    ],
)
def test_containers_need_a_name_and_an_image(ecs_kit: Any, containers: list[dict[str, str]], said: str) -> None:
    """The error is a ClientException, not one about a parameter."""
    with pytest.raises(ecs_kit.ecs.exceptions.ClientException, match=said):
        ecs_kit.ecs.register_task_definition(family="incomplete", containerDefinitions=containers)


def test_family_alone_is_its_newest_active_revision(ecs_kit: Any) -> None:
    """An inactive revision is rejected."""
    first = ecs_kit.define()
    family = first.rsplit("/", 1)[1].split(":")[0]
    second = ecs_kit.ecs.register_task_definition(
        family=family,
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": "x", "command": ["true"]}],
    )["taskDefinition"]["taskDefinitionArn"]
    assert ecs_kit.look(ecs_kit.run(taskDefinition=family))["taskDefinitionArn"] == second
    assert ecs_kit.look(ecs_kit.run(taskDefinition=f"{family}:1"))["taskDefinitionArn"] == first
    ecs_kit.ecs.deregister_task_definition(taskDefinition=second)
    assert ecs_kit.look(ecs_kit.run(taskDefinition=family))["taskDefinitionArn"] == first
    with pytest.raises(ClientError, match="TaskDefinition is inactive"):
        ecs_kit.run(taskDefinition=second)


def test_response_shows_the_requested_task(ecs_kit: Any) -> None:
    """A new task is PROVISIONING with the desired status RUNNING; DescribeTasks includes tags on request only."""
    overrides = {
        "containerOverrides": [{"name": "main", "environment": [{"name": "A", "value": "1"}]}],
        "cpu": "512",
        "memory": "2048",
        "ephemeralStorage": {"sizeInGiB": 30},
    }
    answer = ecs_kit.ecs.run_task(
        **ecs_kit.request(
            capacityProviderStrategy=SPOT,
            count=2,
            startedBy="me/and_you-1",
            group="mine",
            tags=[{"key": "a", "value": "b"}],
            enableECSManagedTags=True,
            enableExecuteCommand=True,
            overrides=overrides,
        )
    )
    assert len(answer["tasks"]) == 2
    task = answer["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"]) == ("PROVISIONING", "RUNNING")
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")
    assert (task["platformVersion"], task["platformFamily"]) == ("1.4.0", "Linux")
    assert (task["startedBy"], task["group"]) == ("me/and_you-1", "mine")
    assert (task["cpu"], task["memory"], task["ephemeralStorage"]) == ("512", "2048", {"sizeInGiB": 30})
    assert task["overrides"]["containerOverrides"] == overrides["containerOverrides"]
    assert task["enableExecuteCommand"] is True
    assert task["tags"] == [{"key": "a", "value": "b"}, {"key": "aws:ecs:clusterName", "value": ecs_kit.cluster}]
    without = ecs_kit.ecs.describe_tasks(cluster=ecs_kit.cluster, tasks=[task["taskArn"]])["tasks"][0]
    assert without["tags"] == []
    by_launch_type = ecs_kit.look(ecs_kit.run())
    assert "capacityProviderName" not in by_launch_type
    assert by_launch_type["group"].startswith("family:family-")


def test_tag_calls_find_the_tags_of_tasks(ecs_kit: Any) -> None:
    """Moto handles TagResource and similar calls, consistently with DescribeTasks; tags of the definition can be
    propagated.
    """
    definition = ecs_kit.define(ecs_kit.container(["sleep", "60"]), tags=[{"key": "of", "value": "definition"}])
    task = ecs_kit.run(taskDefinition=definition, propagateTags="TASK_DEFINITION")
    ecs_kit.ecs.tag_resource(resourceArn=task, tags=[{"key": "new", "value": "1"}])
    expected = {("of", "definition"), ("new", "1")}
    assert {(tag["key"], tag["value"]) for tag in ecs_kit.look(task)["tags"]} == expected
    listed = ecs_kit.ecs.list_tags_for_resource(resourceArn=task)["tags"]
    assert {(tag["key"], tag["value"]) for tag in listed} == expected
    ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=task)
    assert ecs_kit.look(task)["tags"] == []


def test_default_strategy_of_the_cluster_is_used(ecs_kit: Any) -> None:
    """It applies if a request has neither a launch type nor a strategy; unknown providers are rejected."""
    ecs_kit.ecs.put_cluster_capacity_providers(
        cluster=ecs_kit.cluster, capacityProviders=["FARGATE"], defaultCapacityProviderStrategy=[]
    )
    with pytest.raises(ClientError, match="not associated with the cluster"):
        ecs_kit.run(capacityProviderStrategy=SPOT)
    ecs_kit.ecs.put_cluster_capacity_providers(
        cluster=ecs_kit.cluster,
        capacityProviders=["FARGATE_SPOT"],
        defaultCapacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
    )
    request = ecs_kit.request()
    del request["launchType"]
    (task,) = ecs_kit.ecs.run_task(**request)["tasks"]
    assert task["capacityProviderName"] == "FARGATE_SPOT"


def test_same_token_starts_no_new_task(ecs_kit: Any) -> None:
    """The response has the first tasks, even if they have ended."""
    request = ecs_kit.request(clientToken="token", count=2)
    first = [task["taskArn"] for task in ecs_kit.ecs.run_task(**request)["tasks"]]
    for task in first:
        ecs_kit.wait(task)
    again = ecs_kit.ecs.run_task(**request)["tasks"]
    assert [task["taskArn"] for task in again] == first
    assert {task["lastStatus"] for task in again} == {"STOPPED"}
    started = [each["taskArn"] for each in ecs_kit.aws.started("ecs") if each["clientToken"] == "token"]
    assert started == first


def test_same_token_with_other_parameters_is_a_conflict(ecs_kit: Any) -> None:
    """The error names the started tasks; in another cluster, the token is unused."""
    request = ecs_kit.request(clientToken="other")
    first = ecs_kit.ecs.run_task(**request)["tasks"][0]["taskArn"]
    with pytest.raises(ecs_kit.ecs.exceptions.ConflictException) as caught:
        ecs_kit.ecs.run_task(**{**request, "startedBy": "me"})
    assert caught.value.response["resourceIds"] == [first]
    cluster = f"{ecs_kit.cluster}-2"
    ecs_kit.ecs.create_cluster(clusterName=cluster, capacityProviders=["FARGATE"])
    elsewhere = ecs_kit.ecs.run_task(**{**request, "cluster": cluster})["tasks"]
    assert elsewhere[0]["taskArn"] != first


def test_without_a_token_every_call_starts_a_task(ecs_kit: Any) -> None:
    """The SDK generates one for each call."""
    request = ecs_kit.request()
    arns = {ecs_kit.ecs.run_task(**request)["tasks"][0]["taskArn"] for _ in range(2)}
    assert len(arns) == 2


def test_describe_reports_missing_tasks(ecs_kit: Any) -> None:
    """Unknown tasks are failures beside the others; ids and ARNs are accepted."""
    task = ecs_kit.run()
    unknown = uuid.uuid4().hex
    answer = ecs_kit.ecs.describe_tasks(cluster=ecs_kit.cluster, tasks=[unknown, task.rsplit("/", 1)[1], task])
    assert [each["taskArn"] for each in answer["tasks"]] == [task]
    arn = f"{task.rsplit('/', 1)[0]}/{unknown}"
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


def test_describe_rejects(ecs_kit: Any) -> None:
    """More than a hundred tasks, none, malformed ids, and other or unknown clusters are rejected."""
    ids = [uuid.uuid4().hex for _ in range(101)]
    assert len(ecs_kit.ecs.describe_tasks(cluster=ecs_kit.cluster, tasks=ids[:100])["failures"]) == 100
    elsewhere = f"arn:aws:ecs:us-east-1:{ecs_kit.aws.account_id}:task/elsewhere/{ids[0]}"
    for tasks in (ids, [], ["x"], [elsewhere]):
        with pytest.raises(ecs_kit.ecs.exceptions.InvalidParameterException):
            ecs_kit.ecs.describe_tasks(cluster=ecs_kit.cluster, tasks=tasks)
    with pytest.raises(ecs_kit.ecs.exceptions.ClusterNotFoundException, match="Cluster not found"):
        ecs_kit.ecs.describe_tasks(cluster="nowhere", tasks=ids[:1])


def test_list_finds_earlier_starts(ecs_kit: Any) -> None:
    """Tasks are found by startedBy, whether running or stopped, and by family, by default running ones."""
    running, ended = ecs_kit.sh("sleep 60", startedBy="me"), ecs_kit.run(startedBy="me")
    other = ecs_kit.sh("sleep 60", startedBy="you")
    family = ecs_kit.wait(ended)["group"].removeprefix("family:")
    assert ecs_kit.listed(startedBy="me") == {running}
    assert ecs_kit.listed(startedBy="me", desiredStatus="STOPPED") == {ended}
    assert ecs_kit.listed(family=family, desiredStatus="STOPPED") == {ended}
    assert ecs_kit.listed() == ecs_kit.listed(launchType="FARGATE") == {running, other}
    assert ecs_kit.listed(launchType="EC2") == ecs_kit.listed(desiredStatus="PENDING") == set()
    for task in (running, other):
        ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=task)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"startedBy": "me", "family": "x"}, "cannot specify startedBy with other arguments"),
        ({"maxResults": 101}, "maxResults"),
        ({"nextToken": "%"}, "Invalid token"),
        ({"desiredStatus": "ACTIVATING"}, "desiredStatus"),
    ],
)
def test_list_rejects(ecs_kit: Any, request_: dict[str, Any], said: str) -> None:
    """The filter startedBy cannot be combined with filters other than the desired status."""
    with pytest.raises(ecs_kit.ecs.exceptions.InvalidParameterException, match=said):
        ecs_kit.listed(**request_)


def test_list_has_pages(ecs_kit: Any) -> None:
    """Pages of a hundred contain every task once."""
    definition = ecs_kit.define(ecs_kit.container(["sleep", "60"]))
    arns = set()
    for _ in range(12):
        answer = ecs_kit.ecs.run_task(**ecs_kit.request(taskDefinition=definition, count=10))
        arns |= {task["taskArn"] for task in answer["tasks"]}
    pages = list(ecs_kit.ecs.get_paginator("list_tasks").paginate(cluster=ecs_kit.cluster))
    assert [len(page["taskArns"]) for page in pages] == [100, 20]
    assert {arn for page in pages for arn in page["taskArns"]} == arns
    for arn in arns:
        ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn)


def test_clusters_count_their_tasks(ecs_kit: Any) -> None:
    """DescribeClusters, which moto handles, has the counts."""
    task = ecs_kit.sh("sleep 60")
    ecs_kit.wait(task, "RUNNING")
    (cluster,) = ecs_kit.ecs.describe_clusters(clusters=[ecs_kit.cluster])["clusters"]
    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (1, 0)
    ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=task)
    ecs_kit.wait(task)
    (cluster,) = ecs_kit.ecs.describe_clusters(clusters=[ecs_kit.cluster])["clusters"]
    assert cluster["runningTasksCount"] == 0


def test_deleted_cluster_is_unknown(ecs_kit: Any) -> None:
    """Moto keeps it as INACTIVE."""
    ecs_kit.ecs.delete_cluster(cluster=ecs_kit.cluster)
    with pytest.raises(ecs_kit.ecs.exceptions.ClusterNotFoundException):
        ecs_kit.run()


def test_regions_do_not_see_each_others_tasks(ecs_kit: Any) -> None:
    """A cluster with the same name is another one there, and its tasks have the variables of their region."""
    elsewhere = type(ecs_kit)(ecs_kit.aws, region_name="eu-central-1")
    here, there = ecs_kit.run(), elsewhere.run(elsewhere.container(["sh", "-c", "echo $AWS_REGION"]))
    assert ":eu-central-1:" in there
    assert elsewhere.look(there)["availabilityZone"] == "eu-central-1a"
    missing = elsewhere.ecs.describe_tasks(cluster=elsewhere.cluster, tasks=[here.rsplit("/", 1)[1]])["failures"]
    assert [each["reason"] for each in missing] == ["MISSING"]
