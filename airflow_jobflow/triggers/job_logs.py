"""What a trigger copies of its jobs' logs: live, the last lines of jobs that failed, or of those that succeeded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from airflow_jobflow.aws import Access
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.triggers.ended_logs import EndedLogs
from airflow_jobflow.triggers.job_log_writer import shared_writer
from airflow_jobflow.triggers.live_logs import FINISH_TIMEOUT, LiveLogs, short_id
from airflow_jobflow.triggers.log_positions import SAVE_INTERVAL, LogPositions

log = logging.getLogger(__name__)

FINISH_TIMEOUT_AT_DEADLINE = 10.0
"""Seconds for which a task whose deadline has passed waits for the rest of its jobs' logs. Together with the other
waits of ``JobTrigger``, less than ``waiting.DEFERRAL_TIMEOUT_MARGIN``."""


class JobLogs:
    """The logs of a trigger's jobs. Create it on the event loop, and close it when the wait is over.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param stream_logs: True to copy the logs while the jobs run, ``failed`` to copy the last lines of those that
        failed at the end, False for neither.
    :param max_log_lines: the most lines to copy.
    :param number_logs_success: how many of the last lines of each job that succeeded are copied. Default 0.
    :param container: the name of the only container whose log is copied. Default None: all.
    :param names_jobs: whether lines begin with the job's id, because there are several jobs. Default False.
    :param task_instance: the task instance, in a triggerer. Default None.
    :param saves_positions: whether positions are saved for a restart of the triggerer. Default False.
    :param deferred_at: when the task was deferred, in seconds since the epoch. Default None: it was not deferred.
    """

    def __init__(
        self,
        access: Access,
        service: str,
        *,
        stream_logs: bool | str,
        max_log_lines: int,
        number_logs_success: int = 0,
        container: str | None = None,
        names_jobs: bool = False,
        task_instance: Any = None,
        saves_positions: bool = False,
        deferred_at: float | None = None,
    ) -> None:
        self._stream_logs = stream_logs
        self._max_log_lines = max_log_lines
        self._number_logs_success = number_logs_success
        self._writer = shared_writer(in_triggerer=task_instance is not None)
        self._ended = EndedLogs(access, service, self._writer, container)
        self._live: LiveLogs | None = None
        if stream_logs is True:
            # Nothing is saved in the first seconds after a deferral.
            is_first = deferred_at is not None and time.time() < deferred_at + SAVE_INTERVAL
            positions = LogPositions(task_instance if saves_positions else None, may_resume=not is_first)
            self._live = LiveLogs(
                access,
                service,
                writer=self._writer,
                positions=positions,
                max_lines=max_log_lines,
                container=container,
                names_jobs=names_jobs,
            )

    def copied(self) -> list[str]:
        """Return the ids of the jobs whose last lines were copied."""
        return sorted(self._ended.copied | (self._live.copied() if self._live else set()))

    def observe(self, snapshot: Snapshot) -> None:
        """Copy the log of a job from now on, if logs are copied live. Of an array nothing is copied before its end.

        :param snapshot: the latest snapshot of the job.
        """
        if self._live and not snapshot.array:
            self._live.observe(snapshot)

    async def finish(self, seen: Collection[Snapshot], *, deadline_passed: bool) -> None:
        """Copy what is left, because the wait is over. Whatever goes wrong is logged, and changes no result.

        :param seen: the last snapshots of the jobs.
        :param deadline_passed: whether it ended at a deadline, so that less time is left.
        """
        within = FINISH_TIMEOUT_AT_DEADLINE if deadline_passed else FINISH_TIMEOUT
        failed = [each for each in seen if each.state is JobState.FAILED and (each.array or not self._live)]
        succeeded = {short_id(each.job_id): each for each in seen if each.state is JobState.SUCCEEDED}
        try:
            if self._live:
                await self._live.finish(within=within)
            async with asyncio.timeout(within):
                if self._stream_logs and failed:
                    await self._ended.copy_failed(failed, self._max_log_lines)
                if self._number_logs_success and succeeded and not self._live:
                    await self._ended.copy(succeeded, self._number_logs_success)
        except Exception as error:  # noqa: BLE001 -- the jobs have ended, and that counts
            log.warning("Could not copy all logs of the jobs: %r", error)
        await self._writer.drain()

    async def finish_map(self, failed: Mapping[str, Snapshot]) -> None:
        """Copy the last lines of the failed items of a map.

        :param failed: the last snapshots of their jobs, by what their lines begin with.
        """
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_AT_DEADLINE):
                await self._ended.copy_several(failed, self._max_log_lines)
        except Exception as error:  # noqa: BLE001 -- the jobs have ended, and that counts
            log.warning("Could not copy the logs of all failed items: %r", error)
        await self._writer.drain()

    def close(self) -> None:
        """Stop copying."""
        if self._live:
            self._live.close()
