"""Wakes up waits when an event arrives: one listener for each event loop and AWS connection of this process.

The connection names the queue, or else the setting; without either there are no wake-ups. Only triggerers listen. A
task that waits in a worker waits for itself alone, and would take messages that others need.

Several connections may use the same queue, so a received event wakes up the jobs of all watchers of the event loop.
Several triggerers may share a queue too. With more than three, give each its own queue, by the setting's environment
variable: then each triggerer receives every event, also for a job that two of them wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk import conf

from airflow_jobflow.aws import Access, backoff, full_jitter
from airflow_jobflow.events.eventbridge import JobEvent, jobs_to_describe, parse_message
from airflow_jobflow.events.sqs import SqsQueue
from airflow_jobflow.faults import CallError
from airflow_jobflow.polling.wakeups import Listener, Message
from airflow_jobflow.polling.watcher import Watcher

EXTRA = "jobflow_event_queue_url"
"""The member of a connection's extra with the queue's URL. An empty one means no queue, whatever the setting says."""

PERMISSIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")

Key = tuple[asyncio.AbstractEventLoop, str]


class EventQueue:
    """A connection's queue of events, if it has one.

    :param access: the AWS connection to use.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._queue: SqsQueue | None = None
        self._failed = False
        """Whether the last call failed. The connection is then read again, because it may name another queue now."""
        self._closed = False

    async def receive(self, seconds: float) -> list[Message[JobEvent]] | None:
        """Receive up to ten messages.

        :param seconds: how long to wait for the first message.
        :return: the messages; None if the connection has no queue.
        :raises CallError: there was no response, or AWS refused the call.
        """
        if self._queue is None or self._failed:
            url = await asyncio.to_thread(queue_url, self._access, fresh=self._failed)
            if url is None:
                return None
            self._queue = SqsQueue(self._access, url, PERMISSIONS)
            if self._closed:
                self._queue.close()
        try:
            received = await self._queue.receive(seconds)
        except CallError:
            self._failed = True
            raise
        self._failed = False
        return [Message(each.receipt, parse_message(each.body), each.receives, each.excerpt) for each in received]

    async def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages that were received.

        :param receipts: of the messages.
        :raises CallError: some or all were not deleted.
        """
        if self._queue:
            await self._queue.delete(receipts)

    async def release(self, receipts: Sequence[str]) -> None:
        """Return messages to the queue, to be received again at once.

        :param receipts: of the messages.
        :raises CallError: some or all were not returned.
        """
        if self._queue:
            await self._queue.release(receipts)

    def close(self) -> None:
        """Stop receiving. The messages of a receive that is still under way return to the queue."""
        self._closed = True
        if self._queue:
            self._queue.close()


def queue_url(access: Access, *, fresh: bool = False) -> str | None:
    """Return the URL of a connection's queue of events: from its extra, or else from the setting. Blocks.

    :param access: the AWS connection.
    :param fresh: whether to read the connection again. Default False: as its last client has read it.
    :return: the URL; None if there is no queue.
    :raises CallError: the connection could not be read.
    """
    url = access.extra(fresh=fresh).get(EXTRA, conf.get("jobflow", "event_queue_url", fallback=""))
    return str(url or "").strip() or None


_listeners: dict[Key, Listener[JobEvent]] = {}


def listen_for(watcher: Watcher[Any], access: Access, service: str) -> Callable[[], None]:
    """Wake up a watcher's jobs when an event concerns them, if its connection has a queue of events.

    :param watcher: the watcher.
    :param access: the AWS connection of the watcher.
    :param service: our name of the watcher's service.
    :return: call it to stop that.
    """
    key = (asyncio.get_running_loop(), access.key)
    listener = _listeners.get(key)
    if listener is None or listener.ended:
        listener = _listeners[key] = _create(key, access)
    listener.subscribe(watcher, lambda event, job_ids: jobs_to_describe(event, service, job_ids))
    return lambda: listener.unsubscribe(watcher)


def _create(key: Key, access: Access) -> Listener[JobEvent]:
    queue = EventQueue(access)

    def close() -> None:
        queue.close()
        if _listeners.get(key) is listener:
            del _listeners[key]

    def wake(event: JobEvent) -> bool:
        woken = [each.wake(event) for (loop, _), each in _listeners.items() if loop is key[0]]
        return any(woken)

    listener: Listener[JobEvent] = Listener(
        queue.receive,
        queue.delete,
        queue.release,
        event_poll_interval=conf.getfloat("jobflow", "event_poll_interval"),
        wake=wake,
        pause=lambda failures: full_jitter(backoff(failures)),
        close=close,
    )
    return listener
