"""One watcher answers every wait of a service in this process, with one describe call for up to a hundred jobs.

The caller hands in ``describe``, a coroutine function that looks at a batch of ids, and gets for every wait a stream
of changes. The watcher knows neither AWS nor Airflow.

How it goes: each job that somebody waits for has an entry. An entry that is due is looked at, together with others
that are due or soon will be; then it comes due again at the next multiple of its interval, so that waits of one
interval keep step and share their calls. A new wait is looked at within a second, ahead of the others. Calls are
spaced by the budget and run side by side, so a hanging one holds up nobody but the jobs in it. When the budget is too
small for the number of waits, every interval is stretched by the same factor.

Where events tell of changes (``wakeups``), the rounds go on at a slow pace, and a job that an event tells of is looked
at sooner, and for a while at its waits' own pace (``tempo``). The slow rounds catch what events have missed.

What always holds:

- A wait is told only what a call answered, and nothing twice in a row; no event tells it anything.
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
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, KeysView, Mapping, Sequence
from typing import Generic

from airflow_jobflow.watch.agenda import Agenda, next_look
from airflow_jobflow.watch.errors import DescribeError, Fault, Vanished, WatchError
from airflow_jobflow.watch.pacing import Pace, pause
from airflow_jobflow.watch.tempo import Tempo
from airflow_jobflow.watch.waits import Answer, Entry, Wait

log = logging.getLogger(__name__)

RENEWALS = 8
"""How often in a row credentials are fetched anew, over about two minutes, before they count as gone for good."""

DENIALS = 8
"""How many jobs in a row may be denied, each alone, before all are taken to be."""

Describe = Callable[[Sequence[str]], Awaitable[Mapping[str, Answer | None]]]
"""Looks at jobs by id. Answers by id, unknown ids left out; None for one of several that must be asked for alone.
Raises DescribeError."""


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
        self._entries: dict[str, Entry[Answer]] = {}
        self.waits = 0
        """How many waits it answers; one for several jobs counts for each."""
        self._tempo: Tempo[Answer] = Tempo()
        self._orders = itertools.count()
        self._agenda: Agenda[Answer] = Agenda(batch_size)
        self._is_over = False
        self._renewed_at = float("-inf")
        self._renewals = 0
        self._denials = 0
        """How many jobs in a row have been denied alone."""
        self._failures = 0
        self._work = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._leave = self.leave
        """One bound method for all waits."""

    def join(self, job_ids: Iterable[str], interval: float) -> Wait[Answer]:
        """Wait for jobs, until the ``with`` block of the wait is left.

        :param job_ids: the jobs' ids.
        :param interval: seconds between two looks at one job; above 0. A look that shares a call may come up to
            a tenth of it early; all come later when the budget is too small for the number of waits.
        """
        if not interval > 0:
            raise ValueError(f"an interval must be above 0, not {interval}")
        if self._runner is not None and self._runner.done():
            raise RuntimeError("the watcher has ended")
        wait: Wait[Answer] = Wait(tuple(dict.fromkeys(job_ids)), interval, self._leave)
        for job_id in wait.job_ids:
            self._add(job_id, wait)
        return wait

    def leave(self, job_id: str, wait: Wait[Answer]) -> None:
        """Stop waiting for one job of a wait, such as one that has ended; the others are waited for as before."""
        entry = self._entries.get(job_id)
        if entry is None or wait not in entry.waits:
            return
        entry.waits.remove(wait)
        self.waits -= 1
        self._tempo.reckon(entry)
        if not entry.waits:
            self._forget(entry)
            if not self._entries:
                self._work.set()

    @property
    def job_ids(self) -> KeysView[str]:
        """The ids of the jobs that somebody waits for."""
        return self._entries.keys()

    @property
    def calls_per_second(self) -> float:
        """The pace of calls that it allows itself now."""
        return self._pace.rate

    def wake(self, job_id: str, *, at_once: bool) -> None:
        """Look at a job because an event tells of it; its waits are told what the look sees.

        :param job_id: the job's id; one that nobody waits for is none.
        :param at_once: whether to look now, or when its waits' own interval has passed.
        """
        if entry := self._entries.get(job_id):
            self._call_for(entry, at_once=at_once)

    def sweep_every(self, seconds: float | None) -> None:
        """Set the pace of looks at jobs that no event tells of. All are looked at soon, for events may have been lost.

        :param seconds: the least time between two looks at one job; None for its waits' own.
        """
        if self._tempo.slowest != (seconds or 0.0):
            self._tempo.slowest = seconds or 0.0
            for entry in self._entries.values():
                self._call_for(entry, at_once=False)

    def _call_for(self, entry: Entry[Answer], *, at_once: bool) -> None:
        now = _now()
        self._tempo.quicken(entry, now)
        self._agenda.hasten(entry, now, at_once=at_once)
        self._work.set()

    @property
    def ended(self) -> bool:
        """Whether the watcher has run and is over; it can then not be joined again."""
        return self._runner is not None and (self._runner.done() or not self._entries)

    def _add(self, job_id: str, wait: Wait[Answer]) -> None:
        entry = self._entries.get(job_id)
        if entry is None:
            entry = self._entries[job_id] = Entry(job_id, next(self._orders))
        entry.waits.append(wait)
        self.waits += 1
        now = _now()
        self._tempo.quicken(entry, now)
        if self._agenda.add(entry, now):
            self._work.set()
        if self._runner is None:
            # A context of its own: otherwise its log lines would land in the log of the task that came first.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._runner.add_done_callback(self._over)

    def _forget(self, entry: Entry[Answer]) -> None:
        del self._entries[entry.job_id]
        entry.forgotten = True

    async def _run(self) -> None:
        while self._entries:
            now = _now()
            rest = max(self._pace.delay(now), self._agenda.wanted_in(now))
            if rest > 0:
                await self._idle(rest)
            elif batch := self._agenda.take(now):
                self._pace.spend(now)
                call = asyncio.create_task(self._look(batch, now))
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

    async def _idle(self, seconds: float) -> None:
        """Sleep for the given time, or until what is to be done has changed."""
        self._work.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._work.wait()

    async def _look(self, batch: list[Entry[Answer]], sent_at: float) -> None:
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
            # An answer that describe cannot make sense of, or a bug in it: one of the jobs may be to blame.
            log.exception("Looking at %d jobs raised what it should not", len(batch))
            self._blame(batch, WatchError(f"looking at the job raised {error!r}"))
        except asyncio.CancelledError:
            self._fail(batch, WatchError("the call was cancelled"))
            raise
        finally:
            self._work.set()

    def _answered(self, batch: list[Entry[Answer]], answers: Mapping[str, Answer | None], sent_at: float) -> None:
        now = _now()
        if self._failures:
            log.info("Describe calls are answered again")
            self._failures = self._renewals = 0
        self._denials = 0
        self._pace.answered(now)
        stretch = self._tempo.looks_per_second / (self._pace.budget * self._batch_size)
        for entry in batch:
            if entry.forgotten:
                continue
            answer = answers.get(entry.job_id)
            if answer is None and entry.job_id in answers and len(batch) > 1:
                self._agenda.alone(entry, sent_at)
                continue
            if answer is not None:
                self._tempo.answered(entry, sent_at)
            due = next_look(entry, sent_at, stretch)
            if sent_at < entry.known_of:
                pass  # a call that was sent later has answered sooner
            elif answer is not None:
                entry.missing_since = None
                for wait in entry.waits:
                    wait.tell(entry.job_id, answer)
            else:
                entry.missing_since = now if entry.missing_since is None else entry.missing_since
                if now - entry.missing_since >= self._missing_grace:
                    self._fail([entry], Vanished(entry.job_id, now - entry.missing_since))
                due = min(due, entry.missing_since + self._missing_grace)
            entry.known_of = max(entry.known_of, sent_at)
            self._agenda.put_back(entry, due, sent_at)

    def _failed(self, batch: list[Entry[Answer]], error: DescribeError, sent_at: float) -> None:
        if error.fault is Fault.REJECTED or (error.fault is Fault.DENIED and self._denials < DENIALS):
            # One job may be to blame: some permissions are given for each, and one that is missing denies all the call.
            self._denials += error.fault is Fault.DENIED and len(batch) == 1
            self._blame(batch, error)
            return
        now = _now()
        rest = 0.0
        match error.fault:
            case Fault.DENIED | Fault.NOWHERE:
                self._fail(batch, error)
            case Fault.THROTTLED:
                self._pace.throttled(now, sent_at)
            case Fault.EXPIRED if sent_at < self._renewed_at:
                pass  # made with the old credentials, which have been replaced since
            case Fault.EXPIRED if self._renewals >= RENEWALS:
                self._fail(batch, error)
            case Fault.EXPIRED | Fault.PASSING:
                if error.fault is Fault.EXPIRED:
                    self._renewed_at = now
                    self._renewals += 1
                    self._renew()
                if not self._failures:
                    log.warning("A describe call failed and will be made again: %s", error)
                self._failures += 1
                rest = pause(self._failures)
        for entry in batch:
            self._agenda.put_back(entry, now + rest, sent_at)

    def _blame(self, batch: list[Entry[Answer]], error: WatchError) -> None:
        """Find the job that is to blame for a call that failed: split the call until one stands alone."""
        if len(batch) > 1:
            self._agenda.split(batch)
        else:
            self._fail(batch, error)

    def _fail(self, batch: Iterable[Entry[Answer]], error: WatchError) -> None:
        """Tell every wait on these jobs that there will be no answer, and forget the jobs."""
        for entry in batch:
            if not entry.forgotten:
                self._forget(entry)
                self._tempo.drop(entry)
                self.waits -= len(entry.waits)
                for wait in entry.waits:
                    wait.fail(entry.job_id, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
