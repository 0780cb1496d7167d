"""One watcher answers every wait of a service in this process, with one describe call for up to a hundred jobs.

The caller hands in ``describe``, a coroutine function that looks at a batch of ids, and gets for every wait a stream
of changes. The watcher knows neither AWS nor Airflow.

How it goes: each job that somebody waits for has an entry. An entry that is due is looked at, together with others
that are due or soon will be; then it comes due again at the next multiple of its interval, so that waits of one
interval keep step and share their calls. A new wait is looked at within a second, ahead of the others. Calls are
spaced by the budget and run side by side, so a hanging one holds up nobody but the jobs in it. When the budget is too
small for the number of waits, every interval is stretched by the same factor.

What always holds:

- A wait is told only what a call answered, and nothing twice in a row.
- A wait fails only for its own job: throttling, passing faults and hanging calls lead to another look; a rejected
  call is split until the job that is to blame stands alone.
- A wait that leaves, for whatever reason, leaves nothing behind; when the last one leaves, the watcher ends and
  ``close`` is called.
- If the watcher itself dies, every wait is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Generic, TypeVar

from airflow_jobflow.watch.pacing import Pace, pause

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

GATHERING = 0.5
"""Seconds a new wait may stay for company before it is looked at; ended early by any call that goes out."""

SOON = 0.1
"""The part of its interval by which a look may come early, to go along with a call that is made anyway."""


class Fault(Enum):
    """What a describe call that gave no answer means for the jobs it asked about."""

    THROTTLED = "throttled"
    """Too many calls: slow down and ask again."""
    PASSING = "passing"
    """5xx, time-out, lost connection: ask again after a pause."""
    EXPIRED = "expired"
    """The credentials have run out: fetch them anew and ask again."""
    REJECTED = "rejected"
    """The call was refused as it stands: one of its ids is to blame."""
    DENIED = "denied"
    """This caller may not or cannot ask at all: every wait in the call fails."""


class WatchError(Exception):
    """Why a job cannot be watched any longer. Delivered to the waits on that job."""


class DescribeError(WatchError):
    """A describe call failed. Raised by ``describe``; delivered where no further look can mend it.

    :param fault: what it means for the jobs in the call.
    :param message: which call, on what, and why; for people.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(fault, message)
        self.fault = fault
        self.message = message

    def __str__(self) -> str:
        return self.message


class Vanished(WatchError):
    """The service has not known the job for longer than the grace."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(job_id, seconds)
        self.job_id = job_id
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.job_id} has been unknown to the service for {self.seconds:.0f} s"


Describe = Callable[[Sequence[str]], Awaitable[Mapping[str, Answer]]]
"""Looks at jobs by id. Answers by id, unknown ids left out. Raises DescribeError."""


class _Entry(Generic[Answer]):
    """A job that somebody waits for."""

    __slots__ = ("due", "interval", "job_id", "known_of", "looked_at", "missing_since", "order", "queued", "waits")

    def __init__(self, job_id: str, order: int) -> None:
        self.job_id = job_id
        self.order = order
        self.interval = float("inf")
        self.due: float | None = None
        """When it is to be looked at; tells its place in the heap from those it has left behind."""
        self.queued = False
        """Whether it stands in one of the watcher's queues; if not, a call is on its way."""
        self.missing_since: float | None = None
        self.looked_at = self.known_of = float("-inf")
        """When the newest call was sent, and the newest that was answered; calls about a job may overlap."""
        self.waits: list[Wait[Answer]] = []


