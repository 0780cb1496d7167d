"""Writes lines of jobs to the logs of their tasks, without blocking the triggerer.

In a triggerer, one socket carries the log lines of all tasks. The supervisor reads 4 KB of it in each iteration of its
loop, in which it also queries the database. While the socket is full, every log line of the process blocks, also those
of Airflow on the event loop. So the lines of jobs are written at a limited rate, in records of about 4 KB, one at a
time, and in a thread; after a write that blocked there is a pause, in which the supervisor catches up. Several lines
share a record, because a record has 400 bytes besides its text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

log = logging.getLogger("airflow_jobflow.job")
"""The logger of jobs' lines. Airflow knows from the context which task a line belongs to."""

RECORD_BYTES = 4_000
"""The most characters of a log record with several lines."""

RECORD_OVERHEAD = 400
"""Bytes of a record besides its text: the time, the logger, and the task."""

BYTES_PER_SECOND = 250_000.0
"""Bytes per second that all tasks in a triggerer write. Its supervisor reads at least as much, unless it is busy."""

BLOCKED, PAUSES = 0.02, 3.0
"""Seconds from which a write counts as blocked, and the pause after it as a multiple of its duration."""

BURST = 0.3
"""Seconds for which more may be written at once, so that a few lines are not delayed."""


DRAIN_MARGIN = 2.0
"""Seconds that the supervisor may be behind this rate when a trigger ends."""


class JobLogWriter:
    """Writes the lines of all jobs on one event loop.

    :param bytes_per_second: the rate limit. Default ``BYTES_PER_SECOND``.
    """

    def __init__(self, bytes_per_second: float = BYTES_PER_SECOND) -> None:
        self._bytes_per_second = bytes_per_second
        self._is_limited = bytes_per_second < float("inf")
        self._turn = asyncio.Lock()  # first come, first served
        self._read_at = float("-inf")
        """When the supervisor has read what was written, in seconds of the event loop's clock."""

    async def write(self, lines: Iterable[str]) -> None:
        """Write lines to the log of the task that calls this. Other tasks write in between.

        :param lines: the lines.
        """
        loop = asyncio.get_running_loop()
        for record in records(lines):
            async with self._turn:
                await asyncio.sleep(max(0.0, self._read_at - BURST - loop.time()))
                began = loop.time()
                await asyncio.to_thread(log.info, "%s", record)
                took = loop.time() - began
                seconds = (len(record) + RECORD_OVERHEAD) / self._bytes_per_second
                self._read_at = max(self._read_at, loop.time()) + seconds
                if took > BLOCKED and self._is_limited:
                    self._read_at = max(self._read_at, loop.time() + BURST + took * PAUSES)

    async def drain(self) -> None:
        """Wait until what was written is read: the supervisor closes a task's log as soon as its trigger has ended."""
        if self._is_limited and self._read_at > float("-inf"):
            await asyncio.sleep(max(0.0, self._read_at + DRAIN_MARGIN - asyncio.get_running_loop().time()))


def records(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to texts of at most ``RECORD_BYTES`` characters; a longer line is a text of its own.

    :param lines: the lines.
    """
    text: list[str] = []
    size = 0
    for line in lines:
        if text and size + len(line) > RECORD_BYTES:
            yield "\n".join(text)
            text, size = [], 0
        text.append(line)
        size += len(line) + 1
    if text:
        yield "\n".join(text)


_writers: dict[asyncio.AbstractEventLoop, JobLogWriter] = {}


def shared_writer(*, in_triggerer: bool) -> JobLogWriter:
    """Return this event loop's writer.

    :param in_triggerer: whether the rate is limited; the log of a worker is read fast enough.
    """
    loop = asyncio.get_running_loop()
    for closed in [each for each in _writers if each.is_closed()]:
        del _writers[closed]
    return _writers.setdefault(loop, JobLogWriter(BYTES_PER_SECOND if in_triggerer else float("inf")))
