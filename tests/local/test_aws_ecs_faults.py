"""Faults of ECS, its events, the samples that use it, and its use of moto."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from moto.ecs.models import EC2ContainerServiceBackend
from moto.s3.models import FakeKey, S3Backend, s3_backends

from airflow_jobflow.local import CannedResponse, Faults, LocalAws, Settings, samples
from airflow_jobflow.local.ecs import model as ecs_model

SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


def test_run_task_may_respond_200_without_starting_a_task(own_ecs_kit: Any) -> None:
    """The next calls return one failure per requested task; their tokens remain unused."""
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1))
    request = own_ecs_kit.request(count=2, clientToken="token")
    answer = own_ecs_kit.ecs.run_task(**request)
    assert answer["tasks"] == []
    assert [failure["reason"] for failure in answer["failures"]] == [ecs_model.CAPACITY_UNAVAILABLE] * 2
    assert len(own_ecs_kit.ecs.run_task(**request)["tasks"]) == 2
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1, run_task_reason="RESOURCE:MEMORY"))
    answer = own_ecs_kit.ecs.run_task(**own_ecs_kit.request())
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:MEMORY"]
    assert len(own_ecs_kit.aws.started("ecs")) == 2


def test_run_task_may_report_failures_and_start_the_task(own_ecs_kit: Any) -> None:
    """It is found by startedBy and by its token."""
    body = json.dumps({"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]})
    lie = CannedResponse(status=200, body=body, actions=("RunTask",), calls=1, takes_effect=True)
    own_ecs_kit.aws.set_faults(Faults(respond_with=(lie,)))
    request = own_ecs_kit.request(startedBy="me", clientToken="token")
    answer = own_ecs_kit.ecs.run_task(**request)
    assert answer["tasks"] == []
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:MEMORY"]
    (started,) = own_ecs_kit.aws.started("ecs")
    assert own_ecs_kit.wait(started["taskArn"])["startedBy"] == "me"
    assert [task["taskArn"] for task in own_ecs_kit.ecs.run_task(**request)["tasks"]] == [started["taskArn"]]


def test_one_task_may_be_missing_for_a_time(own_ecs_kit: Any) -> None:
    """Its age does not matter; others are found, and it keeps running."""
    arn, other = own_ecs_kit.sh("sleep 60"), own_ecs_kit.sh("sleep 60")
    describe = {"cluster": own_ecs_kit.cluster, "tasks": [arn, other]}
    own_ecs_kit.aws.set_faults(Faults(missing=(arn.rsplit("/", 1)[1],), lasts=600))
    answer = own_ecs_kit.ecs.describe_tasks(**describe)
    assert [task["taskArn"] for task in answer["tasks"]] == [other]
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]
    own_ecs_kit.aws.set_faults(Faults(missing=("*",), lasts=0.2))
    own_ecs_kit.eventually(lambda: len(own_ecs_kit.ecs.describe_tasks(**describe)["tasks"]) == 2)
    assert own_ecs_kit.listed() == {arn, other}


def test_next_spot_tasks_are_interrupted_once_they_run(own_ecs_kit: Any) -> None:
    """The given number of tasks is interrupted, and only tasks on Spot."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    definition = own_ecs_kit.define(own_ecs_kit.container(["sleep", "0.2"]))
    arns = [
        own_ecs_kit.run(taskDefinition=definition),
        own_ecs_kit.run(taskDefinition=definition, capacityProviderStrategy=SPOT),
        own_ecs_kit.run(taskDefinition=definition, capacityProviderStrategy=SPOT),
    ]
    tasks = [own_ecs_kit.wait(arn) for arn in arns]
    codes = [task["stopCode"] for task in tasks]
    assert codes == ["EssentialContainerExited", "SpotInterruption", "EssentialContainerExited"]
    assert "startedAt" in tasks[1]


@pytest.mark.parametrize("by", ["startedBy", "environment", "family"])
def test_one_of_many_spot_tasks_can_be_picked(own_ecs_kit: Any, by: str) -> None:
    """It is selected by startedBy, overrides or family."""
    arns = []
    definitions = {name: own_ecs_kit.define(own_ecs_kit.container(["sleep", "0.2"])) for name in "ab"}
    picked = definitions["b"].rsplit("/", 1)[1].split(":")[0] if by == "family" else "item-b"
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1, interrupt_spot_with=picked))
    for name in "aba":
        request: dict[str, Any] = {"taskDefinition": definitions[name if by == "family" else "a"]}
        if by == "startedBy":
            request["startedBy"] = f"item-{name}"
        if by == "environment":
            variables = [{"name": "INPUT_KEY", "value": f"items/item-{name}.json"}]
            request["overrides"] = {"containerOverrides": [{"name": "main", "environment": variables}]}
        arns.append(own_ecs_kit.run(capacityProviderStrategy=SPOT, **request))
    codes = [own_ecs_kit.wait(arn)["stopCode"] for arn in arns]
    assert codes == ["EssentialContainerExited", "SpotInterruption", "EssentialContainerExited"]


