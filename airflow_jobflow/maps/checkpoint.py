"""What a map's trigger notes of the items that have ended, for a trigger that follows it after a crash.

ECS forgets a stopped task after an hour, so that listing alone would have its item run again. Every quarter of an hour
what has ended since is published as an XCom of the task, the one place that a trigger can write to. The first note is
made before anything is started, and tells that there was a trigger. A retry of the task clears them, as it is to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from airflow_jobflow.airflow_compat.xcoms import get_xcom, set_xcom
from airflow_jobflow.jobs.packing import pack, unpack

log = logging.getLogger(__name__)

KEY = "jobflow_map_checkpoint"
"""Key of the XComs; each has its number too."""


class Checkpoint:
    """The notes of one map.

    :param task_instance: the task instance whose XComs they are.
    :param name: of the map; notes of another one are not read.
    """

    def __init__(self, task_instance: Any, name: str) -> None:
        self._task_instance = task_instance
        self._name = name
        self._parts = 0

    async def save(self, statuses: str, lines: Sequence[str]) -> bool:
        """Note how all items stand, and what is told of those that have ended since; return whether that worked."""
        value = {"map": self._name, "packed": await asyncio.to_thread(pack, [statuses, *lines])}
        try:
            await asyncio.to_thread(set_xcom, self._task_instance, f"{KEY}_{self._parts}", value)
        except Exception as error:  # noqa: BLE001 -- whatever an XCom backend raises, the map itself goes on
            log.warning("Could not save which items have ended; trying again later: %s", error)
            return False
        self._parts += 1
        return True

    async def load(self) -> tuple[str, list[str]] | None:
        """Return how all items stood at the last note, and what was told of those that had ended.

        None if nothing was ever noted; no statuses where that cannot be found out.
        """
        statuses, lines = "", []
        try:
            while (noted := await self._noted()) is not None:
                statuses, *more = await asyncio.to_thread(unpack, noted)
                lines += more
                self._parts += 1
        except Exception as error:  # noqa: BLE001 -- likewise
            log.warning("Could not read which items had ended before: %s", error)
            return statuses, lines
        return (statuses, lines) if self._parts else None

    async def _noted(self) -> str | None:
        value = await asyncio.to_thread(get_xcom, self._task_instance, f"{KEY}_{self._parts}")
        return str(value["packed"]) if isinstance(value, dict) and value.get("map") == self._name else None
