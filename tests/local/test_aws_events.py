"""`Batch Job State Change` events."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest


class Inbox:
    """The events that an EventBridge rule delivered to a queue."""

    def __init__(self, aws: Any, pattern: dict[str, Any]) -> None:
        self._sqs, events = aws.client("sqs"), aws.client("events")
        self.name = name = f"events-{uuid.uuid4().hex}"
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn}])
        self.events: list[dict[str, Any]] = []

    def receive(self) -> list[dict[str, Any]]:
        """Return all events received so far."""
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self.events.append(json.loads(message["Body"]))
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return self.events

    def statuses(self, job_id: str) -> list[str]:
        """Return the reported statuses of a job, in order."""
        return [event["detail"]["status"] for event in self.events if event["detail"]["jobId"] == job_id]


@pytest.fixture
def inbox(kit: Any) -> Inbox:
    """The events of the test's queue."""
    queues = kit.batch.describe_job_queues(jobQueues=[kit.queue])["jobQueues"]
    pattern = {
        "source": ["aws.batch"],
        "detail-type": ["Batch Job State Change"],
        "detail": {"jobQueue": [queues[0]["jobQueueArn"]]},
    }
    return Inbox(kit.aws, pattern)


def test_every_change_after_the_submission_is_reported_in_order(kit: Any, inbox: Inbox, violations: Any) -> None:
    """The detail has the format of DescribeJobs."""
    job_id = kit.sh('test "$AWS_BATCH_JOB_ATTEMPT" = 2', retryStrategy={"attempts": 2})
    kit.wait(job_id)
    kit.eventually(lambda: inbox.receive() and inbox.statuses(job_id)[-1] == "SUCCEEDED")
    attempt = ["RUNNABLE", "STARTING", "RUNNING"]
    assert inbox.statuses(job_id) == [*attempt, *attempt, "SUCCEEDED"]
    event = inbox.events[-1]
    assert (event["source"], event["detail-type"]) == ("aws.batch", "Batch Job State Change")
    assert event["resources"] == [event["detail"]["jobArn"]]
    assert event["account"] == kit.aws.account_id
    shape = kit.batch.meta.service_model.operation_model("DescribeJobs").output_shape.members["jobs"].member
    assert [violations(shape, each["detail"]) for each in inbox.events] == [[]] * len(inbox.events)
    assert event["detail"]["container"]["exitCode"] == 0


def test_a_deleted_queue_loses_only_its_own_messages(kit: Any, inbox: Inbox) -> None:
    """Other targets of the rule and later jobs are not affected."""
    sqs, events = kit.aws.client("sqs"), kit.aws.client("events")
    gone = sqs.create_queue(QueueName=f"gone-{uuid.uuid4().hex}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=gone, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    target = {"Id": "0", "Arn": arn}
    [kept] = events.list_targets_by_rule(Rule=inbox.name)["Targets"]
    events.remove_targets(Rule=inbox.name, Ids=[kept["Id"]])
    events.put_targets(Rule=inbox.name, Targets=[target, kept])
    sqs.delete_queue(QueueUrl=gone)
    for job_id in (kit.sh("true"), kit.sh("true")):
        kit.wait(job_id)
        kit.eventually(lambda job_id=job_id: inbox.receive() and inbox.statuses(job_id)[-1:] == ["SUCCEEDED"])


def test_children_and_their_parent_are_reported(kit: Any, inbox: Inbox) -> None:
    """The parent becomes PENDING, and ends after its children."""
    job_id = kit.submit(arrayProperties={"size": 2})
    kit.wait(job_id)
    kit.eventually(lambda: inbox.receive() and "SUCCEEDED" in inbox.statuses(job_id))
    assert inbox.statuses(job_id) == ["PENDING", "SUCCEEDED"]
    for index in range(2):
        assert inbox.statuses(f"{job_id}:{index}")[-1] == "SUCCEEDED"
    assert inbox.events[-1]["detail"]["jobId"] == job_id
