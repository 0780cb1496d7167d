"""Stops the jobs of one trigger in the background, and retries for minutes if AWS cannot be reached.

Invariants:

- Each job has at most one stop call at a time.
- A job that cannot be stopped does not prevent another from being stopped.
- For each job the task's log reports whether it was stopped, and if not, why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from airflow_jobflow.aws import Access, Retry, run, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.ui import notes

FIRST_RETRY = Retry(patience=20.0, denied_patience=20.0)
"""How long a stop is retried before its error is reported."""

LONG_RETRY = Retry(patience=600.0, denied_patience=600.0, longest_delay=20.0)
"""How long it is retried after that. The orphan reaper stops jobs that still run then."""

log = logging.getLogger(__name__)
"""The module's logger: Airflow knows from the context which task a line belongs to."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Runs a coroutine in the background to its end, and returns its task."""


class Stopper:
    """Stops jobs of one service.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param scope: the cluster or Glue job that stop calls name, if the service needs one; else None.
    :param spawn: runs a coroutine in the background to its end.
    """

    def __init__(self, access: Access, service: str, scope: str | None, spawn: Spawn) -> None:
        self._module = job_service(service)
        self._client = service_client(access, self._module.CLIENT)
        self._scope = scope
        self._spawn = spawn
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.unstopped: dict[str, str] = {}
        """The last error of each job that is not stopped yet or could not be stopped, by id."""
        self.stopped_at: dict[str, str] = {}
        """When AWS accepted the stop of each job, in ISO 8601, by id."""

    @property
    def stopped(self) -> list[str]:
        """The ids of the jobs that were stopped."""
        return [job_id for job_id in self._tasks if job_id not in self.unstopped]

    def stop(self, job_id: str, reason: str, last_seen: str | None) -> None:
        """Stop a job, unless it was stopped or is being stopped. Does not wait for it.

        :param job_id: the job's id.
        :param reason: the reason to send to AWS and to log.
        :param last_seen: the job's last status, for the log; None if it was never described.
        """
        task = self._tasks.get(job_id)
        if task is None or (task.done() and job_id in self.unstopped):
            self.unstopped[job_id] = "there was no response yet"
            self._tasks[job_id] = self._spawn(self._stop(job_id, reason, last_seen))

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until all stops have succeeded or failed.

        :param seconds: the longest time to wait. Default None: no limit.
        """
        if pending := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.wait(pending, timeout=seconds)

    async def _stop(self, job_id: str, reason: str, last_seen: str | None) -> None:
        noun = self._module.DISPLAY_NAME
        why = f"{reason[:1].lower()}{reason[1:]}"
        last_status = f"It was last seen {last_seen}" if last_seen else "It was not described before"
        try:
            for retry in (FIRST_RETRY, LONG_RETRY):
                try:
                    await run(self._client, self._module.stop, job_id, self._scope, reason, retry=retry)
                except CallError as error:
                    self.unstopped[job_id] = str(error)
                    if retry.delay(error, 1, 0.0) is None:
                        break  # retrying this error is pointless
                else:
                    del self.unstopped[job_id]
                    self.stopped_at[job_id] = notes.now()
                    await _log(logging.INFO, "Stopped %s %s: %s. %s", noun, job_id, why, last_status)
                    return
        except asyncio.CancelledError:  # the process shuts down
            if job_id in self.unstopped:
                log.error("%s %s was not stopped, and may still run: %s", noun, job_id, self.unstopped[job_id])  # noqa: TRY400
            raise
        await _log(
            logging.ERROR,
            "Could not stop %s %s, and it may still run: %s. It was to be stopped because %s. %s",
            noun,
            job_id,
            self.unstopped[job_id],
            why,
            last_status,
        )


async def _log(level: int, message: str, *args: object) -> None:
    """Log in a thread: if hundreds of tasks are killed at once, the pipe to the log is full, and writing blocks."""
    await asyncio.to_thread(log.log, level, message, *args)
