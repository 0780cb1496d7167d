"""The heartbeat of a map: confirms that this trigger still owns the map, and no other triggerer's.

When Airflow has not heard from a triggerer for a while, it moves its triggers to another one. Airflow hears from the
triggerer's supervisor, which is another process than the one that runs the triggers. So it proves nothing that this
process is alive. A heartbeat is a query that goes through the supervisor to the database and back. A supervisor that is
blocked or has lost the database does not answer it.

Invariants:

- A heartbeat counts from the time of its query, so a slow answer is an old heartbeat.
- No error of a query ends the map.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 2.0
"""Seconds between an answer and the next query. A query takes the supervisor, which handles one at a time, some
30 ms."""

NEVER = float("-inf")
"""The time of a heartbeat that reports that the task is not deferred any more."""


async def heartbeats(
    query: Callable[[], Awaitable[bool]] | None,
    *,
    is_needed: Callable[[], bool],
    on_heartbeat: Callable[[float], object],
) -> None:
    """Send heartbeats until cancelled.

    :param query: returns whether the task is still deferred; None if there is no supervisor to query.
    :param is_needed: returns whether to query. If not, it is enough for a heartbeat that this process is alive.
    :param on_heartbeat: called with the time of each answered query, in seconds since the epoch; with ``NEVER`` if the
        task is not deferred any more.
    """
    last_logged = ""
    while True:
        queried_at = time.time()
        try:
            is_deferred = await query() if query and is_needed() else True
        except Exception as error:  # noqa: BLE001 -- any error is a missing answer; the map itself continues
            if last_logged != "no answer":
                last_logged = "no answer"
                log.warning("Could not query whether the task is still deferred; retrying: %r", error)
        else:
            if not is_deferred and last_logged != "not deferred":
                log.info("The task is no longer deferred; not starting any more jobs")
            last_logged = "" if is_deferred else "not deferred"
            on_heartbeat(queried_at if is_deferred else NEVER)
        await asyncio.sleep(HEARTBEAT_INTERVAL)
