"""Reads an SQS queue of state changes for all asset watchers of it in a triggerer.

How it goes: messages are received, read, and handed on in batches; Airflow gives each batch to every watcher, and says
when all of them are past it and what they fired is stored. Then it is noted as told, its messages are deleted, and the
next batch, which has been collected meanwhile, may go out.

What always holds:

- A message is deleted only when every watcher here has refused it, or Airflow has stored what was fired for it. Any
  other becomes visible again, and is delivered again.
- What cannot be read never ends the stream: the queue is asked again, with back-off, and it is said once why.
- After an asset event is stored there is none for ``GAP``. Airflow 3.3 makes no run for an asset event that comes while
  the run for the one before is still to be made; it is left to a later event, which may never come. So what comes
  close together shares an asset event.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.shared_streams import SharedStreamProducer
from airflow_jobflow.aws import ONCE, Access, Call, backoff, full_jitter, run, service_client
from airflow_jobflow.events.state_change import parse
from airflow_jobflow.events.wakeup_queue import EXTRA, REGION, queue_url
from airflow_jobflow.faults import CallError, Fault

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem

log = logging.getLogger(__name__)

GAP = 30.0
"""Seconds from an asset event to the next: in that time a scheduler makes the run, or counts as dead."""

SOON = 1.0
"""Seconds until it is looked again whether the watchers are past a batch."""

MOST = 1000
"""Messages in a batch, and a page at most: a DAG may map over 1,024. Others wait in the queue."""

LONG_POLL = 5
"""Seconds for which SQS holds a call until there is a message. Not its 20: a triggerer ends only with its threads."""

HIDDEN = 60
"""Seconds after which SQS delivers a message again that was not deleted: well over ``GAP`` and what storing takes."""

PAGE = 10
"""The most messages in a call."""


@dataclass(frozen=True)
class Message:
    """What one message of the queue says.

    :param job: as ``state_change.read`` gives it; None if it says nothing of a job.
    :param body: its beginning.
    """

    message_id: str
    receipt: str
    job: dict[str, Any] | None
    body: str


@dataclass
class Batch:
    """Messages that are handed on together.

    :param when_stored: to be called when Airflow has stored what was fired for them.
    """

    messages: list[Message]
    when_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What is told of jobs."""
        return [message.job for message in self.messages if message.job]


