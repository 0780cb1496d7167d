"""The CloudFormation template: well-formed, deployable, and the same as what the local AWS is made with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint_file  # type: ignore[import-untyped]

from airflow_jobflow.local import samples
from airflow_jobflow.local.glue import samples as glue_samples
from tests.infra.deployment import TEMPLATE, Stack


def test_cfn_lint_has_nothing_to_say() -> None:
    """Errors and warnings; whether the resources of a statement fit its actions (I3510), too."""
    assert lint_file(TEMPLATE, config=ManualArgs(include_checks=["I3510"])) == []


def test_it_deploys(stack: Stack) -> None:
    """All of it that moto's CloudFormation has."""
    assert stack.status == "CREATE_COMPLETE"
    missing = {stack.template["Resources"][name]["Type"] for name in set(stack.template["Resources"]) - set(stack.ids)}
    glue = {"AWS::Glue::Database", "AWS::Glue::Crawler", "AWS::Glue::Job"}
    assert missing == {*glue, "AWS::SQS::QueuePolicy"}


def test_names_and_commands_are_those_of_the_local_aws(stack: Stack) -> None:
    """What a DAG does on the laptop, it does in the account."""
    of_type, properties = stack.of_type, stack.properties
    definitions = {
        said["JobDefinitionName"]: [line.rstrip("\n") for line in said["ContainerProperties"]["Command"]]
        for said in map(properties, of_type("AWS::Batch::JobDefinition"))
    }
    local = {name: [line.rstrip("\n") for line in command] for name, command in samples.DEFINITIONS.items()}
    assert definitions == local
    queues = [properties(name)["JobQueueName"] for name in of_type("AWS::Batch::JobQueue")]
    assert sorted(queues) == sorted(samples.QUEUES)
    task = properties("ProcessItem")
    [container] = task["ContainerDefinitions"]
    assert (task["Family"], container["Command"]) == (samples.FAMILY, ["-c", samples.PROCESS_ITEM])
    assert properties("Cluster")["ClusterName"] == samples.CLUSTER
    assert properties("ProcessItemLog")["LogGroupName"] == samples.LOG_GROUP
    crawler, job = properties("Crawler"), properties("Job")
    assert (crawler["Name"], crawler["DatabaseName"]) == (glue_samples.CRAWLER, glue_samples.DATABASE)
    assert crawler["Targets"]["S3Targets"] == [{"Path": f"s3://{stack.outputs['BucketName']}/{glue_samples.INPUT}"}]
    assert job["Name"] == glue_samples.JOB
    assert job["Command"]["ScriptLocation"] == f"s3://{stack.outputs['BucketName']}/{glue_samples.SCRIPT}"
    assert stack.outputs["InputLocation"] == f"s3://{stack.outputs['BucketName']}/{samples.INPUTS}"


def test_the_buckets_name_is_free_in_an_account_of_ones_own(stack: Stack) -> None:
    """Names of buckets are taken once in the world: test-glue00 is."""
    assert stack.outputs["BucketName"] == f"jobflow-{stack.account}-us-east-1"


def test_the_readme_leaves_nothing_out(stack: Stack) -> None:
    """Of what a person attaches, or tells Airflow; and the template still fits into a request."""
    text = (TEMPLATE.parent / "README.md").read_text()
    named = [*stack.of_type("AWS::IAM::ManagedPolicy"), "EventQueueUrl", "WatcherQueueUrl", "FargateMapParams"]
    assert [name for name in named if f"`{name}`" not in text] == []
    assert TEMPLATE.stat().st_size <= 51_200


def test_the_params_fit_the_dags(stack: Stack) -> None:
    """As they are handed to ``airflow dags trigger --conf``."""
    assert json.loads(stack.outputs["FargateMapParams"]) == {
        "s3_bucket": stack.outputs["BucketName"],
        "cluster": "jobflow",
        "subnets": stack.subnets,
        "assign_public_ip": True,
    }


