"""Which triggerer owns a map: heartbeats confirm that this trigger does, and no other triggerer's.

When Airflow has not heard from a triggerer for a while, it moves its triggers to another one. Airflow hears from the
triggerer's supervisor, which is another process than the one that runs the triggers. So this process being alive proves
nothing. A heartbeat is a query that goes through the supervisor to the database and back. A supervisor that is blocked
or has lost the database does not answer it.

Invariants:

- A heartbeat counts from the time of its query, so a slow answer is an old heartbeat.
- No error of a query ends the map.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from airflow.sdk import conf

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 2.0
"""Seconds between an answer and the next query. A query takes the supervisor, which handles one at a time, some
30 ms."""

NEVER = float("-inf")
"""The time of a heartbeat that reports that the task is not deferred any more."""


MAX_AGE_SHARE = 0.5
"""The age at which a heartbeat is too old to start jobs, as a share of ``triggerer_health_check_threshold`` (30 s by
default): the time after a triggerer's last heartbeat at which Airflow moves its triggers to another triggerer. The
other half allows for that heartbeat, which may be some seconds older than an answer, and for the start to reach AWS."""


class Ownership:
    """Whether this trigger owns its map, according to its heartbeats. It does when the map begins."""

    def __init__(self) -> None:
        self._max_age = MAX_AGE_SHARE * conf.getfloat("triggerer", "triggerer_health_check_threshold")
        self._heartbeat_at = time.time()
        self._lost = False

    @property
    def is_confirmed(self) -> bool:
        """Whether the last heartbeat is so recent that no other triggerer can have the map now."""
        return time.time() - self._heartbeat_at <= self._max_age

    @property
    def is_lost(self) -> bool:
        """Whether heartbeats were missing for a while. Nothing may be started before the jobs are listed again."""
        if not self._lost and not self.is_confirmed:
            self._lost = True
            log.warning("Lost confirmation that this triggerer owns the map; not starting jobs until it is confirmed")
        return self._lost

    def record(self, queried_at: float) -> None:
        """Record a heartbeat. Call it every few seconds.

        :param queried_at: the time of its query, in seconds since the epoch.
        """
        _ = self.is_lost  # a gap before this heartbeat
        self._heartbeat_at = queried_at

    def reacquire(self) -> None:
        """Make this trigger count as the owner again. The caller lists the jobs before it starts any."""
        self._lost = False


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
