"""The CloudFormation template: valid, deployable, and consistent with the samples of the local AWS."""

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


def test_cfn_lint_finds_no_problem() -> None:
    """It checks errors and warnings, and whether the resources of a statement fit its actions (I3510)."""
    assert lint_file(TEMPLATE, config=ManualArgs(include_checks=["I3510"])) == []


def test_the_template_can_be_deployed(stack: Stack) -> None:
    """This covers all resources that moto's CloudFormation supports."""
    assert stack.status == "CREATE_COMPLETE"
    missing = {stack.template["Resources"][name]["Type"] for name in set(stack.template["Resources"]) - set(stack.ids)}
    glue = {"AWS::Glue::Database", "AWS::Glue::Crawler", "AWS::Glue::Job"}
    assert missing == {*glue, "AWS::SQS::QueuePolicy"}


def test_names_and_commands_are_those_of_the_local_aws(stack: Stack) -> None:
    """A DAG does the same on a laptop and in the account."""
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


def test_the_name_of_the_bucket_is_unique(stack: Stack) -> None:
    """Names of buckets are global, and test-glue00 is taken."""
    assert stack.outputs["BucketName"] == f"jobflow-{stack.account}-us-east-1"


def test_the_readme_names_all_policies_and_outputs(stack: Stack) -> None:
    """Users attach the policies, and pass the outputs to Airflow; and the template still fits into a request."""
    text = (TEMPLATE.parent / "README.md").read_text()
    named = [*stack.of_type("AWS::IAM::ManagedPolicy"), "EventQueueUrl", "WatcherQueueUrl", "FargateMapParams"]
    assert [name for name in named if f"`{name}`" not in text] == []
    assert TEMPLATE.stat().st_size <= 51_200


def test_the_params_fit_the_dags(stack: Stack) -> None:
    """They are in the format of ``airflow dags trigger --conf``."""
    assert json.loads(stack.outputs["FargateMapParams"]) == {
        "s3_bucket": stack.outputs["BucketName"],
        "cluster": "jobflow",
        "subnets": stack.subnets,
        "assign_public_ip": True,
    }


# Events.

QUEUES = ("EventQueueUrl", "WatcherQueueUrl")


def received(stack: Stack, output: str) -> Iterator[dict[str, Any]]:
    """Return all events in a queue."""
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
def test_the_rules_match_exactly_the_events_that_wake_waits(
    stack: Stack, source: str, kind: str, detail: dict[str, Any], *, wanted: bool
) -> None:
    """They match all jobs of the account, because waits with events poll rarely; each queue gets an event once."""
    said = json.dumps({**detail, "marker": uuid.uuid4().hex}).replace("{account}", stack.account)
    detail = json.loads(said)
    entry = {"Source": source, "DetailType": kind, "Detail": said}
    stack.aws.client("events").put_events(Entries=[entry])
    for output in QUEUES:
        told = [event["detail"] for event in received(stack, output)]
        assert [each for each in told if each.get("marker") == detail["marker"]] == [detail] * wanted


def test_only_eventbridge_may_send_for_the_rules_of_the_stack(stack: Stack) -> None:
    """Anyone who can send events to a queue can make Airflow start DAGs."""
    rules = {stack.arn(rule) for rule in stack.of_type("AWS::Events::Rule")}
    for name, queue in (("EventQueuePolicy", "EventQueue"), ("WatcherQueuePolicy", "WatcherQueue")):
        [statement] = stack.properties(name)["PolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Resource"] == stack.arn(queue)
        assert set(statement["Condition"]["ArnEquals"]["aws:SourceArn"]) == rules


def test_unreadable_messages_end_in_a_dead_letter_queue(stack: Stack) -> None:
    """They do so only after the reader would have deleted them: an unknown message is received three times."""
    sqs = stack.aws.client("sqs")
    for output, dead in zip(QUEUES, ("EventDeadLetterQueue", "WatcherDeadLetterQueue"), strict=True):
        said = sqs.get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=["RedrivePolicy"])["Attributes"]
        redrive = json.loads(said["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"] == stack.arn(dead)
        assert int(redrive["maxReceiveCount"]) > 3
