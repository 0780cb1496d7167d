"""A scripted clock and a scripted service, which the watcher's tests use instead of a wall clock and AWS.

The clock is an event loop whose time jumps to the next timer as soon as nothing else is left to do. So time between two
steps is exact and costs nothing, and a wait that would never end raises an error at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import selectors
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.polling.watcher import Watcher

Received = str | WatchError


class Stuck(Exception):
    """All tasks wait and no timer is set: on a wall clock this would hang forever."""


class ScriptedLoop(asyncio.SelectorEventLoop):
    """An event loop on which time passes only by jumping to the next timer."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the scripted time."""
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    """Advances the time of its loop instead of blocking."""

    def __init__(self, loop: ScriptedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return no file descriptors; if nothing else is left to do, jump to the next timer."""
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._loop.now += timeout
        return super().select(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on a scripted clock. Fails if a task is left behind, or an error was not retrieved."""
    loop = ScriptedLoop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    try:
        loop.run_until_complete(scenario)
        loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(loop)
    finally:
        loop.run_until_complete(_cancel_all())
        loop.close()
    assert not left, f"left behind: {left}"
    assert not unseen, f"nobody has seen: {unseen}"


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def now() -> float:
    """Return the scripted time."""
    return asyncio.get_running_loop().time()


async def until(when: float) -> None:
    """Let time pass until a moment, and run everything that is due at that moment."""
    await asyncio.sleep(max(0.0, when - now()))
    await settle()


async def settle() -> None:
    """Run everything that takes no time."""
    for _ in range(20):
        await asyncio.sleep(0)


class Misbehaviour(Enum):
    """Ways in which a call may violate its interface."""

    HANG = "hang"
    """Never return; the caller of ``describe`` gives up after ``request_timeout``."""
    CRASH = "crash"
    """Raise an error that is not a CallError."""
    CANCELLED = "cancelled"
    """End as cancelled, like a call in a thread pool that is shut down."""
    NONSENSE = "nonsense"
    """Return something other than a mapping."""


@dataclass
class Call:
    """A describe call that the service received."""

    at: float
    ids: tuple[str, ...]
    ended_at: float = math.inf
    answers: Mapping[str, str | None] | None = None
    given_up: bool = False


@dataclass
class Service:
    """A service with scripted states of jobs and scripted faults.

    The response to a call is determined when the call arrives, and returned after the latency.
    """

    states: dict[str, str] = field(default_factory=dict)
    """The jobs that exist."""
    bad: set[str] = field(default_factory=set)
    """Ids for which the whole call fails, with ``fault``."""
    fault: Fault = Fault.REJECTED
    unlisted: set[str] = field(default_factory=set)
    """Ids that a call for several jobs does not find: they must be described alone."""
    hanging: set[str] = field(default_factory=set)
    """Ids for which the whole call hangs."""
    plan: deque[Fault | Misbehaviour] = field(default_factory=deque)
    """The results of the next calls, one each; later calls succeed."""
    latency: float = 0.0
    request_timeout: float | None = None
    """Seconds after which a call without a response fails, like calls to AWS."""
    down: Fault | None = None
    """The fault of every call without a planned result."""
    calls: list[Call] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    limiter: RateLimiter = field(init=False)
    """The limiter of the newest watcher; ``describe`` reports to it, as real calls do."""

    def watcher(
        self, calls_per_second: float = 5.0, *, limiter: RateLimiter | None = None, **settings: Any
    ) -> Watcher[str]:
        """Return a watcher of this service. Its pauses have maximum length."""
        self.limiter = limiter or RateLimiter(calls_per_second, clock=asyncio.get_running_loop().time)
        settings = {"jitter": lambda longest: longest, "close": self.close, **settings}
        return Watcher(self.describe, self.limiter, **settings)

    def times(self, job_id: str | None = None) -> list[float]:
        """Return the times of the calls; if a job is given, of those that described it."""
        return [round(call.at, 6) for call in self.calls if job_id is None or job_id in call.ids]

    def sizes(self) -> list[int]:
        """Return the number of jobs in each call."""
        return [len(call.ids) for call in self.calls]

    def close(self) -> None:
        """Record that the client was closed."""
        self.closed.append(now())

    def _answers(self, job_ids: Sequence[str]) -> dict[str, str | None]:
        alone = len(job_ids) == 1
        known = {job_id: self.states[job_id] for job_id in job_ids if job_id in self.states}
        return {**known, **{job_id: None for job_id in job_ids if job_id in self.unlisted and not alone}}

    def _planned(self, job_ids: Sequence[str]) -> Fault | Misbehaviour | None:
        if self.plan:
            return self.plan.popleft()
        if not self.hanging.isdisjoint(job_ids):
            return Misbehaviour.HANG
        return self.down or (None if self.bad.isdisjoint(job_ids) else self.fault)

    async def describe(self, job_ids: Sequence[str]) -> Mapping[str, str | None]:
        """Respond to a call, or fail, as scripted."""
        call = Call(now(), tuple(job_ids))
        self.calls.append(call)
        planned = self._planned(job_ids)
        answers = self._answers(job_ids)
        try:
            async with asyncio.timeout(self.request_timeout):
                if planned is Misbehaviour.HANG:
                    await asyncio.get_running_loop().create_future()
                await asyncio.sleep(self.latency)
        except TimeoutError:
            raise CallError(Fault.TRANSIENT, "scripted: no response") from None
        except asyncio.CancelledError:
            call.given_up = True
            raise
        finally:
            call.ended_at = now()
        match planned:
            case Fault():
                if planned is Fault.THROTTLED:
                    self.limiter.throttled(call.at)
                raise CallError(planned, f"scripted: {planned.value}")
            case Misbehaviour.CRASH:
                raise RuntimeError("scripted: a bug")
            case Misbehaviour.CANCELLED:
                raise asyncio.CancelledError
            case Misbehaviour.NONSENSE:
                return None  # type: ignore[return-value]  # on purpose
        self.limiter.succeeded()
        call.answers = answers
        return answers


class Waiter:
    """A task that waits for jobs and records the received states."""

    def __init__(self, watcher: Watcher[str], job_ids: str | Iterable[str], interval: float) -> None:
        self.job_ids = [job_ids] if isinstance(job_ids, str) else list(job_ids)
        self.interval = interval
        self.subscribed_at = now()
        self.cancelled_at = math.inf
        self.received: list[tuple[float, str, Received]] = []
        self._task = asyncio.create_task(self._wait(watcher))

    async def _wait(self, watcher: Watcher[str]) -> None:
        with watcher.subscribe(self.job_ids, self.interval) as wait:
            async for job_id, news in wait:
                self.received.append((now(), job_id, news))

    def seen(self, job_id: str | None = None) -> list[Received]:
        """Return what was received; if a job is given, for that job."""
        return [news for _, about, news in self.received if job_id in (None, about)]

    @property
    def error(self) -> WatchError:
        """The last received item, which must be an error."""
        news = self.received[-1][2]
        assert isinstance(news, WatchError), f"no error but {news!r}"
        return news

    def cancel(self) -> None:
        """Cancel the wait."""
        self.cancelled_at = min(self.cancelled_at, now())
        self._task.cancel()


async def cancel_waits(waiters: Iterable[Waiter]) -> None:
    """Cancel waits, and run what follows."""
    for waiter in waiters:
        waiter.cancel()
    await settle()


def jobs(count: int) -> list[str]:
    """Return the ids of some jobs."""
    return [f"job-{number}" for number in range(count)]


def running(service: Service, count: int) -> list[str]:
    """Let jobs run in the service, and return their ids."""
    service.states |= dict.fromkeys(jobs(count), "RUNNING")
    return jobs(count)


def gaps(times: Sequence[float]) -> Iterator[float]:
    """Return the times between consecutive values."""
    return (later - earlier for earlier, later in itertools.pairwise(times))
