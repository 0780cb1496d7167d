"""A scripted clock and a scripted service: what the watcher's tests run on instead of a wall clock and AWS.

The clock is an event loop whose time jumps to the next timer as soon as nothing else is left to do. Time between two
steps of a story is therefore exact, costs nothing, and a wait that nothing would ever end is an error at once.
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

News = str | WatchError


class Stuck(Exception):
    """Everybody waits and no timer is set: on a wall clock this would hang for ever."""


class ScriptedLoop(asyncio.SelectorEventLoop):
    """An event loop on which time passes only by jumping to the next timer."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the scripted time."""
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    """Moves its loop's time on where others would block."""

    def __init__(self, loop: ScriptedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, which is nothing; if nothing else is left to do, jump."""
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._loop.now += timeout
        return super().select(0)


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a story on a scripted clock. Fails if it leaves a task behind, or an error that nobody has seen."""
    loop = ScriptedLoop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    try:
        loop.run_until_complete(story)
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
    """Let time pass until the given moment, and all that is to happen at that moment happen."""
    await asyncio.sleep(max(0.0, when - now()))
    await settle()


async def settle() -> None:
    """Let happen what needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)


class Surprise(Enum):
    """What a call may do that no call should."""

    HANG = "hang"
    """Never answer; the caller of ``describe`` gives up after ``request_timeout``."""
    CRASH = "crash"
    """Raise what is no CallError."""
    CANCELLED = "cancelled"
    """End as cancelled, as a call in a pool of threads does when the pool is shut down."""
    NONSENSE = "nonsense"
    """Answer what is no mapping."""


@dataclass
class Call:
    """A describe call as the service has seen it."""

    at: float
    ids: tuple[str, ...]
    ended_at: float = math.inf
    answers: Mapping[str, str | None] | None = None
    given_up: bool = False


@dataclass
class Service:
    """A service whose jobs are in the states, and whose calls fail in the ways, that a test says.

    A call's answer is fixed when the call arrives and given after the latency.
    """

    states: dict[str, str] = field(default_factory=dict)
    """The jobs the service knows."""
    bad: set[str] = field(default_factory=set)
    """Ids for which the whole call fails, with ``fault``."""
    fault: Fault = Fault.REJECTED
    deep: set[str] = field(default_factory=set)
    """Ids that a call for several does not reach: they must be asked for alone."""
    hanging: set[str] = field(default_factory=set)
    """Ids for which the whole call hangs."""
    plan: deque[Fault | Surprise] = field(default_factory=deque)
    """What the next calls come to, one each; after that they are answered."""
    latency: float = 0.0
    request_timeout: float | None = None
    """Seconds after which a call without an answer fails, as the calls to AWS do."""
    down: Fault | None = None
    """How every call fails that has no plan of its own."""
    calls: list[Call] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    limiter: RateLimiter = field(init=False)
    """The limiter of the newest watcher; ``describe`` reports to it, as the calls to AWS do."""

    def watcher(
        self, calls_per_second: float = 5.0, *, limiter: RateLimiter | None = None, **settings: Any
    ) -> Watcher[str]:
        """Make a watcher of this service. Its pauses are as long as they may be."""
        self.limiter = limiter or RateLimiter(calls_per_second, clock=asyncio.get_running_loop().time)
        settings = {"jitter": lambda longest: longest, "close": self.close, **settings}
        return Watcher(self.describe, self.limiter, **settings)

    def times(self, job_id: str | None = None) -> list[float]:
        """Return when calls were made; those that asked about the job, if one is given."""
        return [round(call.at, 6) for call in self.calls if job_id is None or job_id in call.ids]

    def sizes(self) -> list[int]:
        """Return how many jobs each call asked about."""
        return [len(call.ids) for call in self.calls]

    def close(self) -> None:
        """Note that the client was closed."""
        self.closed.append(now())

    def _answers(self, job_ids: Sequence[str]) -> dict[str, str | None]:
        alone = len(job_ids) == 1
        known = {job_id: self.states[job_id] for job_id in job_ids if job_id in self.states}
        return {**known, **{job_id: None for job_id in job_ids if job_id in self.deep and not alone}}

    def _planned(self, job_ids: Sequence[str]) -> Fault | Surprise | None:
        if self.plan:
            return self.plan.popleft()
        if not self.hanging.isdisjoint(job_ids):
            return Surprise.HANG
        return self.down or (None if self.bad.isdisjoint(job_ids) else self.fault)

    async def describe(self, job_ids: Sequence[str]) -> Mapping[str, str | None]:
        """Answer a call, or fail it, as the script says."""
        call = Call(now(), tuple(job_ids))
        self.calls.append(call)
        planned = self._planned(job_ids)
        answers = self._answers(job_ids)
        try:
            async with asyncio.timeout(self.request_timeout):
                if planned is Surprise.HANG:
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
            case Surprise.CRASH:
                raise RuntimeError("scripted: a bug")
            case Surprise.CANCELLED:
                raise asyncio.CancelledError
            case Surprise.NONSENSE:
                return None  # type: ignore[return-value]  # that is the nonsense
        self.limiter.succeeded()
        call.answers = answers
        return answers


class Waiter:
    """A task that waits for jobs and keeps what it hears."""

    def __init__(self, watcher: Watcher[str], job_ids: str | Iterable[str], interval: float) -> None:
        self.job_ids = [job_ids] if isinstance(job_ids, str) else list(job_ids)
        self.interval = interval
        self.joined_at = now()
        self.left_at = math.inf
        self.heard: list[tuple[float, str, News]] = []
        self._task = asyncio.create_task(self._wait(watcher))

    async def _wait(self, watcher: Watcher[str]) -> None:
        with watcher.subscribe(self.job_ids, self.interval) as wait:
            async for job_id, news in wait:
                self.heard.append((now(), job_id, news))

    def news(self, job_id: str | None = None) -> list[News]:
        """Return what was heard; of the job, if one is given."""
        return [news for _, about, news in self.heard if job_id in (None, about)]

    @property
    def error(self) -> WatchError:
        """The last thing that was heard, which is to be an error."""
        news = self.heard[-1][2]
        assert isinstance(news, WatchError), f"no error but {news!r}"
        return news

    def leave(self) -> None:
        """Cancel the wait."""
        self.left_at = min(self.left_at, now())
        self._task.cancel()


async def leave(waiters: Iterable[Waiter]) -> None:
    """Cancel waits, and let happen what follows."""
    for waiter in waiters:
        waiter.leave()
    await settle()


def gaps(times: Sequence[float]) -> Iterator[float]:
    """Return the times between one and the next."""
    return (later - earlier for earlier, later in itertools.pairwise(times))
