"""Streams that several asset watchers share: a part of Airflow 3.3; for Airflow 3.2, one watcher reads a stream alone.

3.2 does not say when it has stored an asset event. So what was fired counts as stored after ``STORED_AFTER``. Where a
triggerer ends before that, the broker delivers it again.
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
"""Seconds from an asset event until it counts as stored. The triggerer stores it in the next round of its loop, a
second or two later; a restart of the database delays that."""

_readers: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Lock] = {}
"""Who reads a stream, by event loop and the stream's key, holds its lock."""


async def read_alone(trigger: Any) -> AsyncIterator[TriggerEvent]:
    """Read a trigger's stream for this trigger only, and fire what it makes of it. Never ends.

    Another trigger with the same stream waits until this one is gone: each would see a part of the messages only.

    :param trigger: has ``shared_stream_key``, ``create_shared_stream_producer`` and ``filter_shared_stream``, as
        Airflow 3.3 asks of one that shares a stream.
    """
    loop = asyncio.get_running_loop()
    for closed in [each for each in _readers if each[0].is_closed()]:
        del _readers[closed]
    lock = _readers.setdefault((loop, trigger.shared_stream_key()), asyncio.Lock())
    if lock.locked():
        log.error(
            "Another asset watcher already reads the queue of %s. Before Airflow 3.3 a queue can have only one: give "
            "each watcher its own queue. This one waits until the other is gone",
            trigger,
        )
    async with lock:
        producer = type(trigger).create_shared_stream_producer(trigger.serialize()[1])
        try:
            async for event in trigger.filter_shared_stream(_handed_on(producer)):
                yield event
        finally:
            await producer.aclose()


async def _handed_on(producer: Any) -> AsyncIterator[Any]:
    """Yield batch after batch. When the next one is asked for, Airflow has been given what was fired of the last."""
    async for batch, payload in producer.open_stream():
        yield batch
        if payload.when_stored:
            await _until_stored()
        await producer.advance([SimpleNamespace(broker_payload=payload, outcome=SimpleNamespace(is_clean=True))])


async def _until_stored() -> None:
    """Wait until Airflow has stored the last asset event, as far as that can be known."""
    await asyncio.sleep(STORED_AFTER)