class Wait(Generic[Answer]):
    """One waiter's view of its jobs: iterate for ``(job_id, answer)``, or ``(job_id, WatchError)``, at each change.

    An error is the last word on its job. The iteration itself never ends: leave it when you know enough.
    """

    __slots__ = ("_arrived", "_errors", "_last", "_news", "interval", "job_ids")

    def __init__(self, job_ids: tuple[str, ...], interval: float) -> None:
        self.job_ids = job_ids
        self.interval = interval
        self._arrived = asyncio.Event()
        self._last: dict[str, Answer] = {}
        """What was read last of each job."""
        self._news: dict[str, Answer] = {}
        self._errors: dict[str, WatchError] = {}

    def __aiter__(self) -> Wait[Answer]:
        return self

    async def __anext__(self) -> tuple[str, Answer | WatchError]:
        while not (self._news or self._errors):
            self._arrived.clear()
            await self._arrived.wait()
        if self._news:
            job_id, news = next(iter(self._news.items()))
            self._last[job_id] = self._news.pop(job_id)
            return job_id, news
        job_id = next(iter(self._errors))
        return job_id, self._errors.pop(job_id)

    def tell(self, job_id: str, news: Answer) -> None:
        """Take in what a call answered; the watcher's side of the wait."""
        if self._last.get(job_id) != news:
            self._news[job_id] = news
            self._arrived.set()
        else:
            self._news.pop(job_id, None)

    def fail(self, job_id: str, error: WatchError) -> None:
        """Take in the last word on a job; the watcher's side of the wait."""
        self._errors[job_id] = error
        self._arrived.set()


