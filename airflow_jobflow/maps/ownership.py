"""The beat of a map: the signs that it still is this trigger's own, and no other triggerer's.

Airflow gives the triggers of a triggerer that it has not heard of for a while to another one. What Airflow hears of is
the triggerer's supervisor, another process than the one that triggers run in. So that this process is alive proves
nothing: a beat is a question that goes through the supervisor to the database and back. A supervisor that is blocked,
or has lost the database, answers none.

What always holds: a beat counts from when it was asked for, so that an answer that took long is an old one; and no
error of the round trip ends the map.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 2.0
"""Seconds between an answer and the next question. A question costs the supervisor, which answers one at a time, some
30 ms."""

NEVER = float("-inf")
"""When a beat was that says no."""


async def heartbeats(
    ask: Callable[[], Awaitable[bool]] | None, *, wanted: Callable[[], bool], note: Callable[[float], object]
) -> None:
    """Beat until cancelled.

    :param ask: asks whether the task still waits for its trigger; None where there is no supervisor to be asked.
    :param wanted: whether to ask; where not, that this process is alive is enough for a beat.
    :param note: told of each beat, by when it was asked for, in seconds since the epoch; ``NEVER`` if the task does not
        wait any more.
    """
    told = ""
    while True:
        asked_at = time.time()
        try:
            waits = await ask() if ask and wanted() else True
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is no answer; the map itself goes on
            if told != "no answer":
                told = "no answer"
                log.warning("Could not query whether the task is still deferred; retrying: %r", error)
        else:
            if not waits and told != "no":
                log.info("The task is no longer deferred; not starting any more jobs")
            told = "" if waits else "no"
            note(asked_at if waits else NEVER)
        await asyncio.sleep(HEARTBEAT_INTERVAL)