def test_new_tasks_are_missing_for_a_while(own_ecs_kit: Any) -> None:
    """They are neither described nor listed, but run."""
    own_ecs_kit.aws.set_faults(Faults(visible_after=600))
    arn = own_ecs_kit.run(startedBy="me")
    answer = own_ecs_kit.ecs.describe_tasks(cluster=own_ecs_kit.cluster, tasks=[arn])
    assert (answer["tasks"], answer["failures"]) == ([], [{"arn": arn, "reason": "MISSING"}])
    assert own_ecs_kit.listed(startedBy="me") | own_ecs_kit.listed(startedBy="me", desiredStatus="STOPPED") == set()
    own_ecs_kit.aws.set_faults(Faults())
    assert own_ecs_kit.wait(arn)["containers"][0]["exitCode"] == 0


def test_stopped_task_is_forgotten_after_an_hour(ecs_kit: Any) -> None:
    """The hour is short here; the token still belongs to the task, and the ledger keeps it."""
    with LocalAws(settings=Settings(time_scale=0.0001)) as aws:
        kit = type(ecs_kit)(aws)
        request = kit.request(clientToken="token")
        arn = kit.ecs.run_task(**request)["tasks"][0]["taskArn"]
        described = {"cluster": kit.cluster, "tasks": [arn]}
        missing = [{"arn": arn, "reason": "MISSING"}]
        kit.eventually(lambda: kit.ecs.describe_tasks(**described)["failures"] == missing)
        assert kit.listed(desiredStatus="STOPPED") == set()
        with pytest.raises(ClientError, match="The referenced task was not found"):
            kit.ecs.stop_task(cluster=kit.cluster, task=arn)
        assert [task["taskArn"] for task in kit.ecs.run_task(**request)["tasks"]] == [arn]
        assert [each["taskArn"] for each in aws.started("ecs")] == [arn]


def test_run_task_with_a_lost_response_takes_effect(own_ecs_kit: Any) -> None:
    """With a token, the second call finds the first one's task; without a token, there are two."""
    request = own_ecs_kit.request(startedBy="me")
    for token, started in (({"clientToken": "token"}, 1), ({}, 3)):
        own_ecs_kit.aws.set_faults(Faults(actions=("RunTask",), lose_answers=1))
        with pytest.raises(ConnectionClosedError):
            own_ecs_kit.ecs.run_task(**request, **token)
        own_ecs_kit.ecs.run_task(**request, **token)
        assert len(own_ecs_kit.aws.started("ecs")) == started


def test_throttled_and_failing_calls_have_the_errors_of_ecs(own_ecs_kit: Any) -> None:
    """ThrottlingException has status 400, ServerException has 500."""
    unknown = {"cluster": own_ecs_kit.cluster, "tasks": ["0" * 32]}
    own_ecs_kit.aws.set_faults(Faults(actions=("ecs.DescribeTasks",), error_every=1))
    with pytest.raises(ClientError, match="ServerException"):
        own_ecs_kit.aws.client("ecs", config=own_ecs_kit.ecs.meta.config).describe_tasks(**unknown)
    own_ecs_kit.aws.set_faults(Faults(actions=("ecs.DescribeTasks",), calls_per_second=0.001))
    throttled = own_ecs_kit.aws.client("ecs", config=own_ecs_kit.ecs.meta.config)
    throttled.describe_tasks(**unknown)
    with pytest.raises(ClientError, match="ThrottlingException"):
        throttled.describe_tasks(**unknown)


class Inbox:
    """The events of one cluster's tasks."""

    def __init__(self, kit: Any) -> None:
        self._sqs, events = kit.aws.client("sqs"), kit.aws.client("events")
        name = f"events-{uuid.uuid4().hex}"
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        (cluster,) = kit.ecs.describe_clusters(clusters=[kit.cluster])["clusters"]
        pattern = {
            "source": ["aws.ecs"],
            "detail-type": ["ECS Task State Change"],
            "detail": {"clusterArn": [cluster["clusterArn"]]},
        }
        events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": attributes["QueueArn"]}])
        self.events: list[dict[str, Any]] = []

    def receive(self) -> list[dict[str, Any]]:
        """Return all events received so far, in the order of the task's versions."""
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self.events.append(json.loads(message["Body"]))
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return self.events

    def statuses(self) -> list[str]:
        """Return the reported statuses."""
        return [event["detail"]["lastStatus"] for event in self.events]