class Watcher(Generic[Answer]):
    """Watches jobs of one service for any number of waits. Belongs to the event loop it is first joined on.

    :param describe: looks at a batch of ids.
    :param calls_per_second: the budget of describe calls.
    :param missing_grace: seconds for which a job may be unknown before its waits are told ``Vanished``.
    :param request_timeout: seconds after which a call that hangs is given up.
    :param batch_size: the most ids in one call.
    :param renew: called when credentials have expired; the next call is to use fresh ones.
    :param close: called when the last wait has left.
    """

    def __init__(
        self,
        describe: Describe[Answer],
        *,
        calls_per_second: float = 5.0,
        missing_grace: float = 300.0,
        request_timeout: float = 20.0,
        batch_size: int = 100,
        renew: Callable[[], object] = lambda: None,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._describe = describe
        self._missing_grace = missing_grace
        self._request_timeout = request_timeout
        self._batch_size = batch_size
        self._renew = renew
        self._close = close
        self._pace = Pace(calls_per_second)
        self._entries: dict[str, _Entry[Answer]] = {}
        self._looks_per_second = 0.0
        self._orders = itertools.count()
        self._new: deque[tuple[float, _Entry[Answer]]] = deque()
        self._due: list[tuple[float, int, _Entry[Answer]]] = []
        self._halves: deque[list[_Entry[Answer]]] = deque()
        self._half_was_last = False
        self._is_over = False
        self._renewed_at = float("-inf")
        self._failures = 0
        self._work = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def join(self, job_ids: Iterable[str], interval: float) -> Iterator[Wait[Answer]]:
        """Wait for jobs until the block is left.

        :param job_ids: the jobs' ids.
        :param interval: seconds between two looks at one job; above 0. A look that shares a call may come up to
            a tenth of it early; all come later when the budget is too small for the number of waits.
        """
        if not interval > 0:
            raise ValueError(f"an interval must be above 0, not {interval}")
        if self._runner is not None and self._runner.done():
            raise RuntimeError("the watcher has ended")
        wait: Wait[Answer] = Wait(tuple(dict.fromkeys(job_ids)), interval)
        for job_id in wait.job_ids:
            self._add(job_id, wait)
        try:
            yield wait
        finally:
            for job_id in wait.job_ids:
                self._remove(job_id, wait)

    @property
    def ended(self) -> bool:
        """Whether the watcher has run and is over; it can then not be joined again."""
        return self._runner is not None and (self._runner.done() or not self._entries)

    def _add(self, job_id: str, wait: Wait[Answer]) -> None:
        entry = self._entries.get(job_id)
        if entry is None:
            entry = self._entries[job_id] = _Entry(job_id, next(self._orders))
        self._looks_per_second -= 1 / entry.interval
        entry.waits.append(wait)
        entry.interval = min(entry.interval, wait.interval)
        self._looks_per_second += 1 / entry.interval
        entry.queued, entry.due = True, None
        self._new.append((_now() + GATHERING, entry))
        if self._runner is None:
            # A context of its own: otherwise its log lines would land in the log of the task that came first.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._runner.add_done_callback(self._over)
        self._work.set()

    def _remove(self, job_id: str, wait: Wait[Answer]) -> None:
        entry = self._entries.get(job_id)
        if entry is None or wait not in entry.waits:
            return
        entry.waits.remove(wait)
        self._looks_per_second -= 1 / entry.interval
        if entry.waits:
            entry.interval = min(w.interval for w in entry.waits)
            self._looks_per_second += 1 / entry.interval
        else:
            del self._entries[job_id]
            self._work.set()

    async def _run(self) -> None:
        while self._entries:
            rest = self._rest()
            if rest > 0:
                await self._idle(rest)
            elif batch := self._take():
                sent_at = _now()
                self._pace.spend(sent_at)
                for entry in batch:
                    entry.looked_at = sent_at
                call = asyncio.create_task(self._look(batch, sent_at))
                self._calls.add(call)
                call.add_done_callback(self._call_over)

    def _over(self, runner: asyncio.Task[None]) -> None:
        """Tell every wait, whatever ended the runner. A callback: a runner cancelled at once runs no ``finally``."""
        if not runner.cancelled() and (error := runner.exception()) is not None:
            log.error("The watcher has died; every wait is told", exc_info=error)
            last_word = WatchError(f"the watcher has died: {error!r}")
        else:
            last_word = WatchError("the watcher was stopped before the job ended")
        self._is_over = True
        self._fail(list(self._entries.values()), last_word)
        for call in self._calls:
            call.cancel()
        if not self._calls:
            self._close()

    def _call_over(self, call: asyncio.Task[None]) -> None:
        """Forget a call; the last one to end after the runner leaves the client to be closed."""
        self._calls.discard(call)
        if not self._calls and self._is_over:
            self._close()

    def _rest(self) -> float:
        """Seconds until there is a call to make and the budget allows it."""
        return max(self._pace.delay(_now()), 0.0 if self._halves else self._wanted_in())

    def _wanted_in(self) -> float:
        """Seconds until a new or a due entry is to be looked at."""
        first_new = self._new[0][0] if self._new else float("inf")
        first_due = self._due[0][0] if self._due else float("inf")
        return min(first_new, first_due) - _now()

    async def _idle(self, seconds: float) -> None:
        """Sleep for the given time, or until what is to be done has changed."""
        self._work.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._work.wait()

    def _take(self) -> list[_Entry[Answer]]:
        """Take a batch out of the queues: a half of a rejected call, or the new, the due and the soon due."""
        # In turns with the others, for a call of a hundred takes a while to take apart.
        self._half_was_last = bool(self._halves) and not (self._half_was_last and self._wanted_in() <= 0)
        if self._half_was_last:
            return [entry for entry in self._halves.popleft() if self._entries.get(entry.job_id) is entry]
        batch: list[_Entry[Answer]] = []
        while self._new and len(batch) < self._batch_size:
            _, entry = self._new.popleft()
            self._take_one(entry, None, batch)
        soonest = _now()
        while self._due and len(batch) < self._batch_size:
            due, _, entry = self._due[0]
            keeps_distance = entry.looked_at + (1 - SOON) * entry.interval
            if min(due, max(due - SOON * entry.interval, keeps_distance)) > soonest:
                break
            heapq.heappop(self._due)
            self._take_one(entry, due, batch)
        return batch

    def _take_one(self, entry: _Entry[Answer], due: float | None, batch: list[_Entry[Answer]]) -> None:
        """Take an entry, unless it was left, is being looked at, or was given another place since."""
        if entry.queued and entry.due == due and self._entries.get(entry.job_id) is entry:
            entry.queued = False
            batch.append(entry)

    def _put_back(self, entry: _Entry[Answer], due: float, sent_at: float) -> None:
        """Queue an entry for its next look, unless it was left, is queued as a new wait's, or in a newer call."""
        if not entry.queued and sent_at >= entry.looked_at and self._entries.get(entry.job_id) is entry:
            entry.queued, entry.due = True, due
            heapq.heappush(self._due, (due, entry.order, entry))

    def _next_look(self, entry: _Entry[Answer], sent_at: float) -> float:
        """In step with all waits of its interval; where the budget is too small, stretched like every other.

        A look within ``SOON`` before a step counts as that step's. After a late one the next keeps its distance; only
        a new wait's second look does not, to fall into step.
        """
        interval = entry.interval
        stretch = self._looks_per_second / (self._pace.budget * self._batch_size)
        if stretch > 1:
            return sent_at + interval * stretch
        step = ((sent_at + SOON * interval) // interval + 1) * interval
        return step if entry.due is None else max(step, sent_at + (1 - SOON) * interval)

    async def _look(self, batch: list[_Entry[Answer]], sent_at: float) -> None:
        """Make one describe call and tell the waits what it answered."""
        try:
            try:
                async with asyncio.timeout(self._request_timeout):
                    answers = await self._describe([entry.job_id for entry in batch])
            except DescribeError as error:
                self._failed(batch, error, sent_at)
            except TimeoutError:
                message = f"no answer within {self._request_timeout:g} s"
                self._failed(batch, DescribeError(Fault.PASSING, message), sent_at)
            else:
                self._answered(batch, answers, sent_at)
        except Exception as error:
            # A bug in describe or renew must not leave the waits without a word.
            log.exception("Looking at %d jobs raised what it should not", len(batch))
            self._fail(batch, WatchError(f"looking at the job raised {error!r}"))
        except asyncio.CancelledError:
            self._fail(batch, WatchError("the call was cancelled"))
            raise
        finally:
            self._work.set()

    def _answered(self, batch: list[_Entry[Answer]], answers: Mapping[str, Answer], sent_at: float) -> None:
        now = _now()
        if self._failures:
            log.info("Describe calls are answered again")
            self._failures = 0
        self._pace.answered(now)
        for entry in batch:
            if self._entries.get(entry.job_id) is not entry:
                continue
            next_look = self._next_look(entry, sent_at)
            if sent_at < entry.known_of:
                pass  # a call that was sent later has answered sooner
            elif entry.job_id in answers:
                entry.missing_since = None
                for wait in entry.waits:
                    wait.tell(entry.job_id, answers[entry.job_id])
            else:
                entry.missing_since = now if entry.missing_since is None else entry.missing_since
                if now - entry.missing_since >= self._missing_grace:
                    self._fail([entry], Vanished(entry.job_id, now - entry.missing_since))
                next_look = min(next_look, entry.missing_since + self._missing_grace)
            entry.known_of = max(entry.known_of, sent_at)
            self._put_back(entry, next_look, sent_at)

    def _failed(self, batch: list[_Entry[Answer]], error: DescribeError, sent_at: float) -> None:
        now = _now()
        rest = 0.0
        match error.fault:
            case Fault.DENIED:
                self._fail(batch, error)
            case Fault.REJECTED if len(batch) == 1:
                self._fail(batch, error)
            case Fault.REJECTED:
                half = len(batch) // 2
                self._halves.extend((batch[:half], batch[half:]))
                return
            case Fault.THROTTLED:
                self._pace.throttled(now, sent_at)
            case Fault.EXPIRED if sent_at < self._renewed_at:
                pass  # made with the old credentials, which have been replaced since
            case Fault.EXPIRED | Fault.PASSING:
                if error.fault is Fault.EXPIRED:
                    self._renewed_at = now
                    self._renew()
                if not self._failures:
                    log.warning("A describe call failed and will be made again: %s", error)
                self._failures += 1
                rest = pause(self._failures)
        for entry in batch:
            self._put_back(entry, now + rest, sent_at)

    def _fail(self, batch: Iterable[_Entry[Answer]], error: WatchError) -> None:
        """Tell every wait on these jobs that there will be no answer, and forget the jobs."""
        for entry in batch:
            if self._entries.get(entry.job_id) is entry:
                del self._entries[entry.job_id]
                self._looks_per_second -= 1 / entry.interval
                for wait in entry.waits:
                    wait.fail(entry.job_id, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
