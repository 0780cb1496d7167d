"""Copies what the jobs of a trigger write into the log of its task, while they run.

An asyncio task for each log stream gets the pages of the process's log reader, and writes them in the context of this
trigger: from the context, Airflow knows which task's log a line belongs to.

Invariants:

- A log that cannot be read costs one line in the task's log, and never the wait.
- Nothing is left out; see ``log_positions`` for what a restart of the triggerer repeats.
- Of all jobs of a task, at most ``max_lines`` lines are copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any

from airflow_jobflow.aws import Access, run, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.log_readers import shared_log_reader
from airflow_jobflow.outcomes import DETAILS
from airflow_jobflow.polling.log_stream import START, Page, Stream
from airflow_jobflow.triggers.job_log_writer import JobLogWriter
from airflow_jobflow.triggers.log_positions import LogPositions

log = logging.getLogger(__name__)

FINISH_TIMEOUT = 60.0
"""Seconds for which a task whose jobs have ended waits for the rest of their logs."""


class LiveLogs:
    """The logs of one trigger's jobs. Close it when the wait is over.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param writer: writes the lines.
    :param positions: where to continue after a restart of the triggerer.
    :param max_lines: the most lines to copy.
    :param container: the name of the only container whose log is copied. Default None: all.
    :param names_jobs: whether lines begin with the job's id, because there are several jobs. Default False.
    """

    def __init__(
        self,
        access: Access,
        service: str,
        *,
        writer: JobLogWriter,
        positions: LogPositions,
        max_lines: int,
        container: str | None = None,
        names_jobs: bool = False,
    ) -> None:
        self._access = access
        self._module = job_service(service)
        self._writer = writer
        self._positions = positions
        self._max_lines = max_lines
        self._container = container
        self._names_jobs = names_jobs
        self._copies: dict[LogStream, _Copy] = {}
        self._located: set[tuple[str, int]] = set()
        """The ids and attempts of jobs whose log streams are known, or are being looked up."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_finishing = self._is_closed = False

    def copied(self) -> set[str]:
        """Return the ids of the jobs that wrote lines, all of which were copied."""
        copies = self._copies.values()
        return {copy.job_id for copy in copies if copy.has_lines} - {
            copy.job_id for copy in copies if not copy.is_complete
        }

    def observe(self, snapshot: Snapshot) -> None:
        """Copy the logs of a job from now on, if their streams are known.

        :param snapshot: the latest snapshot of the job.
        """
        if self._is_closed:
            return
        attempt = (snapshot.job_id, snapshot.attempt)
        if streams := self._module.log_streams(snapshot):
            self._located.add(attempt)
            self._copy(snapshot, streams)
        elif snapshot.state is not JobState.SUBMITTED and attempt not in self._located:
            self._located.add(attempt)
            self._spawn(self._locate(snapshot))

    async def _locate(self, snapshot: Snapshot) -> None:
        """Look up the log streams of a job whose snapshot does not have them, and copy them."""
        client = service_client(self._access, self._module.CLIENT)
        try:
            snapshot = await run(client, self._module.with_final_details, snapshot, retry=DETAILS)
        except CallError:
            self._located.discard((snapshot.job_id, snapshot.attempt))  # tried again when the job changes
            return
        if streams := self._module.log_streams(snapshot):
            self._copy(snapshot, streams)
        elif "pod" in (snapshot.details or {}) and not snapshot.state.ended:
            await self._note(f"{self._called(snapshot)} runs in a pod, so its log is copied when it has ended")
        elif snapshot.started_at or not snapshot.state.ended:
            await self._note(f"{self._called(snapshot)} has no log in CloudWatch Logs yet, so none is copied")

    def _copy(self, snapshot: Snapshot, streams: Mapping[str, LogStream]) -> None:
        """Start to copy the streams of a job that are new, and finish with those that get no more lines."""
        if self._container and self._container in streams:
            streams = {self._container: streams[self._container]}
        for name, source in streams.items():
            if source not in self._copies:
                of = [short_id(snapshot.job_id)] * self._names_jobs + [name] * (len(streams) > 1)
                copy = _Copy(snapshot.job_id, f"[{' '.join(of)}] " if of else "")
                self._copies[source] = copy
                self._spawn(self._follow(copy, source, self._called(snapshot)))
        for source, copy in self._copies.items():
            is_over = snapshot.state.ended or self._is_finishing
            if copy.job_id == snapshot.job_id and (is_over or source not in streams.values()):  # of an earlier attempt
                copy.end(_ended_at(snapshot))

    async def _follow(self, copy: _Copy, source: LogStream, called: str) -> None:
        """Copy one stream to its end."""
        try:
            position = await self._positions.load(source)
            copy.has_lines = position != START
            with shared_log_reader(self._access, source.region).subscribe(source, position) as stream:
                copy.started(stream)
                async for page in stream:
                    await self._write(copy, page, source, called)
                    copy.has_lines |= bool(page.lines)
                    if self._positions.lines >= self._max_lines:
                        return
            copy.is_complete = True
        except CallError as error:
            await self._note(f"The log of {called} cannot be copied from {source}: {error}")
        except Exception:  # the wait continues, whatever it is
            log.exception("Unexpected error: the log of %s is no longer copied", called)

    async def _write(self, copy: _Copy, page: Page, source: LogStream, called: str) -> None:
        """Write one page to the task's log."""
        if page.missing:
            await self._note(f"The log of {called} does not exist yet ({source}): {page.missing}")
        left = self._max_lines - self._positions.lines
        self._positions.lines += len(page.lines)
        await self._writer.write(copy.prefix + line for line in page.lines[: max(0, left)])
        if 0 < left <= len(page.lines):
            await self._note(f"No more lines are copied: max_log_lines is {self._max_lines}. The rest is in {source}")
        self._positions.record(source, page.position)

    async def finish(self, *, within: float = FINISH_TIMEOUT) -> None:
        """Copy the rest of the logs, because the wait is over.

        :param within: the most seconds that this takes. Default ``FINISH_TIMEOUT``.
        """
        self._is_finishing = True
        for copy in self._copies.values():
            copy.end(time.time())
        try:
            async with asyncio.timeout(within):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            await self._note(f"The log was not read to its end within {within:g} s. The rest is in CloudWatch Logs")

    def close(self) -> None:
        """Stop copying."""
        self._is_closed = True
        self._positions.close()
        for task in self._tasks:
            task.cancel()

    def _called(self, snapshot: Snapshot) -> str:
        return f"{self._module.DISPLAY_NAME} {snapshot.job_id}"

    async def _note(self, text: str) -> None:
        await asyncio.to_thread(log.info, "%s", text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Copy:
    """The copy of one stream.

    :param job_id: the id of the job that writes it.
    :param prefix: what its lines begin with.
    """

    def __init__(self, job_id: str, prefix: str) -> None:
        self.job_id = job_id
        self.prefix = prefix
        self.has_lines = self.is_complete = False
        """Whether it has any lines, and whether all of them were copied."""
        self._stream: Stream[LogStream] | None = None
        self._ended_at: float | None = None

    def started(self, stream: Stream[LogStream]) -> None:
        """Record the subscription."""
        self._stream = stream
        if self._ended_at is not None:
            self.end(self._ended_at)

    def end(self, at: float) -> None:
        """Read to the end, because the job ended, in seconds since the epoch."""
        self._ended_at = at if self._ended_at is None else min(at, self._ended_at)
        if self._stream is not None:
            self._stream.end(asyncio.get_running_loop().time() - max(0.0, time.time() - self._ended_at))


def short_id(job_id: str) -> str:
    """Return what identifies a job in the log of its task: of an ARN, the last part.

    :param job_id: the job's id.
    """
    return job_id.rpartition("/")[2]


def _ended_at(snapshot: Snapshot) -> float:
    """Return when a job has ended, or now, in seconds since the epoch."""
    with contextlib.suppress(TypeError, ValueError):
        return min(time.time(), datetime.fromisoformat(snapshot.stopped_at or "").timestamp())
    return time.time()