class StateQueue(SharedStreamProducer):
    """The queue, as Airflow's shared streams want it.

    :param access: whom to ask.
    :param url: of the queue.
    """

    def __init__(self, access: Access, url: str) -> None:
        self._url = url
        self._access = access
        self._client = service_client(access, "sqs")
        self._receipts: dict[str, str] = {}
        """The latest receipt of each message that was received and is neither deleted nor given up."""
        self._is_ours = False
        """Whether it is known that the waits do not use this queue."""
        self._under_way = False
        """Whether there is a batch that the watchers are not past."""
        self._free_at = float("-inf")
        """When the next batch may go out."""
        self._failures = 0
        self._said = ""
        """Why nothing can be received, as it was last said."""
        self._foreign = 0

    async def open_stream(self) -> AsyncIterator[tuple[Batch, Batch]]:
        """Yield batch after batch, for ever."""
        while True:
            batch = await self._collect()
            self._under_way = True
            yield batch, batch

    async def _collect(self) -> Batch:
        """Receive until there is something to hand on, and it may go out."""
        messages: list[Message] = []
        while True:
            rest = SOON if self._under_way else self._free_at - _now()
            if messages and rest <= 0:
                return Batch(messages)
            if len(messages) >= MOST:
                await asyncio.sleep(rest)
            else:
                messages += await self._receive(min(LONG_POLL, math.ceil(rest)) if messages else LONG_POLL)

    async def _receive(self, seconds: int) -> list[Message]:
        """Receive up to ten messages; delete those that say nothing of a job, and leave out what is here already."""
        try:
            await self._make_sure_it_is_ours()
            received = await run(self._client, _receive, self._url, seconds, retry=ONCE)
        except CallError as error:
            await self._rest(error)
            return []
        if self._failures:
            log.info("Receiving messages from %s again", self._url)
            self._failures, self._said = 0, ""
        if foreign := [each for each in received if each.job is None]:
            self._say_foreign(foreign)
            await self._delete(each.receipt for each in foreign)
        fresh = [each for each in received if each.job and each.message_id not in self._receipts]
        self._receipts |= {each.message_id: each.receipt for each in received if each.job}
        return fresh

    async def _make_sure_it_is_ours(self) -> None:
        """Take no message from a queue that the connection names as that of the waits."""
        if not self._is_ours:
            waits = await asyncio.to_thread(queue_url, self._access, fresh=True)
            if waits and waits.rstrip("/") == self._url.rstrip("/"):
                message = f"the extra {EXTRA} of the connection says that the waits use it, and watchers need their own"
                raise CallError(Fault.REJECTED, message)
            self._is_ours = True

    async def _rest(self, error: CallError) -> None:
        """Say why nothing can be received, once for each reason, and wait for a while."""
        self._failures += 1
        if str(error) != self._said:
            self._said = str(error)
            log.warning(
                "Cannot receive job state changes from %s: %s. Until this works, they start no DAG. Check queue_url, "
                "region_name, the connection %s, and that it is allowed sqs:ReceiveMessage and sqs:DeleteMessage on "
                "the queue. The triggerer keeps trying",
                self._url,
                self._said.rstrip("."),
                self._access,
            )
        await asyncio.sleep(full_jitter(backoff(self._failures)))

    def _say_foreign(self, foreign: Sequence[Message]) -> None:
        if not self._foreign:
            log.warning(
                "Deleted a message in %s that is not a job state change from EventBridge. Others like it are deleted "
                "silently. It begins: %r",
                self._url,
                foreign[0].body,
            )
        self._foreign += len(foreign)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Note what was told, and delete the messages that are done with; others come again by themselves."""
        done = []
        for item in batch:
            given: Batch = item.broker_payload
            receipts = [self._receipts.pop(each.message_id, each.receipt) for each in given.messages]
            self._under_way = False
            if given.when_stored:
                self._free_at = _now() + GAP
            if item.outcome.is_clean:
                for note in given.when_stored:
                    await note()
                done += receipts
        await self._delete(done)

    async def _delete(self, receipts: Iterable[str]) -> None:
        try:
            left = await run(self._client, _delete, self._url, list(receipts), retry=ONCE)
        except CallError as error:
            left = str(error)
        if left:
            log.warning("Could not delete messages in %s; repeated ones will be ignored: %s", self._url, left)

    async def aclose(self) -> None:
        """Leave nothing behind: a receive that is under way ends by itself."""


def _receive(call: Call, url: str, seconds: int) -> list[Message]:
    """Receive and read. On a thread."""
    region = REGION.search(url)
    if region and region[1] != call.region:
        raise CallError(Fault.REJECTED, f"the queue is in {region[1]}, and {call.region} would be asked")
    answer = call(
        "receive_message", QueueUrl=url, MaxNumberOfMessages=PAGE, WaitTimeSeconds=seconds, VisibilityTimeout=HIDDEN
    )
    return [
        Message(each["MessageId"], each["ReceiptHandle"], parse(each["Body"]), each["Body"][:200])
        for each in answer.get("Messages", [])
    ]


def _delete(call: Call, url: str, receipts: Sequence[str]) -> str:
    """Delete messages; return why some could not be. On a thread."""
    left = []
    for start in range(0, len(receipts), PAGE):
        page = [{"Id": str(n), "ReceiptHandle": each} for n, each in enumerate(receipts[start : start + PAGE])]
        left += call("delete_message_batch", QueueUrl=url, Entries=page).get("Failed", [])
    return f"{len(left)} of {len(receipts)}: {left[0].get('Message') or left[0]['Code']}" if left else ""


def _now() -> float:
    return asyncio.get_running_loop().time()
