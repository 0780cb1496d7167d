"""The calls that a map makes: in threads, within the rate limit, and repeated where that may help.

Invariants:

- After ``halt`` nothing is sent but what stops jobs or looks them up.
- A start whose response was lost is repeated only with a token by which it starts nothing twice, or once no trace of
  it can be found.
- What a start has started is known here, whatever has become of who waited for it.
- Neither throttling nor an outage ends anything here. Missing permissions and credentials do, after their grace period.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from airflow.sdk import conf

from airflow_jobflow.aws import Access, Call, Retry, backoff, full_jitter, run, service_client
from airflow_jobflow.exceptions import CapacityUnavailable
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.maps import Found, Start, map_service
from airflow_jobflow.jobs.starting import LOOKUPS, NotStarted

log = logging.getLogger(__name__)

THREADS = 16
"""The most calls of one map under way at once: with it, starts that take a third of a second use the whole rate."""

STANDSTILL = 0.5
"""The age at which a beat is too old for a start, as a share of ``triggerer_health_check_threshold`` (30 s by default):
so long after a triggerer's last heartbeat Airflow gives its triggers to another. The other half is for the heartbeat,
which may be some seconds older than an answer, and for the start to arrive."""

STOP_PATIENCE = 300.0
"""Seconds for which the jobs of a map are asked to stop while AWS does not respond."""

IDS_LOGGED = 100
"""The most ids of jobs in one line of a log."""

STOPS_LOGGED = 1_000
"""How many jobs that were stopped are named in the log; further ones are only counted. Airflow closes the log of a task
seconds after its trigger has ended, whatever has not arrived there by then."""


class MapCancelled(Exception):
    """Nothing is to be started any more; nothing was."""


class OwnershipLost(Exception):
    """There was a standstill: another process may have started what was to be started; nothing was."""


class ItemRejected(Exception):
    """The service rejected a start; nothing was started. The message is the service's."""


@dataclass(frozen=True, slots=True)
class Unstopped:
    """What is left of a map that was to be stopped.

    :param job_ids: the jobs that could not be stopped.
    :param error: why others could not be listed, so that more may run; None if they were listed.
    """

    job_ids: tuple[str, ...] = ()
    error: CallError | None = None

    def __bool__(self) -> bool:
        return bool(self.job_ids or self.error)

    def __str__(self) -> str:
        """Say what is left, for people; empty if nothing is."""
        names = ", ".join(self.job_ids[:IDS_LOGGED])
        more = len(self.job_ids) - IDS_LOGGED
        count = "1 job" if len(self.job_ids) == 1 else f"{len(self.job_ids)} jobs"
        parts = [f"{count} could not be stopped: {names}{f' and {more} more' if more > 0 else ''}"]
        parts = parts if self.job_ids else []
        if self.error:
            parts.append(f"whether more jobs run could not be listed: {self.error}")
        return "; ".join(parts)


class _Patience(Retry):
    """Repeats for as long as it takes what may pass by itself, and for the grace period what somebody has to permit."""

    def delay(self, error: CallError, failures: int, elapsed: float) -> float | None:
        """Return the seconds to wait before a failed call is repeated; None if it is not."""
        if error.fault is Fault.CREDENTIALS and elapsed >= self.denied_patience:
            return None
        return Retry.delay(self, error, failures, elapsed)


