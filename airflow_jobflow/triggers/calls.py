"""The calls that a map makes: in threads, in their turn, and made again where that can mend them.

What always holds: nothing is sent after ``halt`` but what ends jobs or looks them up; a start whose answer was lost
is made again only with a token by which it starts nothing twice, or once no trace of it can be found; and what a
start has started is known here, whatever has become of who waited for it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from airflow.sdk.configuration import conf

from airflow_jobflow.aws import Access, Call, Retry, backoff, full_jitter, run, service_client
from airflow_jobflow.exceptions import NoRoom
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.fan_out import Found, Start
from airflow_jobflow.jobs.maps import map_service
from airflow_jobflow.jobs.starting import LOOKUPS, NotStarted

log = logging.getLogger(__name__)

THREADS = 16
"""The most calls of one map under way at once: with it, starts that take a third of a second keep up the pace."""

STANDSTILL = 0.5
"""The age at which a beat is too old for a start, as a share of ``triggerer_health_check_threshold`` (30 s by default):
so long after a triggerer's last heartbeat Airflow gives its triggers to another. The other half is for the heartbeat,
which may be some seconds older than an answer, and for the start to arrive."""

STOPPING = Retry(patience=60.0)
"""How long a job that should stop is asked to."""

WAIT_FOR_CAPACITY = (Fault.NO_CAPACITY, Fault.THROTTLED)
"""Faults of starts that a later start may not meet."""


class Halted(Exception):
    """Nothing is to be started any more; nothing was."""


class Frozen(Exception):
    """There was a standstill: another process may have started what was to be started; nothing was."""


class Refused(Exception):
    """The service refused a start, in its own words; nothing was started."""


class MapCalls:
    """Makes the calls of one map.

    :param access: whom to ask.
    :param service: our name of the service.
    :param scope: what a call that stops a job is confined to, where the service has such a thing.
    :param family: what tells the map's jobs from all others.
    """

    def __init__(self, access: Access, service: str, scope: str | None, family: Mapping[str, str]) -> None:
        self._jobs = job_service(service)
        self._map = map_service(service)
        self._scope = scope
        self._family = family
        self._client = service_client(access, self._jobs.CLIENT)
        self._retry = Retry(patience=float("inf"), denied_patience=conf.getfloat("jobflow", "denied_grace"))
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
            log.warning("It is not sure any more that the map is this trigger's: nothing is started until it is again")

    async def start(self, request: dict[str, Any], which: Start) -> str:
        """Start an item's job, and return its id.

        :raises NoRoom, Refused, Halted, Frozen: nothing was started.
        :raises CallError: these credentials may not, or there is no such place.
        """
        for turn in itertools.count(1):
            try:
                return await run(self._client, self._start, request, which, retry=self._retry_start)
            except NotStarted as error:
                raise (NoRoom if error.fault in WAIT_FOR_CAPACITY else Refused)(str(error)) from error
            except CallError as error:
                if error.fault in WAIT_FOR_CAPACITY:
                    raise NoRoom(str(error)) from error
                if error.fault is Fault.REJECTED:
                    raise Refused(str(error)) from error
                if error.fault is not Fault.TRANSIENT:
                    raise
                self.in_doubt = True
                log.warning("The response to the start of item %d was lost: %s", which.index, error)
            if self._map.REPEATABLE:
                await asyncio.sleep(full_jitter(backoff(turn)))
            elif found := await self._look_up(which):
                return found
        raise AssertionError

    def _start(self, call: Call, request: dict[str, Any], which: Start) -> str:
        """Start an item's job, unless nothing may be started any more. Runs in a thread, to its end."""
        under_way: Future[None] = Future()
        self._under_way.add(under_way)
        try:
            if self._halted:
                raise Halted("the task was killed, or the map is ended")
            self._check()
            if self.frozen:
                raise Frozen
            job_id = self._map.start(call, self._family, request, which)
            self.begun.add(job_id)
            return job_id
        finally:
            self._under_way.discard(under_way)
            under_way.set_result(None)

    async def _look_up(self, which: Start) -> str | None:
        for seconds in LOOKUPS:
            await asyncio.sleep(seconds)
            if found := await run(self._client, self._map.look_up, self._family, which, retry=self._retry):
                return found
        return None

    async def find(self) -> list[Found]:
        """List all jobs that the map has started so far, by whatever trigger."""
        found: list[Found] = []
        cursor: Sequence[str] | None = None
        while True:
            page, cursor = await run(self._client, self._map.page, self._family, cursor, retry=self._retry)
            found += page
            if cursor is None:
                return found

    def halt(self) -> None:
        """Start nothing any more."""
        self._halted = True

    async def settle(self) -> None:
        """Wait for the starts under way, so that ``begun`` is complete."""
        await asyncio.gather(*(asyncio.wrap_future(each) for each in list(self._under_way)), return_exceptions=True)

    async def stop(self, reason: str, job_ids: Iterable[str]) -> int:
        """End jobs, a few at a time; return how many could not be told to end."""
        left = list(dict.fromkeys(job_ids))[::-1]
        failed = 0

        async def work() -> None:
            nonlocal failed
            while left:
                failed += not await self._stop(left.pop(), reason)

        await asyncio.gather(*(work() for _ in range(min(THREADS, len(left)))))
        return failed

    async def stop_all(self, reason: str, known: Collection[str] = ()) -> int:
        """End all that the map has started, by whatever trigger; return how many could not be told to end.

        :param known: ids of jobs that may still run; others are found by listing.
        """
        failed = await self.stop(reason, known)
        found = [each.job_id for each in await self.find() if not each.ended and each.job_id not in known]
        return failed + await self.stop(reason, found)

    async def _stop(self, job_id: str, reason: str) -> bool:
        try:
            await run(self._client, self._jobs.stop, job_id, self._scope, reason, retry=STOPPING)
        except CallError as error:
            log.warning("%s %s could not be stopped: %s", self._jobs.NOUN, job_id, error)
            return False
        return True
