"""Copies the last lines of jobs that have ended into the log of their task: of failed ones, or of successful ones."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from airflow_jobflow.aws import Access, run, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import batch, logs
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import LogStream, Snapshot
from airflow_jobflow.outcomes import DETAILS
from airflow_jobflow.triggers.job_log_writer import JobLogWriter
from airflow_jobflow.triggers.live_logs import short_id

log = logging.getLogger(__name__)

MAX_JOBS = 20
"""The most jobs, children or items whose lines are copied. The error of the task names all that failed."""

MAX_BYTES = 1_000_000
"""The most bytes that are copied for a task."""


class EndedLogs:
    """Copies last lines for one task.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param writer: writes the lines.
    :param container: the name of the container whose log counts. Default None: AWS's rules decide.
    """

    def __init__(self, access: Access, service: str, writer: JobLogWriter, container: str | None = None) -> None:
        self._access = access
        self._module = job_service(service)
        self._writer = writer
        self._container = container
        self.copied: set[str] = set()
        """The ids of the jobs whose last lines were copied."""

    async def copy(self, ended: Mapping[str, Snapshot], count: int) -> None:
        """Copy the last lines of at most ``MAX_JOBS`` jobs. What cannot be read is logged as missing.

        :param ended: the last snapshots of the jobs, each with what its lines begin with if there are several.
        :param count: how many lines of each.
        """
        most_bytes = MAX_BYTES // max(1, min(len(ended), MAX_JOBS))
        for name, snapshot in list(ended.items())[:MAX_JOBS]:
            source = snapshot.counting(self._container).log
            if source is None:
                continue
            access = dataclasses.replace(self._access, region_name=source.region or self._access.region_name)
            try:
                client = service_client(access, logs.CLIENT)
                lines = await run(client, _last_lines, source, count, most_bytes, retry=DETAILS)
                self.copied.add(snapshot.job_id)
            except CallError as error:
                lines = [f"(the log could not be read: {error})"]
            await self._note(f"Last lines of {self._module.DISPLAY_NAME} {snapshot.job_id} in {source}:")
            await self._writer.write(f"[{name}] {line}" if len(ended) > 1 else line for line in lines)
        if len(ended) > MAX_JOBS:
            await self._note(f"The logs of {len(ended) - MAX_JOBS} more jobs are not copied")

    async def copy_failed(self, failed: Sequence[Snapshot], max_lines: int) -> None:
        """Copy the last lines of jobs that failed; of an array, those of its failed children.

        :param failed: the last snapshots of the jobs.
        :param max_lines: the most lines to copy.
        """
        ended: dict[str, Snapshot] = {}
        for snapshot in failed:
            if not snapshot.array:
                ended[short_id(snapshot.job_id)] = snapshot
                continue
            try:
                ended |= await self._failed_children(snapshot, "" if len(failed) == 1 else f"{snapshot.job_id}:")
            except CallError as error:
                await self._note(f"The logs of the failed children of {snapshot.job_id} cannot be copied: {error}")
        await self.copy_several(ended, max_lines)

    async def copy_several(self, ended: Mapping[str, Snapshot], max_lines: int) -> None:
        """Copy the last lines of several jobs, an equal share of each.

        :param ended: as for ``copy``.
        :param max_lines: the most lines of all together.
        """
        await self.copy(ended, max(1, max_lines // max(1, min(len(ended), MAX_JOBS))))

    async def _failed_children(self, array: Snapshot, prefix: str) -> dict[str, Snapshot]:
        """Return the first failed children of an array, by index; a listing does not say where they log."""
        client = service_client(self._access, batch.CLIENT)
        listed = await run(client, batch.failed_children, array.job_id, MAX_JOBS + 1, retry=DETAILS)
        indexes = [child.index for child in listed]
        children = await run(client, batch.children, array.job_id, indexes, retry=DETAILS) if indexes else []
        return {f"{prefix}{child.index}": child.snapshot for child in children}

    async def _note(self, text: str) -> None:
        await asyncio.to_thread(log.info, "%s", text)


def _last_lines(call: Call, source: LogStream, count: int, most_bytes: int) -> list[str]:
    return logs.last_lines(call, source, count, most_bytes=most_bytes)
