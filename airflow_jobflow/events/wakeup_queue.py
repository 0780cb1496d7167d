"""Listens for events, for the watchers of this process: one listener for each event loop and way to ask AWS.

Which queue, the connection says, or else the setting: without either nobody listens. Only a triggerer listens: a task
that waits in its worker is there for itself alone, and would take messages from those who wait for them.

What a listener receives wakes the jobs of all watchers of its event loop, for several may listen to one queue.
Triggerers may share one, too, but more than three had better have a queue each, by the setting's environment variable:
then each hears of all, also of a job for which two of them wait.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk import conf

from airflow_jobflow.aws import ONCE, Access, Call, backoff, full_jitter, run, service_client
from airflow_jobflow.events.eventbridge import JobEvent, about, read
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.wakeups import MOST, Listener, Message
from airflow_jobflow.polling.watcher import Watcher

EXTRA = "jobflow_event_queue_url"
"""What a connection's extra names the queue by; an empty one says that there is none, whatever the setting."""

Key = tuple[asyncio.AbstractEventLoop, str]

EXCERPT = 200
"""Characters of a message that the log may show."""

REGION = re.compile(r"//(?:sqs\.)?([a-z]+(?:-[a-z]+)+-\d+)(?:\.queue)?\.amazonaws\.")
"""The region in the URL of a queue, of the present form or the older one."""

HINTS = {
    Fault.DENIED: "It takes sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue.",
    **dict.fromkeys(
        (Fault.REJECTED, Fault.SCOPE_NOT_FOUND), "Is this the queue's URL, and is the queue in that region?"
    ),
}
"""What to do about a queue that cannot be read."""


class EventQueue:
    """The queue of events of a connection, if it has one.

    :param access: whom to ask.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client = service_client(access, "sqs")
        self._url: str | None = None
        self._region: str | None = None
        self._failed = False
        """Whether the queue that the connection named could not be used."""
        self._closed = False

    async def receive(self, seconds: float) -> list[Message[JobEvent]] | None:
        """Receive up to ten messages, waiting for the first for the given time; None if there is no queue.

        :raises CallError: there was no answer, or a refusal.
        """
        if self._url is None:
            self._url = await asyncio.to_thread(queue_url, self._access, fresh=self._failed)
        return await self._call(self._receive, seconds) if self._url else None

    async def delete(self, handles: Sequence[str]) -> None:
        """Delete messages."""
        await self._call(self._delete, handles)

    async def release(self, handles: Sequence[str]) -> None:
        """Give messages back, to be received again at once."""
        await self._call(self._release, handles)

    def close(self) -> None:
        """Receive no more. The messages of a receive that is under way go back to the queue."""
        self._closed = True

    async def _call(self, call: Any, *arguments: Any) -> Any:
        try:
            answer = await run(self._client, call, *arguments, retry=ONCE)
        except CallError as error:
            where = f"{self._url}, asked in region {self._region} by connection {self._access.aws_conn_id}"
            words = f"{where}: {str(error).rstrip('.')}. {self._hint(error.fault)}".rstrip()
            self._url, self._failed = None, True  # the connection may say another one, now or later
            raise CallError(error.fault, words, error.code, error.operation) from error
        self._failed = False
        return answer

    def _hint(self, fault: Fault) -> str:
        found = REGION.search(self._url or "")
        if found and found[1] != self._region:
            return f"The queue is in region {found[1]}: only waits of that region can be woken by it."
        return HINTS.get(fault, "")

    # In the thread of the calls.

    def _receive(self, call: Call, seconds: float) -> list[Message[JobEvent]]:
        self._region = call.region
        answer = call(
            "receive_message",
            QueueUrl=self._url or "",
            MaxNumberOfMessages=MOST,
            WaitTimeSeconds=int(seconds),
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        messages = [
            Message(
                handle=message["ReceiptHandle"],
                event=read(message["Body"]),
                receives=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
                excerpt=message["Body"][:EXCERPT],
            )
            for message in answer.get("Messages", [])
        ]
        if self._closed and messages:
            self._release(call, [message.handle for message in messages])
        return messages

    def _delete(self, call: Call, handles: Sequence[str]) -> None:
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        call("delete_message_batch", QueueUrl=self._url or "", Entries=entries)

    def _release(self, call: Call, handles: Sequence[str]) -> None:
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0} for index, handle in enumerate(handles)
        ]
        call("change_message_visibility_batch", QueueUrl=self._url or "", Entries=entries)


def queue_url(access: Access, *, fresh: bool = False) -> str | None:
    """Return the URL of the queue of a connection's events: what it says itself, or else the setting. Blocks.

    :param fresh: whether the connection is read again. Default False: what its last client has read counts.
    :raises CallError: the connection could not be read.
    """
    said = access.extra(fresh=fresh).get(EXTRA, conf.get("jobflow", "event_queue_url", fallback=""))
    return str(said or "").strip() or None


_listeners: dict[Key, Listener[JobEvent]] = {}


def listen_for(watcher: Watcher[Any], access: Access, service: str) -> Callable[[], None]:
    """Wake a watcher's jobs when an event tells of them, if its connection has a queue of events.

    :param watcher: whom to wake.
    :param access, service: whom and what it asks.
    :return: what ends that.
    """
    key = (asyncio.get_running_loop(), access.key)
    listener = _listeners.get(key)
    if listener is None or listener.ended:
        listener = _listeners[key] = _make(key, access)
    listener.join(watcher, lambda event, known: about(event, service, known))
    return lambda: listener.leave(watcher)


def _make(key: Key, access: Access) -> Listener[JobEvent]:
    queue = EventQueue(access)

    def close() -> None:
        queue.close()
        if _listeners.get(key) is listener:
            del _listeners[key]

    def wake(event: JobEvent) -> bool:
        known = [each.wake(event) for (loop, _), each in _listeners.items() if loop is key[0]]
        return any(known)

    listener: Listener[JobEvent] = Listener(
        queue.receive,
        queue.delete,
        queue.release,
        slow_pace=conf.getfloat("jobflow", "event_poll_interval"),
        wake=wake,
        pause=lambda failures: full_jitter(backoff(failures)),
        close=close,
    )
    return listener
