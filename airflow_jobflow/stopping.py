"""Stops the jobs of one trigger, in the background, for minutes where AWS cannot be reached.

Invariants:

- A job is stopped by one call at a time, whoever wants it stopped.
- One job that cannot be stopped does not keep another from being stopped.
- For each job the task's log says how it went: stopped, or not, and why.
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

FIRST_TRY = Retry(patience=20.0, denied_patience=20.0)
"""How long a stop is repeated before its error can be reported."""

THEN = Retry(patience=600.0, denied_patience=600.0, longest_delay=20.0)
"""How long it is repeated after that. What is left then is the orphan reaper's."""

log = logging.getLogger(__name__)
"""Of the module: which task a line belongs to, Airflow knows from the context it is logged in."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Stopper:
    """Stops jobs of one service.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param scope: what a stop call is confined to, where the service has such a thing.
    :param spawn: runs a coroutine in the background, to its end.
    """

    def __init__(self, access: Access, service: str, scope: str | None, spawn: Spawn) -> None:
        self._module = job_service(service)
        self._client = service_client(access, self._module.CLIENT)
        self._scope = scope
        self._spawn = spawn
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.unstopped: dict[str, str] = {}
        """Jobs that are not stopped yet, or could not be, and the last error of each."""
        self.stopped_at: dict[str, str] = {}
        """When AWS accepted the stop of each job, in ISO 8601."""

    @property
    def stopped(self) -> list[str]:
        """The ids of the jobs that were stopped."""
        return [job_id for job_id in self._tasks if job_id not in self.unstopped]

    def stop(self, job_id: str, reason: str, last_seen: str | None) -> None:
        """Stop a job, unless it was stopped or is being stopped. Does not wait for it.

        :param reason: for AWS and for the log.
        :param last_seen: the job's last status, for the log; None if it was never described.
        """
        task = self._tasks.get(job_id)
        if task is None or (task.done() and job_id in self.unstopped):
            self.unstopped[job_id] = "there was no response yet"
            self._tasks[job_id] = self._spawn(self._stop(job_id, reason, last_seen))

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until all jobs were stopped or could not be.

        :param seconds: the longest time to wait. Default None: without a limit.
        """
        if pending := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.wait(pending, timeout=seconds)

    async def _stop(self, job_id: str, reason: str, last_seen: str | None) -> None:
        noun = self._module.DISPLAY_NAME
        why = f"{reason[:1].lower()}{reason[1:]}"
        known = f"It was last seen {last_seen}" if last_seen else "It was not described before"
        try:
            for retry in (FIRST_TRY, THEN):
                try:
                    await run(self._client, self._module.stop, job_id, self._scope, reason, retry=retry)
                except CallError as error:
                    self.unstopped[job_id] = str(error)
                    if retry.delay(error, 1, 0.0) is None:
                        break  # it is of no use to repeat that one
                else:
                    del self.unstopped[job_id]
                    self.stopped_at[job_id] = notes.now()
                    await _log(logging.INFO, "Stopped %s %s: %s. %s", noun, job_id, why, known)
                    return
        except asyncio.CancelledError:  # the process ends
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
            known,
        )


async def _log(level: int, message: str, *args: object) -> None:
    """Log in a thread: where hundreds of tasks are killed at once, the way to the logs is full, and writing blocks."""
    await asyncio.to_thread(log.log, level, message, *args)
