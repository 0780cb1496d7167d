"""Batch calls to an SQS queue: how many messages each has, and which failures are reported."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.aws import Access
from airflow_jobflow.events.sqs import SqsQueue
from airflow_jobflow.faults import CallError


class Sqs:
    """Records batch calls, and fails for some receipts."""

    region = "us-east-1"

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.batches: list[list[str]] = []

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Respond to a batch call as SQS does."""
        assert operation == "delete_message_batch"
        self.batches.append([each["ReceiptHandle"] for each in parameters["Entries"]])
        ids = [each["Id"] for each in parameters["Entries"] if each["ReceiptHandle"] in self.failing]
        return {"Failed": [{"Id": each, "Code": "ReceiptHandleIsInvalid", "Message": "expired"} for each in ids]}


def delete(sqs: Any, receipts: list[str]) -> None:
    """Delete messages."""
    queue = SqsQueue(Access(None), "https://sqs.us-east-1.amazonaws.com/1/q", ())
    queue._change(sqs, "delete_message_batch", [{"ReceiptHandle": each} for each in receipts])


def test_a_batch_has_no_more_than_ten_messages() -> None:
    """SQS rejects larger batches completely."""
    sqs = Sqs()
    receipts = [f"{number}" for number in range(25)]
    delete(sqs, receipts)
    assert [len(each) for each in sqs.batches] == [10, 10, 5]
    assert [each for batch in sqs.batches for each in batch] == receipts


def test_messages_that_were_not_deleted_are_reported_after_the_others_are_deleted() -> None:
    """SQS responds with success even if it deleted only some messages of a batch."""
    sqs = Sqs("3", "14")
    with pytest.raises(CallError, match="failed for 2 of 25 messages: expired"):
        delete(sqs, [f"{number}" for number in range(25)])
    assert len(sqs.batches) == 3
