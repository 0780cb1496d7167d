"""Stops the jobs of a map: those whose ids are known, or all that a listing finds.

Invariants:

- A job that cannot be stopped does not prevent another from being stopped.
- For each job the task's log reports whether it was stopped, and if not, why.
- While AWS does not respond, stopping ends after a fixed time, however many jobs there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

from airflow_jobflow.aws import Retry, ServiceClient, run
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs.interface import Service
from airflow_jobflow.jobs.maps import Found

log = logging.getLogger(__name__)

MAX_CONCURRENT_CALLS = 16
"""The most concurrent calls of one map. Starts that take a third of a second then use the whole rate limit."""

STOP_RETRY_TIMEOUT = 300.0
"""Seconds for which stop calls are retried while AWS does not respond."""

MAX_IDS_PER_LINE = 100
"""The most job ids in one log line."""

MAX_STOPPED_IDS_LOGGED = 1_000
"""How many stopped jobs are named in the log; further ones are only counted. Airflow closes the log of a task seconds
after its trigger has ended, and drops what has not arrived by then."""


@dataclass(frozen=True, slots=True)
class Unstopped:
    """The jobs of a map that could not be stopped. False if there are none.

    :param job_ids: their ids.
    :param error: why the map's jobs could not be listed, so that there may be more; None if they were listed.
    """

    job_ids: tuple[str, ...] = ()
    error: CallError | None = None

    def __bool__(self) -> bool:
        return bool(self.job_ids or self.error)

    def __str__(self) -> str:
        """Return a description for people; empty if there is nothing to report."""
        names = ", ".join(self.job_ids[:MAX_IDS_PER_LINE])
        more = len(self.job_ids) - MAX_IDS_PER_LINE
        count = "1 job" if len(self.job_ids) == 1 else f"{len(self.job_ids)} jobs"
        parts = [f"{count} could not be stopped: {names}{f' and {more} more' if more > 0 else ''}"]
        parts = parts if self.job_ids else []
        if self.error:
            parts.append(f"more jobs may be running, because they could not be listed: {self.error}")
        return "; ".join(parts)


class MapStopper:
    """Stops the jobs of one map.

    :param client: the client of the service.
    :param jobs: the service.
    :param scope: the cluster or Glue job that stop calls name, if the service needs one; else None.
    :param list_jobs: lists all jobs of the map, with calls that are retried as given.
    """

    def __init__(
        self,
        client: ServiceClient,
        jobs: Service,
        scope: str | None,
        list_jobs: Callable[[Retry], Awaitable[list[Found]]],
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._scope = scope
        self._list_jobs = list_jobs
        self._stopped_count = 0

    async def stop(
        self, reason: str, job_ids: Iterable[str], *, until: float | None = None, remaining: set[str] | None = None
    ) -> Unstopped:
        """Stop jobs, a few at a time.

        :param reason: the reason to send to AWS.
        :param job_ids: the jobs' ids.
        :param until: when to give up, in seconds since the epoch. Default: after ``STOP_RETRY_TIMEOUT`` seconds.
        :param remaining: receives the ids; each one is removed when its job was stopped. Default: not reported.
        :return: the jobs that could not be stopped.
        """
        until = time.time() + STOP_RETRY_TIMEOUT if until is None else until
        remaining = set() if remaining is None else remaining
        to_stop = list(dict.fromkeys(job_ids))[::-1]
        remaining.update(to_stop)
        failed: list[str] = []
        stopped: list[str] = []

        async def work() -> None:
            while to_stop:
                job_id = to_stop.pop()
                if failed and time.time() >= until:
                    failed.append(job_id)  # AWS does not respond: do not wait again for each of thousands
                elif await self._stop(job_id, reason, until):
                    remaining.discard(job_id)
                    stopped.append(job_id)
                    if len(stopped) == MAX_IDS_PER_LINE:
                        await self._log_stopped(stopped, reason)
                else:
                    failed.append(job_id)

        async with asyncio.TaskGroup() as workers:  # unlike gather, it keeps the message of a cancellation
            for _ in range(min(MAX_CONCURRENT_CALLS, len(to_stop))):
                workers.create_task(work())
        await self._log_stopped(stopped, reason)
        return Unstopped(tuple(failed))

    async def _log_stopped(self, stopped: list[str], reason: str) -> None:
        """Log that jobs were stopped, and clear the list. In a thread, because a full log pipe blocks the writer."""
        job_ids = list(stopped)
        stopped.clear()
        if job_ids:
            self._stopped_count += len(job_ids)
            names = f": {', '.join(job_ids)}" if self._stopped_count <= MAX_STOPPED_IDS_LOGGED else ""
            count = (
                f"1 {self._jobs.DISPLAY_NAME}" if len(job_ids) == 1 else f"{len(job_ids)} {self._jobs.DISPLAY_NAME}s"
            )
            await asyncio.to_thread(log.info, "Stopped %s, because %s%s", count, _as_clause(reason), names)

    async def stop_all(
        self,
        reason: str,
        known: Collection[str] = (),
        *,
        retry_timeout: float | None = None,
        remaining: set[str] | None = None,
        spared: Callable[[Found], bool] = lambda _: False,
    ) -> Unstopped:
        """Stop all jobs that the map has started, by any trigger.

        :param reason: the reason to send to AWS.
        :param known: ids of jobs that may still run; others are found by listing.
        :param retry_timeout: seconds for which calls are retried while AWS does not respond. Default
            ``STOP_RETRY_TIMEOUT``.
        :param remaining: as in ``stop``.
        :param spared: returns whether a listed job is left running. Default: none is.
        :return: the jobs that could not be stopped.
        """
        until = time.time() + (STOP_RETRY_TIMEOUT if retry_timeout is None else retry_timeout)
        first = await self.stop(reason, known, until=until, remaining=remaining)
        stopped = set(known) - set(first.job_ids)
        try:
            listed = await self._list_jobs(Retry(patience=STOP_RETRY_TIMEOUT).until(until))
        except CallError as error:
            return Unstopped(first.job_ids, error)
        running = [each.job_id for each in listed if not (each.ended or each.job_id in stopped or spared(each))]
        ended = {each.job_id for each in listed if each.ended}
        # Jobs whose stop has failed are tried once more: AWS may respond again.
        again = [job_id for job_id in first.job_ids if job_id not in ended]
        if remaining is not None:
            remaining -= ended
        return await self.stop(reason, [*again, *running], until=until, remaining=remaining)

    async def _stop(self, job_id: str, reason: str, until: float) -> bool:
        """Stop a job; return whether that succeeded."""
        try:
            retry = Retry(patience=STOP_RETRY_TIMEOUT).until(until)
            await run(self._client, self._jobs.stop, job_id, self._scope, reason, retry=retry)
        except CallError as error:
            await asyncio.to_thread(
                log.error, "Could not stop %s %s, and it may still run: %s", self._jobs.DISPLAY_NAME, job_id, error
            )
            return False
        return True


def _as_clause(reason: str) -> str:
    """Return a reason that is sent to AWS as part of a sentence: ``the Airflow task was killed``."""
    clause = reason.removeprefix("Airflow: ")
    return f"{clause[:1].lower()}{clause[1:]}"
