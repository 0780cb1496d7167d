"""One watcher answers every wait of a service in this process, with one describe call for up to a hundred jobs.

The caller hands in ``describe``, a coroutine function that looks at a batch of ids, and gets for every wait a stream
of changes. The watcher knows neither AWS nor Airflow.

How it goes: each job that somebody waits for has an entry. An entry that is due is looked at, together with others
that are due or soon will be; then it comes due again at the next multiple of its interval, so that waits of one
interval keep step and share their calls. A new wait is looked at within a second, ahead of the others. Calls are
spaced by the rate limiter, which watchers may share, and run side by side, so a hanging one holds up nobody but the
jobs in it. When the budget is too small for the number of waits, every interval is stretched by the same factor.

Where events tell of changes (``wakeups``), the rounds go on at a slow pace, and a job that an event tells of is looked
at sooner, and for a while at its waits' own pace (``tempo``). The slow rounds catch what events have missed.

Refused calls (permissions, credentials, unknown scopes, rejected ids) are repeated too. A refused call is split until
the job that causes it stands alone; that one is described in calls of its own from then on. If everything is refused,
nothing is split: most likely a policy is being replaced. Calls for single jobs then show, one a second, when that is
over. Only jobs whose calls have been refused for the whole grace period, without an answer in between, fail.

Invariants:

- A wait is told only what a call answered, and nothing twice in a row; no event tells it anything.
- A wait fails only for its own job, and never because of a single response. Throttling, transient faults and hanging
  calls never fail it; refusals and unknown jobs do so only after their grace periods.
- While other jobs are answered, refusals fail a wait only if a call for its job alone was refused.
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
import random
from collections.abc import Awaitable, Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.intervals import PollIntervals
from airflow_jobflow.polling.schedule import PollSchedule, next_poll
from airflow_jobflow.polling.subscription import Answer, PolledJob, Subscription

log = logging.getLogger(__name__)

REFUSED_ALONE = 8
"""How many calls for a single job are refused in a row before refusals are taken to concern all jobs."""

MIN_REFUSALS = 3
"""How often a call for a job must be refused before its waits fail, unless the grace period is 0."""

MAX_PAUSE = 30.0
"""The longest pause in seconds before a failed call is repeated."""

PROBE_INTERVAL = 1.0
"""The least seconds between two calls for a single job while everything is refused."""

REFUSED_GRACE = 60.0
"""The longest grace period in seconds for requests that AWS rejects, and for scopes that it does not know."""

CONCERNS_ALL = (Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND)
"""Faults that no single job in a call can be the cause of."""

Describe = Callable[[Sequence[str]], Awaitable[Mapping[str, Answer | None]]]
"""Describes jobs by id. Returns answers by id, unknown ids left out; None for one of several that must be described
alone. Raises CallError."""


class Limiter(Protocol):
    """What limits the rate of describe calls; see ``aws.rate_limit``."""

    @property
    def budget(self) -> float:
        """Calls a second that are allowed at most."""

    @property
    def rate(self) -> float:
        """Calls a second that are allowed now."""

    async def acquire(self) -> float:
        """Wait for the next turn."""


@dataclass(slots=True)
class Refusal:
    """The refused describe calls for a job since the last answer.

    :param since: when the first was sent.
    :param last: when the last was sent.
    :param count: how many there were.
    :param seconds: for how long calls were refused; time in which calls failed in other ways does not count.
    :param interrupted: whether a call failed in another way since the last refusal.
    :param alone: whether a call for this job alone was refused.
    """

    since: float
    last: float
    count: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    alone: bool = False

    def add(self, sent_at: float, *, alone: bool) -> None:
        """Count a refused call.

        :param alone: whether it was for this job alone.
        """
        self.count += 1
        self.seconds += 0.0 if self.interrupted else max(0.0, sent_at - self.last)
        self.last = max(self.last, sent_at)
        self.interrupted = False
        self.alone = self.alone or alone


class Watcher(Generic[Answer]):
    """Watches jobs of one service for any number of waits. Belongs to the event loop it is first joined on.

    :param describe: describes a batch of ids.
    :param limiter: limits the rate of describe calls; watchers may share it.
    :param missing_grace: seconds for which a job may be unknown before its waits fail with ``NotFound``. Default 300.
    :param denied_grace: seconds for which describe calls may be refused for lack of permission or credentials before
        waits fail with ``Refused``; other refusals have a minute, or this if it is less. 0 for at once. Default 300.
    :param request_timeout: seconds after which a call that hangs is given up; None if ``describe`` does that itself.
    :param batch_size: the most ids in one call. Default 100.
    :param jitter: chooses the pause before a failed call is repeated, given its upper bound in seconds.
    :param close: called when the last wait has left.
    """

    def __init__(
        self,
        describe: Describe[Answer],
        limiter: Limiter,
        *,
        missing_grace: float = 300.0,
        denied_grace: float = 300.0,
        request_timeout: float | None = None,
        batch_size: int = 100,
        jitter: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311 -- no secret
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._describe = describe
        self._missing_grace = missing_grace
        self._request_timeout = request_timeout
        self._batch_size = batch_size
        self._denied_grace = denied_grace
        self._jitter = jitter
        self._close = close
        self._limiter = limiter
        self._entries: dict[str, PolledJob[Answer]] = {}
        self.waits = 0
        """How many waits it answers; one for several jobs counts for each."""
        self._tempo: PollIntervals[Answer] = PollIntervals()
        self._orders = itertools.count()
        self._agenda: PollSchedule[Answer] = PollSchedule(batch_size)
        self._is_over = False
        self._failures = 0
        """How many calls in a row have failed for a transient fault."""
        self._refusals: dict[PolledJob[Answer], Refusal] = {}
        self._refused_alone = 0
        """How many calls for a single job were refused since the last answer."""
        self._answered_at = self._probe_due = float("-inf")
        """When the last answer came, and when the newest probe is due."""
        self._warned = False
        """Whether the log says that calls are refused."""
        self._work = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._leave = self.leave
        """One bound method for all waits."""

    def join(self, job_ids: Iterable[str], interval: float) -> Subscription[Answer]:
        """Wait for jobs, until the ``with`` block of the wait is left.

        :param job_ids: the jobs' ids.
        :param interval: seconds between two looks at one job; above 0. A look that shares a call may come up to
            a tenth of it early; all come later when the budget is too small for the number of waits.
        """
        if not interval > 0:
            raise ValueError(f"an interval must be above 0, not {interval}")
        if self._runner is not None and self._runner.done():
            raise RuntimeError("the watcher has ended")
        wait: Subscription[Answer] = Subscription(tuple(dict.fromkeys(job_ids)), interval, self._leave)
        for job_id in wait.job_ids:
            self._add(job_id, wait)
        return wait

    def leave(self, job_id: str, wait: Subscription[Answer]) -> None:
        """Stop waiting for one job of a wait, such as one that has ended; the others are waited for as before."""
        entry = self._entries.get(job_id)
        if entry is None or wait not in entry.waits:
            return
        entry.waits.remove(wait)
        self.waits -= 1
        self._tempo.recompute(entry)
        if not entry.waits:
            self._forget(entry)
            if not self._entries and self._runner:
                self._runner.cancel()  # it may be waiting for its turn

    def set_interval(self, wait: Subscription[Answer], interval: float) -> None:
        """Change how often the jobs of a wait are described.

        :param wait: a wait of this watcher.
        :param interval: seconds between two describe calls for one job, as for ``join``.
        """
        wait.interval = interval
        now = _now()
        for job_id in wait.job_ids:
            entry = self._entries.get(job_id)
            if entry is not None and wait in entry.waits:
                self._tempo.recompute(entry)
                self._agenda.reschedule(entry, now, at_once=False)
        self._work.set()

    def interval_for(self, share: float) -> float:
        """Return the interval at which describing all jobs takes a share of the budget.

        :param share: of the budget, above 0.
        """
        return len(self._entries) / (share * self._limiter.budget * self._batch_size)

    @property
    def job_ids(self) -> KeysView[str]:
        """The ids of the jobs that somebody waits for."""
        return self._entries.keys()

    @property
    def calls_per_second(self) -> float:
        """The pace of calls that it allows itself now."""
        return self._limiter.rate

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

    def _call_for(self, entry: PolledJob[Answer], *, at_once: bool) -> None:
        now = _now()
        self._tempo.speed_up(entry, now)
        self._agenda.reschedule(entry, now, at_once=at_once)
        self._work.set()

    @property
    def ended(self) -> bool:
        """Whether the watcher has run and is over; it can then not be joined again."""
        return self._runner is not None and (self._runner.done() or not self._entries)

    def _add(self, job_id: str, wait: Subscription[Answer]) -> None:
        entry = self._entries.get(job_id)
        if entry is None:
            entry = self._entries[job_id] = PolledJob(job_id, next(self._orders))
        entry.waits.append(wait)
        self.waits += 1
        now = _now()
        self._tempo.speed_up(entry, now)
        if self._agenda.add(entry, now):
            self._work.set()
        if self._runner is None:
            # A context of its own: otherwise its log lines would land in the log of the task that came first.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._runner.add_done_callback(self._over)

    def _forget(self, entry: PolledJob[Answer]) -> None:
        del self._entries[entry.job_id]
        self._refusals.pop(entry, None)
        entry.forgotten = True

    async def _run(self) -> None:
        while self._entries:
            rest = self._agenda.due_in(_now())
            if rest > 0:
                await self._idle(rest)
                continue
            await self._limiter.acquire()
            now = _now()
            if batch := self._agenda.take(now):
                call = asyncio.create_task(self._look(batch, now))
                self._calls.add(call)
                call.add_done_callback(self._call_over)

    def _over(self, runner: asyncio.Task[None]) -> None:
        """Tell every wait, whatever ended the runner. A callback: a runner cancelled at once runs no ``finally``."""
        if not runner.cancelled() and (error := runner.exception()) is not None:
            log.error("The watcher has died; each of its waits ends with an error", exc_info=error)
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

    async def _look(self, batch: list[PolledJob[Answer]], sent_at: float) -> None:
        """Make one describe call and tell the waits what it answered."""
        try:
            try:
                async with asyncio.timeout(self._request_timeout):
                    answers = await self._describe([entry.job_id for entry in batch])
            except CallError as error:
                self._failed(batch, error, sent_at)
            except TimeoutError:
                message = f"no response within {self._request_timeout:g} s"
                self._failed(batch, CallError(Fault.TRANSIENT, message), sent_at)
            else:
                self._answered(batch, answers, sent_at)
        except Exception as error:
            # A response that describe cannot make sense of, or a bug in it: one of the jobs may be the cause.
            if not self._warned:
                log.exception("Unexpected error while describing %d jobs", len(batch))
            self._refused(batch, CallError(Fault.REJECTED, f"unexpected error: {error!r}"), sent_at)
        except asyncio.CancelledError:
            if self._is_over:
                raise
            # Nobody else cancels this task: what describe waits for was cancelled.
            self._failed(batch, CallError(Fault.TRANSIENT, "the call was cancelled"), sent_at)
        finally:
            self._work.set()

    def _answered(self, batch: list[PolledJob[Answer]], answers: Mapping[str, Answer | None], sent_at: float) -> None:
        now = _now()
        described = {entry.job_id: answers[entry.job_id] for entry in batch if entry.job_id in answers}
        had_failed = self._failures > 0
        self._failures = self._refused_alone = 0
        self._answered_at = now
        stretch = self._tempo.describes_per_second / (self._limiter.budget * self._batch_size)
        for entry in batch:
            if entry.forgotten:
                continue
            self._refusals.pop(entry, None)
            entry.alone = False
            answer = described.get(entry.job_id)
            if answer is None and entry.job_id in described and len(batch) > 1:
                self._agenda.alone(entry, sent_at)
                continue
            if answer is not None:
                self._tempo.answered(entry, sent_at)
            due = next_poll(entry, sent_at, stretch)
            if sent_at < entry.known_of:
                pass  # a call that was sent later has answered sooner
            elif answer is not None:
                entry.missing_since = None
                for wait in entry.waits:
                    wait.tell(entry.job_id, answer)
            else:
                entry.missing_since = now if entry.missing_since is None else entry.missing_since
                if now - entry.missing_since >= self._missing_grace:
                    self._fail([entry], NotFound(entry.job_id, now - entry.missing_since))
                due = min(due, entry.missing_since + self._missing_grace)
            entry.known_of = max(entry.known_of, sent_at)
            self._agenda.put_back(entry, due, sent_at)
        is_over = self._warned and not self._refusals  # one job may be refused while all others are answered
        if had_failed or is_over:
            log.info("Describe calls recovered")
        self._warned = self._warned and not is_over

    def _failed(self, batch: list[PolledJob[Answer]], error: CallError, sent_at: float) -> None:
        """Repeat a call that failed, sooner or later."""
        if error.fault not in (Fault.THROTTLED, Fault.TRANSIENT):
            self._refused(batch, error, sent_at)
            return
        for entry in batch:
            if refusal := self._refusals.get(entry):
                refusal.interrupted = True
        failures = 0  # after throttling, the rate limiter holds back the next call
        if error.fault is Fault.TRANSIENT:
            if not self._failures:
                log.warning("A describe call failed and will be repeated: %s", error)
            self._failures += 1
            failures = self._failures
        self._repeat(batch, failures, sent_at)

    def _refused(self, batch: list[PolledJob[Answer]], error: CallError, sent_at: float) -> None:
        """Repeat a call that was refused, in parts if one of its jobs may be the cause."""
        is_alone = len(batch) == 1
        one_may_be_the_cause = error.fault not in CONCERNS_ALL
        if one_may_be_the_cause and not is_alone and self._refused_alone < REFUSED_ALONE:
            self._agenda.split(batch)
            return
        if one_may_be_the_cause and is_alone:
            batch[0].alone = self._refused_alone < REFUSED_ALONE
            self._refused_alone += 1
        if not self._warned:
            self._warned = True
            log.warning("Describe calls fail and will be repeated for up to %g s: %s", self._grace(error.fault), error)
        most = 0
        for entry in batch:
            if not entry.forgotten:
                most = max(most, self._note_refusal(entry, error, sent_at, alone=is_alone))
        if one_may_be_the_cause and self._refused_alone >= REFUSED_ALONE:
            self._probe(batch)
        self._repeat(batch, most, sent_at)

    def _probe(self, batch: list[PolledJob[Answer]]) -> None:
        """Plan a call for a single job, because everything is refused so far as is known: it may show otherwise."""
        now = _now()
        if now < self._probe_due:
            return
        untried = [entry for entry, refusal in self._refusals.items() if not refusal.alone]
        if untried or len(batch) > 1:
            self._probe_due = max(now, self._probe_due + PROBE_INTERVAL)
            self._agenda.isolate(random.choice(untried or batch), self._probe_due)  # noqa: S311 -- no secret

    def _note_refusal(self, entry: PolledJob[Answer], error: CallError, sent_at: float, *, alone: bool) -> int:
        """Count a refused call for a job, and fail its waits after the grace period; return the count."""
        refusal = self._refusals.setdefault(entry, Refusal(sent_at, sent_at))
        refusal.add(sent_at, alone=alone)
        grace = self._grace(error.fault)
        is_over = refusal.seconds >= grace and refusal.count >= (MIN_REFUSALS if grace else 1)
        all_are_refused = error.fault in CONCERNS_ALL or self._answered_at < refusal.since
        if is_over and (refusal.alone or all_are_refused):
            self._fail([entry], DescribeRejected(entry.job_id, refusal.seconds, refusal.count, error))
        return refusal.count

    def _grace(self, fault: Fault) -> float:
        """Return the seconds for which calls may be refused."""
        may_be_granted = fault in (Fault.DENIED, Fault.CREDENTIALS)
        return self._denied_grace if may_be_granted else min(self._denied_grace, REFUSED_GRACE)

    def _repeat(self, batch: list[PolledJob[Answer]], failures: int, sent_at: float) -> None:
        """Describe jobs again after a pause that grows with the failures, but not beyond their waits' intervals."""
        now = _now()
        bound = min(MAX_PAUSE, 2.0 ** min(failures - 1, 10)) if failures else 0.0
        pause = self._jitter(bound)
        for entry in batch:
            interval = min((wait.interval for wait in entry.waits), default=0.0)
            self._agenda.put_back(entry, now + min(pause, max(interval, 1.0)), sent_at)

    def _fail(self, batch: Iterable[PolledJob[Answer]], error: WatchError) -> None:
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
