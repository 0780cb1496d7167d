"""Streams that several asset watchers share: Airflow 3.3 has them; on Airflow 3.2, one watcher reads a stream alone.

3.2 does not report when it has stored an asset event. So an event counts as stored ``STORED_AFTER`` seconds after it
was fired. If a triggerer ends before that, the broker delivers its messages again.

Read in 3.2.1 and 3.3.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

try:
    from airflow.triggers.shared_stream import SharedStreamProducer

    AVAILABLE: Final = True
except ImportError:  # 3.2
    SharedStreamProducer = object  # type: ignore[assignment,misc]
    AVAILABLE = False  # type: ignore[misc]

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

__all__ = ["AVAILABLE", "SharedStreamProducer", "read_alone"]

log = logging.getLogger(__name__)

STORED_AFTER = 15.0
"""Seconds from an asset event until it counts as stored. The triggerer stores it in the next iteration of its loop, one
or two seconds later; a restart of the database delays that."""

_readers: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Lock] = {}
"""The lock that the reader of a stream holds, by event loop and the stream's key."""


async def read_alone(trigger: Any) -> AsyncIterator[TriggerEvent]:
    """Yield the events of one trigger from its stream, which no other trigger reads meanwhile. Never ends.

    Another trigger with the same stream waits until this one has gone, because each would get only some messages.

    :param trigger: has ``shared_stream_key``, ``create_shared_stream_producer`` and ``filter_shared_stream``, as
        Airflow 3.3 requires of a trigger that shares a stream.
    """
    loop = asyncio.get_running_loop()
    for closed in [each for each in _readers if each[0].is_closed()]:
        del _readers[closed]
    lock = _readers.setdefault((loop, trigger.shared_stream_key()), asyncio.Lock())
    if lock.locked():
        log.error(
            "Another asset watcher already reads the queue of %s. Before Airflow 3.3 a queue can have only one: give "
            "each watcher its own queue. This one waits until the other has gone",
            trigger,
        )
    async with lock:
        producer = type(trigger).create_shared_stream_producer(trigger.serialize()[1])
        try:
            async for event in trigger.filter_shared_stream(_batches(producer)):
                yield event
        finally:
            await producer.aclose()


async def _batches(producer: Any) -> AsyncIterator[Any]:
    """Yield the batches of a stream. When the next is requested, Airflow has the events of the one before."""
    async for batch, payload in producer.open_stream():
        yield batch
        if payload.when_stored:
            await _until_stored()
        await producer.advance([SimpleNamespace(broker_payload=payload, outcome=SimpleNamespace(is_clean=True))])


async def _until_stored() -> None:
    """Wait until Airflow has stored the last asset event, as far as can be known."""
    await asyncio.sleep(STORED_AFTER)
