"""The log readers of this process: one per connection and region, shared by all tasks that copy logs of jobs."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from airflow_jobflow.aws import Access, Rate, run_paid, service_client
from airflow_jobflow.jobs import logs
from airflow_jobflow.jobs.model import LogStream
from airflow_jobflow.polling.log_reader import LogReader
from airflow_jobflow.polling.log_stream import Page, Position

LAG = 10.0
"""Age in seconds of a page's newest line from which the next page is read at once, to catch up."""

_readers: dict[tuple[asyncio.AbstractEventLoop, str], LogReader[LogStream]] = {}


def shared_log_reader(access: Access, region: str | None) -> LogReader[LogStream]:
    """Return this event loop's reader of the logs in a region. Creates one if there is none, or if it has ended.

    :param access: the AWS connection to use.
    :param region: the region; None for that of the connection.
    """
    access = dataclasses.replace(access, region_name=region or access.region_name)
    key = (asyncio.get_running_loop(), access.key)
    reader = _readers.get(key)
    if reader is None or reader.ended:
        reader = _readers[key] = _make(key, access)
    return reader


def _make(key: tuple[asyncio.AbstractEventLoop, str], access: Access) -> LogReader[LogStream]:
    client = service_client(access, logs.CLIENT)

    async def fetch(log: LogStream, position: Position) -> Page:
        page = await run_paid(client, logs.next_page, log, position.token, position.timestamp, rate=Rate.ACTION)
        is_last = page.token in (None, position.token)
        is_behind = not page.lines or page.newest < (time.time() - LAG) * 1000
        return Page(
            page.lines,
            Position(page.token or position.token, max(page.newest, position.timestamp)),
            is_last=is_last,
            is_behind=not is_last and (is_behind or len(page.lines) >= logs.STREAMED_EVENTS_PER_PAGE),
            missing=page.missing,
        )

    def close() -> None:
        if _readers.get(key) is reader:
            del _readers[key]

    reader: LogReader[LogStream] = LogReader(fetch, client.turns(Rate.ACTION), close=close)
    return reader
