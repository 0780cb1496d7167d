"""Reads an SQS queue of state changes for all asset watchers that share it in a triggerer.

Messages are received, parsed and published in batches. Airflow passes each batch to every watcher, and reports when all
watchers have processed it and their asset events are stored. Then the watchers record what was delivered, the messages
are deleted, and the next batch, which has been collected meanwhile, may follow.

Invariants:

- A message is deleted only if no watcher of this triggerer wants it, or if Airflow has stored the asset event for it.
  SQS delivers every other message again.
- An error never ends the stream: the queue is read again, with back-off, and each reason is logged once.
- After an asset event is stored, none follows for ``ASSET_EVENT_INTERVAL``. Airflow 3.3 creates no run for an asset
  event that arrives while the run for the previous one has not been created; it leaves that to a later event, which
  may never come. So state changes that arrive close together share an asset event.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.shared_streams import SharedStreamProducer
from airflow_jobflow.aws import Access, backoff, full_jitter
from airflow_jobflow.events.eventbridge import parse_message
from airflow_jobflow.events.sqs import SqsMessage, SqsQueue
from airflow_jobflow.events.state_change import job_payload
from airflow_jobflow.events.wakeup_queue import EXTRA, queue_url
from airflow_jobflow.faults import CallError, Fault

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem

log = logging.getLogger(__name__)

ASSET_EVENT_INTERVAL = 30.0
"""Seconds between two asset events: by then a scheduler has created the run, or counts as dead."""

PROCESSED_CHECK_INTERVAL = 1.0
"""Seconds between two checks whether the watchers have processed a batch."""

MAX_BATCH = 1000
"""Messages in a batch, plus those of one receive: a DAG can map over at most 1,024. Others wait in the queue."""

LONG_POLL = 5
"""Seconds for which a receive waits for a message. Not SQS's maximum of 20: a triggerer exits only when its threads
have ended."""

VISIBILITY_TIMEOUT = 60
"""Seconds after which SQS delivers a message again that was not deleted. Well above ``ASSET_EVENT_INTERVAL`` plus the
time that storing takes."""

PERMISSIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage")


@dataclass(frozen=True)
class StateChangeMessage:
    """A message with the state change of a job.

    :param message_id: the same in each delivery.
    :param receipt: the handle of this delivery.
    :param job: the payload, see ``state_change.job_payload``.
    """

    message_id: str
    receipt: str
    job: dict[str, Any]


@dataclass
class Batch:
    """Messages that are published together.

    :param messages: the messages.
    :param when_stored: functions to call when Airflow has stored the asset events for them. Default none.
    """

    messages: list[StateChangeMessage]
    when_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The payloads of the messages."""
        return [message.job for message in self.messages]


class StateChangeStream(SharedStreamProducer):
    """Produces the batches of a queue for Airflow's shared streams.

    :param access: the AWS connection to use.
    :param url: of the queue.
    """

    def __init__(self, access: Access, url: str) -> None:
        self._url = url
        self._access = access
        self._queue = SqsQueue(access, url, PERMISSIONS)
        self._receipts: dict[str, str] = {}
        """By message id, the latest receipt of each message that is neither deleted nor left to be delivered again."""
        self._checked_owner = False
        """Whether the queue is known not to be the waits' queue."""
        self._in_progress = False
        """Whether the watchers have not processed the last batch yet."""
        self._next_batch_at = float("-inf")
        """When the next batch may be published, by the event loop's clock."""
        self._failures = 0
        self._logged_error = ""
        """Why nothing can be received, as last logged."""
        self._logged_unreadable = False

    async def open_stream(self) -> AsyncIterator[tuple[Batch, Batch]]:
        """Yield batch after batch; never ends."""
        while True:
            batch = await self._collect()
            self._in_progress = True
            yield batch, batch

    async def _collect(self) -> Batch:
        """Receive messages until there are some and the next batch may be published."""
        messages: list[StateChangeMessage] = []
        while True:
            remaining = PROCESSED_CHECK_INTERVAL if self._in_progress else self._next_batch_at - _now()
            if messages and remaining <= 0:
                return Batch(messages)
            if len(messages) >= MAX_BATCH:
                await asyncio.sleep(remaining)
            else:
                messages += await self._receive(min(LONG_POLL, math.ceil(remaining)) if messages else LONG_POLL)

    async def _receive(self, seconds: int) -> list[StateChangeMessage]:
        """Receive up to ten messages, and return the new ones. Deletes those that are not state changes of jobs."""
        try:
            await self._require_own_queue()
            received = await self._queue.receive(seconds, visibility_timeout=VISIBILITY_TIMEOUT)
        except CallError as error:
            await self._pause_after(error)
            return []
        if self._failures:
            log.info("Receiving job state changes from %s again", self._url)
            self._failures, self._logged_error = 0, ""
        messages, unreadable = [], []
        for each in received:
            event = parse_message(each.body)
            job = job_payload(event) if event else None
            if job is None:
                unreadable.append(each)
            else:
                messages.append(StateChangeMessage(each.message_id, each.receipt, job))
        await self._delete_unreadable(unreadable)
        new = [each for each in messages if each.message_id not in self._receipts]
        self._receipts |= {each.message_id: each.receipt for each in messages}
        return new

    async def _require_own_queue(self) -> None:
        """Raise an error if the connection says that the waits use this queue: the watchers would take its messages.

        :raises CallError: it is the waits' queue, or the connection could not be read.
        """
        if not self._checked_owner:
            waits_url = await asyncio.to_thread(queue_url, self._access, fresh=True)
            if waits_url and waits_url.rstrip("/") == self._url.rstrip("/"):
                message = (
                    f"{self._url}: the extra {EXTRA} of the connection {self._access} says that the waits use this "
                    "queue, and asset watchers need their own"
                )
                raise CallError(Fault.REJECTED, message)
            self._checked_owner = True

    async def _pause_after(self, error: CallError) -> None:
        """Log why nothing can be received, once for each reason, and sleep for a while."""
        self._failures += 1
        if str(error) != self._logged_error:
            self._logged_error = str(error)
            log.warning(
                "Cannot receive job state changes, so they start no DAG until this works: %s. The triggerer keeps "
                "trying",
                self._logged_error.rstrip("."),
            )
        await asyncio.sleep(full_jitter(backoff(self._failures)))

    async def _delete_unreadable(self, messages: Sequence[SqsMessage]) -> None:
        if messages and not self._logged_unreadable:
            self._logged_unreadable = True
            log.warning(
                "Deleting a message in %s that is not a job state change from EventBridge. Others like it are deleted "
                "silently. It begins: %r",
                self._url,
                messages[0].excerpt,
            )
        await self._delete(each.receipt for each in messages)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Record which batches are stored, and delete their messages. SQS delivers all others again.

        :param batch: the batches that all watchers have processed, each with its outcome.
        """
        processed = []
        for item in batch:
            published: Batch = item.broker_payload
            receipts = [self._receipts.pop(each.message_id, each.receipt) for each in published.messages]
            self._in_progress = False
            if published.when_stored:
                self._next_batch_at = _now() + ASSET_EVENT_INTERVAL
            if item.outcome.is_clean:
                for record in published.when_stored:
                    await record()
                processed += receipts
        await self._delete(processed)

    async def _delete(self, receipts: Iterable[str]) -> None:
        try:
            await self._queue.delete(receipts)
        except CallError as error:
            log.warning("Could not delete messages; they will be ignored when they are delivered again: %s", error)

    async def aclose(self) -> None:
        """Do nothing: a receive that is under way ends by itself, and SQS delivers its messages again."""


def _now() -> float:
    return asyncio.get_running_loop().time()
