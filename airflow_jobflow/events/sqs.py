"""One SQS queue: receives, deletes and releases messages, through the shared path to AWS.

Each method makes its calls once, in a thread of the client. The caller repeats what failed: both readers
(``wakeup_queue``, ``asset_stream``) receive in a loop, and SQS delivers again what was not deleted.

Invariants:

- An error names the queue, the connection and the region, and says what to check.
- After ``close``, the messages of a receive that is still under way return to the queue at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_jobflow.aws import ONCE, Access, Call, run, service_client
from airflow_jobflow.faults import CallError, Fault

Result = TypeVar("Result")

MAX_MESSAGES = 10
"""The most messages in one call."""

EXCERPT_LENGTH = 200
"""Characters of a message body that a log line shows."""

_REGION = re.compile(r"//(?:sqs\.)?([a-z]+(?:-[a-z]+)+-\d+)(?:\.queue)?\.amazonaws\.")
"""The region in the URL of a queue, in its present form or the older one."""


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """A received message.

    :param message_id: the same in each delivery.
    :param receipt: the handle of this delivery, by which the message is deleted or released.
    :param body: the text of the message.
    :param receives: how often it has been received, by any process.
    """

    message_id: str
    receipt: str
    body: str
    receives: int

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for the log."""
        return self.body[:EXCERPT_LENGTH]


class SqsQueue:
    """An SQS queue.

    :param access: the AWS connection to use.
    :param url: of the queue.
    :param permissions: the IAM actions on the queue that the reader needs, for errors.
    """

    def __init__(self, access: Access, url: str, permissions: Iterable[str]) -> None:
        self.url = url
        self._access = access
        self._client = service_client(access, "sqs")
        self._permissions = ", ".join(permissions)
        self._region = access.region_name
        """The region that is called; None until it is known."""
        self._closed = False

    async def receive(self, seconds: float, *, visibility_timeout: int | None = None) -> list[SqsMessage]:
        """Receive up to ten messages.

        :param seconds: how long to wait for the first message, in whole seconds; at most 20.
        :param visibility_timeout: seconds after which SQS delivers the messages again. Default: as the queue says.
        :return: the messages; empty if none arrived in time.
        :raises CallError: there was no response, AWS refused the call, or the queue is in another region.
        """
        parameters: dict[str, Any] = {} if visibility_timeout is None else {"VisibilityTimeout": visibility_timeout}
        return await self._run(self._receive, {"WaitTimeSeconds": int(seconds), **parameters})

    async def delete(self, receipts: Iterable[str]) -> None:
        """Delete messages.

        :param receipts: of the messages.
        :raises CallError: some or all were not deleted.
        """
        if entries := [{"ReceiptHandle": receipt} for receipt in receipts]:
            await self._run(self._change, "delete_message_batch", entries)

    async def release(self, receipts: Iterable[str]) -> None:
        """Return messages to the queue, to be received again at once.

        :param receipts: of the messages.
        :raises CallError: some or all were not returned.
        """
        if listed := list(receipts):
            await self._run(self._release, listed)

    def close(self) -> None:
        """Release the messages of a receive that is still under way as soon as it ends."""
        self._closed = True

    async def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            return await run(self._client, function, *arguments, retry=ONCE)
        except CallError as error:
            where = f"{self.url} ({self._access.named(self._region)})"
            message = f"{where}: {str(error).rstrip('.')}. {self._hint(error.fault)}".rstrip()
            raise CallError(error.fault, message, error.code, error.operation) from error

    def _hint(self, fault: Fault) -> str:
        """Return what to do about a failed call; empty if nothing but waiting helps."""
        if fault is Fault.DENIED:
            return f"The role needs these permissions on the queue: {self._permissions}."
        if fault in (Fault.REJECTED, Fault.SCOPE_NOT_FOUND):
            return "Check the queue's URL, and that its region is the connection's."
        return ""

    # These run in a thread of the client.

    def _receive(self, call: Call, parameters: Mapping[str, Any]) -> list[SqsMessage]:
        self._require_same_region(call)
        response = call(
            "receive_message",
            QueueUrl=self.url,
            MaxNumberOfMessages=MAX_MESSAGES,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            **parameters,
        )
        messages = [
            SqsMessage(
                message["MessageId"],
                message["ReceiptHandle"],
                message["Body"],
                int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for message in response.get("Messages", [])
        ]
        if self._closed:
            self._release(call, [message.receipt for message in messages])
        return messages

    def _require_same_region(self, call: Call) -> None:
        """Raise an error that names both regions if the queue is in another one: AWS only says that it is missing."""
        self._region = call.region
        found = _REGION.search(self.url)
        if found and found[1] != call.region:
            raise CallError(Fault.REJECTED, f"the queue is in {found[1]}, and the connection is for {call.region}")

    def _release(self, call: Call, receipts: Iterable[str]) -> None:
        entries = [{"ReceiptHandle": receipt, "VisibilityTimeout": 0} for receipt in receipts]
        self._change(call, "change_message_visibility_batch", entries)

    def _change(self, call: Call, operation: str, entries: list[dict[str, Any]]) -> None:
        """Make a batch call for each ten messages.

        :raises CallError: it failed for some messages; the others are changed.
        """
        failed = []
        for start in range(0, len(entries), MAX_MESSAGES):
            batch = [{"Id": str(n), **each} for n, each in enumerate(entries[start : start + MAX_MESSAGES])]
            failed += call(operation, QueueUrl=self.url, Entries=batch).get("Failed", [])
        if failed:
            why = failed[0].get("Message") or failed[0]["Code"]
            message = f"{operation} failed for {len(failed)} of {len(entries)} messages: {why}"
            raise CallError(Fault.TRANSIENT, message, failed[0]["Code"])
