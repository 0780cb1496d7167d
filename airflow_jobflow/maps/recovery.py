"""Recovers a map: finds what earlier triggers have started, and saves checkpoints for triggers that follow.

Invariants:

- Nothing is started before it is known what earlier triggers have started.
- Nothing is started before a following trigger can know that there was one before it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from airflow_jobflow.jobs.map_statuses import index_of_line
from airflow_jobflow.jobs.maps import newest_first
from airflow_jobflow.maps.calls import MapCalls
from airflow_jobflow.maps.checkpoint import Checkpoint
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.tracker import JobTracker

log = logging.getLogger(__name__)
"""The module's logger: Airflow knows from the context which task a line belongs to."""

RELIST_DELAY = 3.0
"""Seconds between two listings, which must agree: a job that was just started shows up late."""

MAP_ENDED_REASON = "Airflow: the map was ended before this item"
"""The reason sent to AWS when a job is stopped because the map ends, or because it is a duplicate."""


class MapRecovery:
    """Recovers one map.

    :param state: the map's state; found jobs are recorded in it.
    :param calls: makes the map's calls.
    :param tracker: tracks the jobs that are found.
    :param checkpoint: the map's checkpoints; None if there is no place to save them.
    """

    def __init__(self, state: MapState, calls: MapCalls, tracker: JobTracker, checkpoint: Checkpoint | None) -> None:
        self._state = state
        self._calls = calls
        self._tracker = tracker
        self._checkpoint = checkpoint
        self._saved_lines = 0
        """How many of the state's result lines are in checkpoints."""

    async def recover(self, *, first_trigger_until: float) -> None:
        """Find the jobs that earlier triggers have started, and stop duplicates.

        A started job may not be listed yet when another trigger continues the map. So the first trigger saves a
        checkpoint before it starts anything. A trigger trusts an empty listing only if it finds no checkpoint and the
        map is young. If the first trigger cannot save a checkpoint, it waits until the map is not young any more.

        :param first_trigger_until: seconds since the epoch; a trigger that recovers the map later is not its first.
        :raises CallError: the jobs cannot be listed, even after the grace period.
        """
        calls = self._calls
        follows = self._checkpoint is not None and await self._restore(self._checkpoint)
        is_first = not follows and time.time() < first_trigger_until
        # Two triggers may have run the map for a while, so duplicates are looked for at the end as well.
        calls.may_have_unknown_jobs |= not is_first
        duplicates = await self.find_jobs(is_first=is_first)
        if duplicates:
            log.warning("Stopping %d duplicate jobs: %s", len(duplicates), sorted(duplicates))
            await calls.stopper.stop(MAP_ENDED_REASON, duplicates)
        if is_first and self._checkpoint and not await self._checkpoint.save(self._state.statuses, ()):
            await asyncio.sleep(first_trigger_until - time.time())

    async def _restore(self, checkpoint: Checkpoint) -> bool:
        """Load the checkpoints; return whether there may have been an earlier trigger."""
        loaded = await checkpoint.load()
        if loaded is None:
            return False
        statuses, lines = loaded
        self._state.restore(statuses, {index_of_line(each): each for each in lines})
        self._saved_lines = len(self._state.lines_since(0))
        return True

    async def find_jobs(self, *, is_first: bool = False) -> set[str]:
        """List the map's jobs, and track those that are not tracked yet.

        :param is_first: whether this is the map's first trigger, so that one empty listing is enough. Default False.
        :return: the ids of running duplicates: jobs of items that have another job.
        :raises CallError: the jobs cannot be listed.
        """
        calls, loop = self._calls, asyncio.get_running_loop()
        found = await calls.list_jobs()
        complete_at = loop.time() + calls.listing_delay
        while found or not is_first:
            await asyncio.sleep(RELIST_DELAY)
            before, found = found, await calls.list_jobs()
            if loop.time() >= complete_at and {each.job_id for each in before} == {each.job_id for each in found}:
                break
        counting = [each.job_id for each in newest_first(found) if self._state.record_found(each)]
        self._state.drop_found()
        if counting:
            log.info("Found %s jobs of the map that were started before; watching them", f"{len(counting):,}")
            self._tracker.add_all(counting)
        unwanted = {each.job_id for each in found if not each.ended and not self._state.is_undescribed(each)}
        return unwanted - set(self._state.running)

    async def save_checkpoints(self) -> None:
        """Save a checkpoint now and then, if there is a place to save it. Runs until cancelled."""
        last_saved = ""
        while self._checkpoint:
            await asyncio.sleep(self._calls.checkpoint_interval)
            lines, statuses = self._state.lines_since(self._saved_lines), self._state.statuses
            if statuses != last_saved and await self._checkpoint.save(statuses, lines):
                last_saved = statuses
                self._saved_lines += len(lines)