# Events.

QUEUES = ("EventQueueUrl", "WatcherQueueUrl")


def received(stack: Stack, output: str) -> Iterator[dict[str, Any]]:
    """Take all events that are in a queue."""
    sqs, url = stack.aws.client("sqs"), stack.outputs[output]
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages"):
        for message in messages:
            yield json.loads(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


CLUSTER = "arn:aws:ecs:us-east-1:{account}:cluster/"
EVENTS = [
    ("aws.batch", "Batch Job State Change", {"status": "SUCCEEDED"}, True),
    ("aws.batch", "Batch Job State Change", {"status": "FAILED"}, True),
    ("aws.batch", "Batch Job State Change", {"status": "RUNNING"}, True),
    ("aws.batch", "Batch Job State Change", {"status": "RUNNABLE"}, False),
    ("aws.batch", "Batch Compute Environment State Change", {"status": "FAILED"}, False),
    ("aws.ecs", "ECS Task State Change", {"lastStatus": "STOPPED", "clusterArn": CLUSTER + "jobflow"}, True),
    ("aws.ecs", "ECS Task State Change", {"lastStatus": "STOPPED", "clusterArn": CLUSTER + "another"}, True),
    ("aws.ecs", "ECS Task State Change", {"lastStatus": "STOPPED", "clusterArn": CLUSTER + "AWSBatch-env-1"}, False),
    ("aws.ecs", "ECS Task State Change", {"lastStatus": "PENDING", "clusterArn": CLUSTER + "jobflow"}, False),
    ("aws.glue", "Glue Crawler State Change", {"state": "Failed", "crawlerName": "any"}, True),
    ("aws.glue", "Glue Job State Change", {"state": "SUCCEEDED", "jobName": "any"}, True),
    ("aws.glue", "Glue Data Catalog Table State Change", {"typeOfChange": "UpdateTable"}, False),
    ("mine", "Batch Job State Change", {"status": "SUCCEEDED"}, False),
]


@pytest.mark.parametrize(("source", "kind", "detail", "wanted"), EVENTS)
def test_the_rules_pass_what_wakes_and_nothing_else(
    stack: Stack, source: str, kind: str, detail: dict[str, Any], *, wanted: bool
) -> None:
    """Of all jobs of the account, for a wait that counts on events looks seldom; to each queue once."""
    said = json.dumps({**detail, "marker": uuid.uuid4().hex}).replace("{account}", stack.account)
    detail = json.loads(said)
    entry = {"Source": source, "DetailType": kind, "Detail": said}
    stack.aws.client("events").put_events(Entries=[entry])
    for output in QUEUES:
        told = [event["detail"] for event in received(stack, output)]
        assert [each for each in told if each.get("marker") == detail["marker"]] == [detail] * wanted


def test_eventbridge_alone_may_send_and_only_for_the_stacks_rules(stack: Stack) -> None:
    """Who can send events to a queue can have Airflow start DAGs."""
    rules = {stack.arn(rule) for rule in stack.of_type("AWS::Events::Rule")}
    for name, queue in (("EventQueuePolicy", "EventQueue"), ("WatcherQueuePolicy", "WatcherQueue")):
        [statement] = stack.properties(name)["PolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Resource"] == stack.arn(queue)
        assert set(statement["Condition"]["ArnEquals"]["aws:SourceArn"]) == rules


def test_what_cannot_be_read_ends_in_a_queue_of_its_own(stack: Stack) -> None:
    """And not before who reads it would have given it up: a message nobody knows is received three times."""
    sqs = stack.aws.client("sqs")
    for output, dead in zip(QUEUES, ("EventDeadLetterQueue", "WatcherDeadLetterQueue"), strict=True):
        said = sqs.get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=["RedrivePolicy"])["Attributes"]
        redrive = json.loads(said["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"] == stack.arn(dead)
        assert int(redrive["maxReceiveCount"]) > 3