def test_every_status_is_reported_in_order(ecs_kit: Any, violations: Any) -> None:
    """The detail has the format of DescribeTasks, with times as text."""
    inbox = Inbox(ecs_kit)
    arn = ecs_kit.run()
    ecs_kit.eventually(lambda: inbox.receive() and inbox.statuses()[-1] == "STOPPED")
    assert inbox.statuses() == list(ecs_model.STATUSES)
    event = inbox.events[-1]
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
    assert event["resources"] == [arn]
    assert event["detail"]["stoppedAt"].endswith("Z")
    assert [each["detail"]["version"] for each in inbox.events] == list(range(1, 9))
    shape = ecs_kit.ecs.meta.service_model.operation_model("DescribeTasks").output_shape.members["tasks"].member
    for each in inbox.events:
        updated = each["detail"].pop("updatedAt")
        assert updated.endswith("Z")
        assert violations(shape, each["detail"], moments=(str,)) == []


def test_task_that_never_started_skips_running(ecs_kit: Any) -> None:
    """Its status changes from PENDING to the final ones."""
    inbox = Inbox(ecs_kit)
    ecs_kit.run(ecs_kit.container(image="missing/image"))
    ecs_kit.eventually(lambda: inbox.receive() and inbox.statuses()[-1] == "STOPPED")
    assert inbox.statuses() == ["PROVISIONING", "PENDING", "DEPROVISIONING", "STOPPED"]


def test_samples_process_items(own_ecs_kit: Any) -> None:
    """One of two items fails; provisioning again changes nothing."""
    aws, ecs = own_ecs_kit.aws, own_ecs_kit.ecs
    s3 = aws.client("s3")
    samples.provision(aws.endpoint_url)
    for key, item in {"in/0.json": {"name": "zero"}, "in/1.json": {"fail": True}}.items():
        s3.put_object(Bucket=samples.BUCKET, Key=key, Body=json.dumps(item).encode())
    samples.provision(aws.endpoint_url)
    assert len(ecs.list_task_definitions(familyPrefix=samples.FAMILY)["taskDefinitionArns"]) == 1
    codes, arns = Counter[int](), []
    for number in range(2):
        variables = {"S3_BUCKET": samples.BUCKET, "INPUT_KEY": f"in/{number}.json", "OUTPUT_KEY": f"out/{number}.json"}
        environment = [{"name": name, "value": value} for name, value in variables.items()]
        answer = ecs.run_task(
            cluster=samples.CLUSTER,
            taskDefinition=samples.FAMILY,
            capacityProviderStrategy=SPOT,
            networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
            overrides={"containerOverrides": [{"name": samples.FAMILY, "environment": environment}]},
        )
        arns.append(answer["tasks"][0]["taskArn"])
    own_ecs_kit.cluster = samples.CLUSTER
    for arn in arns:
        codes[own_ecs_kit.wait(arn)["containers"][0]["exitCode"]] += 1
    assert codes == {0: 1, 1: 1}
    (made,) = s3.list_objects_v2(Bucket=samples.BUCKET, Prefix="out/")["Contents"]
    assert json.load(s3.get_object(Bucket=samples.BUCKET, Key=made["Key"])["Body"])["input"] == {"name": "zero"}
    stream = f"jobflow/{samples.FAMILY}/{arns[1].rsplit('/', 1)[1]}"
    events = aws.client("logs").get_log_events(logGroupName=samples.LOG_GROUP, logStreamName=stream)["events"]
    assert events[-1]["message"] == "This item cannot be processed: {'fail': True}"


def test_buckets_of_servers_in_one_process_are_separate(own_aws: LocalAws) -> None:
    """The same name is another bucket, and a stopped server deletes only its own."""
    mine = own_aws.client("s3")
    mine.create_bucket(Bucket="same-name")
    mine.put_object(Bucket="same-name", Key="key", Body=b"mine")
    with LocalAws() as other:
        theirs = other.client("s3")
        with pytest.raises(ClientError, match="NoSuchBucket"):
            theirs.list_objects_v2(Bucket="same-name")
        theirs.create_bucket(Bucket="same-name")
        theirs.put_object(Bucket="same-name", Key="key", Body=b"theirs")
    mine.create_bucket(Bucket="same-name")
    assert mine.get_object(Bucket="same-name", Key="key")["Body"].read() == b"mine"


def test_used_internals_of_moto_exist() -> None:
    """This test fails first if moto changes what ECS and the buckets use of it."""
    backend = EC2ContainerServiceBackend("us-east-1", "1")
    assert {"clusters", "task_definitions", "tasks"} <= set(vars(backend))
    backend.create_cluster("name")
    cluster = vars(backend.clusters["name"])
    assert {"name", "arn", "status", "capacity_providers", "default_capacity_provider_strategy"} <= set(cluster)
    assert {"pending_tasks_count", "running_tasks_count"} <= set(cluster)
    backend.register_task_definition("family", [])
    definition = set(vars(backend.task_definitions["family"][1]))
    assert {"arn", "family", "status", "container_definitions", "network_mode", "cpu", "memory", "tags"} <= definition
    assert {"requires_compatibilities", "ephemeral_storage", "runtime_platform"} <= definition
    assert "buckets" in vars(S3Backend("us-east-1", "1"))
    assert isinstance(s3_backends.bucket_accounts, dict)
    assert callable(FakeKey.dispose)