class MapCalls:
    """Makes the calls of one map.

    :param access: the AWS connection to use.
    :param service: our name of the service.
    :param scope: what a call that stops a job is confined to, where the service has such a thing.
    :param family: what tells the map's jobs from all others.
    """

    def __init__(self, access: Access, service: str, scope: str | None, family: Mapping[str, Any]) -> None:
        self._jobs = job_service(service)
        self._map = map_service(service)
        self._scope = scope
        self._family = family
        self._client = service_client(access, self._jobs.CLIENT)
        self._retry = _Patience(patience=float("inf"), denied_patience=conf.getfloat("jobflow", "denied_grace"))
        self._retry_start = replace(self._retry, repeatable=self._map.REPEATABLE)
        self._halted = False
        self._under_way: set[Future[None]] = set()
        self.begun: set[str] = set()
        """The ids of jobs that starts have started, until they are taken in."""
        self.checkpoint = self._map.CHECKPOINT
        """Seconds between two notes of what has ended."""
        self.lateness = 0.0 if self._map.REPEATABLE else sum(LOOKUPS)
        """Seconds for which a start may not be listed yet; none where a token keeps it from being made twice."""
        self.in_doubt = False
        """Whether a start got no answer; what it has started, if it was not made sure of, a listing tells."""
        self.frozen = False
        """Whether beats have failed to come for a while, so that nothing is to be started before all is listed anew."""
        self._standstill: float = STANDSTILL * conf.getfloat("triggerer", "triggerer_health_check_threshold")
        self._beat_at = time.time()
        self._stops_logged = 0

    @property
    def fresh(self) -> bool:
        """Whether the last beat is so young that no other triggerer can have the map."""
        return time.time() - self._beat_at <= self._standstill

    def beat(self, asked_at: float) -> None:
        """Note a beat, see ``triggers.beat``; call it every few seconds.

        :param asked_at: when it was asked for, in seconds since the epoch.
        """
        self._check()
        self._beat_at = asked_at

    def _check(self) -> None:
        if not self.frozen and not self.fresh:
            self.frozen = True
            log.warning("Lost confirmation that this triggerer owns the map; not starting jobs until it is confirmed")

    # Starting.

    async def start(self, request: dict[str, Any], which: Start) -> str:
        """Start an item's job, and return its id.

        :raises CapacityUnavailable: AWS has no capacity for it now; nothing was started.
        :raises Refused: AWS rejected it; nothing was started.
        :raises Halted, Frozen: nothing was started.
        :raises CallError: it was denied for the whole grace period, there were no credentials for as long, or there is
            no such queue or cluster.
        """
        for turn in itertools.count(1):
            try:
                return await run(self._client, self._start, request, which, retry=self._retry_start)
            except NotStarted as error:
                self.in_doubt = True  # ECS has reported failures of tasks that it had started
                raise (CapacityUnavailable if error.may_pass else ItemRejected)(str(error)) from error
            except CallError as error:
                await self._look_at(error, which)
            if self._map.REPEATABLE:
                await asyncio.sleep(full_jitter(backoff(turn)))
            elif found := await self._look_up(which):
                return found
        raise AssertionError

    async def _look_at(self, error: CallError, which: Start) -> None:
        """Raise what a start that failed comes to; return if an earlier request of it may have started the job."""
        self.in_doubt |= error.sent
        if error.fault in (Fault.NO_CAPACITY, Fault.THROTTLED):
            if not error.sent:
                raise CapacityUnavailable(str(error)) from error
        elif error.fault is Fault.REJECTED:
            raise ItemRejected(str(error)) from error
        elif error.fault is not Fault.TRANSIENT:
            raise error
        log.warning("The response to the start of item %d was lost: %s", which.index, error)

    def _start(self, call: Call, request: dict[str, Any], which: Start) -> str:
        """Start an item's job, unless nothing may be started any more. Runs in a thread, to its end."""
        under_way: Future[None] = Future()
        self._under_way.add(under_way)
        try:
            if self._halted:
                raise MapCancelled("the task was killed")
            self._check()
            if self.frozen:
                raise OwnershipLost
            job_id = self._map.start(call, self._family, request, which)
            self.begun.add(job_id)
            return job_id
        finally:
            self._under_way.discard(under_way)
            under_way.set_result(None)

    async def _look_up(self, which: Start) -> str | None:
        for seconds in LOOKUPS:
            await asyncio.sleep(seconds)
            if found := await run(self._client, self._map.find_submitted, self._family, which, retry=self._retry):
                return found
        return None

    def halt(self) -> None:
        """Start nothing any more."""
        self._halted = True

    async def settle(self) -> None:
        """Wait for the starts under way, so that ``begun`` is complete."""
        if under_way := [asyncio.wrap_future(each) for each in list(self._under_way)]:
            await asyncio.wait(under_way)

    # Listing and stopping.

    async def find(self, retry: Retry | None = None) -> list[Found]:
        """List all jobs that the map has started so far, by whatever trigger.

        :param retry: when a call is repeated. Default: until AWS answers, or has refused for the grace period.
        :raises CallError: they cannot be listed.
        """
        found: list[Found] = []
        cursor: Sequence[str] | None = None
        while True:
            page, cursor = await run(
                self._client, self._map.page, self._family, cursor, retry=self._retry if retry is None else retry
            )
            found += page
            if cursor is None:
                return found

    async def stop(
        self, reason: str, job_ids: Iterable[str], *, until: float | None = None, left: set[str] | None = None
    ) -> Unstopped:
        """Stop jobs, a few at a time.

        :param reason: what AWS is told.
        :param until: until when this is tried, in seconds since the epoch. Default: for ``STOP_PATIENCE`` seconds.
        :param left: is filled with the ids, and loses each one that was stopped.
        :return: what could not be stopped.
        """
        until = time.time() + STOP_PATIENCE if until is None else until
        left = set() if left is None else left
        to_stop = list(dict.fromkeys(job_ids))[::-1]
        left.update(to_stop)
        failed: list[str] = []
        stopped: list[str] = []

        async def work() -> None:
            while to_stop:
                job_id = to_stop.pop()
                if failed and time.time() >= until:
                    failed.append(job_id)  # AWS does not respond: each of thousands would wait for that once more
                elif await self._stop(job_id, reason, until):
                    left.discard(job_id)
                    stopped.append(job_id)
                    if len(stopped) == IDS_LOGGED:
                        await self._log_stopped(stopped, reason)
                else:
                    failed.append(job_id)

        async with asyncio.TaskGroup() as workers:  # unlike gather, it keeps the message of a cancellation
            for _ in range(min(THREADS, len(to_stop))):
                workers.create_task(work())
        await self._log_stopped(stopped, reason)
        return Unstopped(tuple(failed))

    async def _log_stopped(self, stopped: list[str], reason: str) -> None:
        """Log that jobs were stopped, and remove them from the list. In a thread: the way to the logs may be full."""
        job_ids = list(stopped)
        stopped.clear()
        if job_ids:
            self._stops_logged += len(job_ids)
            named = f": {', '.join(job_ids)}" if self._stops_logged <= STOPS_LOGGED else ""
            count = (
                f"1 {self._jobs.DISPLAY_NAME}" if len(job_ids) == 1 else f"{len(job_ids)} {self._jobs.DISPLAY_NAME}s"
            )
            await asyncio.to_thread(log.info, "Stopped %s, because %s%s", count, _because(reason), named)

    async def stop_all(
        self,
        reason: str,
        known: Collection[str] = (),
        *,
        patience: float | None = None,
        left: set[str] | None = None,
    ) -> Unstopped:
        """Stop all that the map has started, by whatever trigger.

        :param reason: what AWS is told.
        :param known: ids of jobs that may still run; others are found by listing.
        :param patience: seconds for which this is tried while AWS does not respond. Default ``STOP_PATIENCE``.
        :param left: see ``stop``.
        :return: what could not be stopped.
        """
        until = time.time() + (STOP_PATIENCE if patience is None else patience)
        first = await self.stop(reason, known, until=until, left=left)
        stopped = set(known) - set(first.job_ids)
        try:
            listed = await self.find(Retry(patience=STOP_PATIENCE).until(until))
        except CallError as error:
            return Unstopped(first.job_ids, error)
        # Those whose stop failed once more: AWS may respond again.
        running = [each.job_id for each in listed if not each.ended and each.job_id not in stopped]
        ended = {each.job_id for each in listed if each.ended}
        again = [job_id for job_id in first.job_ids if job_id not in ended]
        if left is not None:
            left -= ended
        return await self.stop(reason, [*again, *running], until=until, left=left)

    async def _stop(self, job_id: str, reason: str, until: float) -> bool:
        try:
            retry = Retry(patience=STOP_PATIENCE).until(until)
            await run(self._client, self._jobs.stop, job_id, self._scope, reason, retry=retry)
        except CallError as error:
            await asyncio.to_thread(
                log.error, "Could not stop %s %s, and it may still run: %s", self._jobs.DISPLAY_NAME, job_id, error
            )
            return False
        return True


def _because(reason: str) -> str:
    """Return a reason that AWS is told as a part of a sentence: ``the Airflow task was killed``."""
    words = reason.removeprefix("Airflow: ")
    return f"{words[:1].lower()}{words[1:]}"
