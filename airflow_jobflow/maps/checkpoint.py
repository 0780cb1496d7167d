"""Checkpoints: a map's trigger saves which items have ended, for the trigger that continues the map after a crash.

ECS forgets a stopped task after an hour, so a listing alone would have its item run again. Every quarter of an hour the
items that have ended since the last checkpoint are pushed as an XCom of the task, the only place that a trigger can
write to. The first checkpoint is saved before any job is started. It proves that there was an earlier trigger. Airflow
deletes the XComs when the task is retried, which is intended.
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
"""Prefix of the XCom keys; the number of the checkpoint follows."""


class Checkpoint:
    """The checkpoints of one map.

    :param task_instance: the task instance whose XComs are used.
    :param name: identifies the map; checkpoints of another map are not loaded.
    """

    def __init__(self, task_instance: Any, name: str) -> None:
        self._task_instance = task_instance
        self._name = name
        self._count = 0
        """How many checkpoints are saved."""

    async def save(self, statuses: str, lines: Sequence[str]) -> bool:
        """Save a checkpoint.

        :param statuses: the statuses of all items, see ``jobs.map_statuses``.
        :param lines: the result lines of the items that have ended since the last checkpoint.
        :return: whether it was saved.
        """
        value = {"map": self._name, "packed": await asyncio.to_thread(pack, [statuses, *lines])}
        try:
            await asyncio.to_thread(set_xcom, self._task_instance, f"{KEY}_{self._count}", value)
        except Exception as error:  # noqa: BLE001 -- whatever an XCom backend raises, the map itself continues
            log.warning("Could not save a checkpoint of the map; trying again later: %s", error)
            return False
        self._count += 1
        return True

    async def load(self) -> tuple[str, list[str]] | None:
        """Load all checkpoints.

        :return: the statuses of all items in the last checkpoint, and the result lines of the items that had ended.
            None if there is no checkpoint. Empty statuses if the checkpoints cannot be read.
        """
        statuses, lines = "", []
        try:
            while (packed := await self._load_next()) is not None:
                statuses, *more = await asyncio.to_thread(unpack, packed)
                lines += more
                self._count += 1
        except Exception as error:  # noqa: BLE001 -- likewise
            log.warning("Could not load the checkpoints of the map: %s", error)
            return statuses, lines
        return (statuses, lines) if self._count else None

    async def _load_next(self) -> str | None:
        value = await asyncio.to_thread(get_xcom, self._task_instance, f"{KEY}_{self._count}")
        return str(value["packed"]) if isinstance(value, dict) and value.get("map") == self._name else None
