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
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from airflow.sdk.configuration import conf

from airflow_jobflow.aws import Access, Caller
from airflow_jobflow.exceptions import NoRoom
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.fan_out import Found, Start
from airflow_jobflow.jobs.maps import map_service
from airflow_jobflow.jobs.starting import FULL, LOOKUPS, NotStarted
from airflow_jobflow.watch.errors import DescribeError, Fault
from airflow_jobflow.watch.pacing import Pace, pause
from airflow_jobflow.watch.watcher import RENEWALS

log = logging.getLogger(__name__)

THREADS = 16
"""The most calls of one map under way at once: with it, starts that take a third of a second keep up the pace."""

STANDSTILL = 0.5
"""The age at which a beat is too old for a start, as a share of ``triggerer_health_check_threshold`` (30 s by default):
so long after a triggerer's last heartbeat Airflow gives its triggers to another. The other half is for the heartbeat,
which may be some seconds older than an answer, and for the start to arrive."""

STOPS = 6
"""How often a job is told to stop before that counts as failed; throttled calls do not count."""

Answer = TypeVar("Answer")


class Halted(Exception):
    """Nothing is to be started any more; nothing was."""


class Frozen(Exception):
    """There was a standstill: another process may have started what was to be started; nothing was."""


class Refused(Exception):
    """The service refused a start, in its own words; nothing was started."""


class Turns:
    """Gives each call its turn, at a service's pace. Shared by the maps of one connection in a process.

    :param calls_per_second: the pace, unless throttling slows it down.
    """

    def __init__(self, calls_per_second: float) -> None:
        self.pace = Pace(calls_per_second)
        self._lock = asyncio.Lock()

    async def take(self) -> float:
        """Wait for a turn; return the time at which it came."""
        async with self._lock:
            late = 0.0
            while (rest := self.pace.delay(_now())) > 0:
                due = _now() + rest
                await asyncio.sleep(rest)
                late = max(0.0, _now() - due)
            # A timer is late by a little each time: the next one makes up for that, but not for long pauses.
            self.pace.spend(_now() - min(late, 1 / self.pace.rate))
            return _now()


_turns: weakref.WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, str], Turns] = weakref.WeakValueDictionary()


def shared_turns(access: Access, service: str) -> Turns:
    """Return what paces this event loop's calls that start jobs of a service."""
    key = (asyncio.get_running_loop(), access.key, service)
    turns = _turns.get(key)
    if turns is None:
        turns = _turns[key] = Turns(map_service(service).STARTS_PER_SECOND)
    return turns


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
        self._caller = Caller(access, self._jobs.CLIENT, conf.getfloat("jobflow", "request_timeout"), THREADS)
        self._turns = shared_turns(access, service)
        self._renewals = 0
        self._halted = False
        self._under_way: set[Future[str]] = set()
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
        :raises DescribeError: these credentials may not, or there is no such place.
        """
        for turn in itertools.count(1):
            try:
                return await self._made(self._start, request, which, start=True)
            except NotStarted as error:
                raise (NoRoom if FULL.search(str(error)) else Refused)(str(error)) from error
            except DescribeError as error:
                if error.fault is Fault.REJECTED:
                    raise (NoRoom if FULL.search(str(error)) else Refused)(str(error)) from error
                if error.fault is not Fault.PASSING:
                    raise
                self.in_doubt = True
                log.warning("The start of item %d got no answer: %s", which.index, error)
            if self._map.REPEATABLE:
                await asyncio.sleep(pause(turn))
            elif found := await self._look_up(which):
                return found
        raise AssertionError

    def _start(self, request: dict[str, Any], which: Start) -> Future[str]:
        future = self._caller.begin(self._map.start, self._family, request, which)
        self._under_way.add(future)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: Future[str]) -> None:
        """Note what a start has started. On the thread of the call."""
        if not future.cancelled() and future.exception() is None:
            self.begun.add(future.result())
        self._under_way.discard(future)

    async def _look_up(self, which: Start) -> str | None:
        for seconds in LOOKUPS:
            await asyncio.sleep(seconds)
            found: str | None = await self._made(
                self._caller.begin, self._map.look_up, self._family, which, repeat=True
            )
            if found:
                return found
        return None

    async def find(self) -> list[Found]:
        """List all jobs that the map has started so far, by whatever trigger."""
        found: list[Found] = []
        cursor: Sequence[str] | None = None
        while True:
            page, cursor = await self._made(self._caller.begin, self._map.page, self._family, cursor, repeat=True)
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
        for turn in range(1, STOPS + 1):
            try:
                await self._made(self._caller.begin, self._jobs.stop, job_id, self._scope, reason)
                return True
            except DescribeError as error:
                if turn == STOPS or error.fault is not Fault.PASSING:
                    log.warning("%s %s could not be stopped: %s", self._jobs.NOUN, job_id, error)
                    return False
            await asyncio.sleep(pause(turn))
        return False

    def close(self) -> None:
        """Give up client and threads, without waiting for calls under way."""
        self._caller.close()

    async def _made(
        self, begin: Callable[..., Future[Answer]], *arguments: Any, repeat: bool = False, start: bool = False
    ) -> Answer:
        """Make a call until it is answered.

        :param repeat: whether to make it again where its answer was lost.
        :param start: whether it starts something, and is not to be made once halted.
        """
        failures = 0
        while True:
            sent_at = await self._turns.take()
            if start and self._halted:
                raise Halted("the task was killed, or the map is ended")
            if start:
                self._check()
                if self.frozen:
                    raise Frozen
            try:
                answer = await asyncio.wrap_future(begin(*arguments))
            except DescribeError as error:
                failures += error.fault is Fault.PASSING
                rest = self._rest(error, sent_at, failures, repeat=repeat)
            else:
                self._turns.pace.answered(_now())
                self._renewals = 0
                return answer
            await asyncio.sleep(rest)

    def _rest(self, error: DescribeError, sent_at: float, failures: int, *, repeat: bool) -> float:
        """Return the seconds to rest before a failed call is made again.

        :raises DescribeError: it is not to be made again.
        """
        match error.fault:
            case Fault.THROTTLED:
                self._turns.pace.throttled(_now(), sent_at)
                return 0.0
            case Fault.EXPIRED if self._renewals < RENEWALS:
                self._renewals += 1
                self._caller.renew()
                return pause(self._renewals)
            case Fault.PASSING if repeat:
                log.warning("A call got no answer and is made again in %.0f s: %s", pause(failures), error)
                return pause(failures)
        raise error


def _now() -> float:
    return asyncio.get_running_loop().time()
