"""One watcher serves all waits of a service in this process, with one describe call for up to a hundred jobs.

A wait is a ``Subscription`` to one or more jobs, and a stream of their changes. The caller passes ``describe``, a
coroutine function that describes a batch of ids. The watcher knows neither AWS nor Airflow.

Each job with a wait is described when it is due, together with others that are due or soon will be. It is due again at
the next multiple of its interval, so that jobs of one interval share their calls. A new wait is served within a second,
before the others. Calls are spaced by the rate limiter, which watchers may share, and run side by side, so a hanging
call delays only the jobs in it. If the rate limit is too low for all jobs, every interval is stretched by the same
factor.

Where events report changes (``wakeups``), jobs are polled rarely, and a job that an event concerns is described sooner
(``schedule``). The rare polls find changes for which no event arrived.

Failed calls are repeated (``responses``), also refused ones (``refusals``): no permission, no credentials, no such
cluster or Glue job, rejected ids.

Invariants:

- A wait receives only what a call returned, and nothing twice in a row. Events only request calls.
- A wait fails only for its own job, and never because of a single response. Throttling, transient faults and hanging
  calls never fail it; refusals and unknown jobs do so only after their grace periods.
- While other jobs are answered, refusals fail a wait only if a call for its job alone was refused.
- A wait that unsubscribes, for whatever reason, leaves nothing behind. When the last one has unsubscribed, the watcher
  ends and ``close`` is called.
- If the watcher itself crashes, every wait fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, KeysView, Mapping, Sequence
from typing import Generic, Protocol

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.polling.responses import Responses
from airflow_jobflow.polling.schedule import PollSchedule
from airflow_jobflow.polling.subscription import Answer, PolledJob, Subscription

log = logging.getLogger(__name__)

Describe = Callable[[Sequence[str]], Awaitable[Mapping[str, Answer | None]]]
"""Describes jobs by id. Returns answers by id, without unknown ids. None for a job means that it must be described in a
call of its own. Raises CallError."""


class Limiter(Protocol):
    """What limits the rate of describe calls; see ``aws.rate_limit``."""

    @property
    def budget(self) -> float:
        """The most calls per second that are ever allowed."""

    @property
    def rate(self) -> float:
        """The calls per second that are allowed now."""

    async def acquire(self) -> float:
        """Wait for the next turn."""


class Watcher(Generic[Answer]):
    """Watches jobs of one service for any number of waits. Belongs to the event loop of its first subscription.

    :param describe: describes a batch of ids.
    :param limiter: limits the rate of describe calls; watchers may share it.
    :param missing_grace: seconds for which a job may be unknown before its waits fail with ``NotFound``. Default 300.
    :param denied_grace: seconds for which describe calls may be refused for lack of permission or credentials before
        waits fail with ``DescribeRejected``. For other refusals it is a minute, or this if it is less. 0: waits fail at
        once. Default 300.
    :param batch_size: the most ids in one call. Default 100.
    :param jitter: returns the pause in seconds before a failed call is repeated; its argument is the longest pause
        allowed. Default: a random one.
    :param close: called when the last wait has unsubscribed.
    """

    def __init__(
        self,
        describe: Describe[Answer],
        limiter: Limiter,
        *,
        missing_grace: float = 300.0,
        denied_grace: float = 300.0,
        batch_size: int = 100,
        jitter: Callable[[float], float] = lambda longest: random.uniform(0, longest),  # noqa: S311 -- no secret
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._describe = describe
        self._batch_size = batch_size
        self._close = close
        self._limiter = limiter
        self._jobs: dict[str, PolledJob[Answer]] = {}
        self.waits = 0
        """The number of waits. One for several jobs counts once for each job."""
        self._orders = itertools.count()
        self._schedule: PollSchedule[Answer] = PollSchedule(batch_size)
        self._responses: Responses[Answer] = Responses(
            self._schedule,
            missing_grace=missing_grace,
            denied_grace=denied_grace,
            stretch=lambda: self._schedule.describes_per_second / (limiter.budget * batch_size),
            jitter=jitter,
            fail=self._fail,
        )
        self._is_over = False
        self._changed = asyncio.Event()
        """Set when the schedule has changed."""
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._unsubscribe = self.unsubscribe
        """One bound method for all subscriptions, to save memory."""

    def subscribe(self, job_ids: Iterable[str], interval: float) -> Subscription[Answer]:
        """Subscribe to jobs, until the ``with`` block of the subscription is left.

        :param job_ids: the jobs' ids.
        :param interval: seconds between two describe calls for one job; above 0. A describe that shares a call may come
            up to a tenth of it early; all come later if the rate limit is too low for the number of jobs.
        :return: the subscription, for a ``with`` statement.
        :raises ValueError: the interval is not above 0.
        :raises RuntimeError: the watcher has ended.
        """
        if not interval > 0:
            raise ValueError(f"an interval must be above 0, not {interval}")
        if self._runner is not None and self._runner.done():
            raise RuntimeError("the watcher has ended")
        wait: Subscription[Answer] = Subscription(tuple(dict.fromkeys(job_ids)), interval, self._unsubscribe)
        for job_id in wait.job_ids:
            self._add(job_id, wait)
        return wait

    def unsubscribe(self, job_id: str, wait: Subscription[Answer]) -> None:
        """Stop waiting for one job of a subscription, such as one that has ended. Its other jobs are still watched.

        :param job_id: the job's id. Nothing happens if the subscription does not wait for it.
        :param wait: the subscription.
        """
        job = self._jobs.get(job_id)
        if job is None or wait not in job.waits:
            return
        job.waits.remove(wait)
        self.waits -= 1
        self._schedule.update_interval(job)
        if not job.waits:
            self._remove(job)
            if not self._jobs and self._runner:
                self._runner.cancel()  # it may be waiting for the rate limiter

    def set_interval(self, wait: Subscription[Answer], interval: float) -> None:
        """Change how often the jobs of a subscription are described.

        :param wait: a subscription of this watcher.
        :param interval: seconds between two describe calls for one job, as for ``subscribe``.
        """
        wait.interval = interval
        now = _now()
        for job_id in wait.job_ids:
            job = self._jobs.get(job_id)
            if job is not None and wait in job.waits:
                self._schedule.update_interval(job)
                self._schedule.reschedule(job, now, at_once=False)
        self._changed.set()

    def interval_for(self, share: float) -> float:
        """Return the interval in seconds at which describing all jobs uses the given share of the rate limit.

        :param share: the share, above 0; 1 is the whole rate limit.
        """
        return len(self._jobs) / (share * self._limiter.budget * self._batch_size)

    @property
    def job_ids(self) -> KeysView[str]:
        """The ids of the jobs with at least one wait."""
        return self._jobs.keys()

    @property
    def calls_per_second(self) -> float:
        """The calls per second that the rate limiter allows now."""
        return self._limiter.rate

    @property
    def ended(self) -> bool:
        """Whether the watcher has run and ended. It then accepts no subscriptions."""
        return self._runner is not None and (self._runner.done() or not self._jobs)

    def wake(self, job_id: str, *, at_once: bool) -> None:
        """Describe a job sooner, because an event concerns it. Its waits receive what the call returns.

        :param job_id: the job's id. Nothing happens if there is no wait for it.
        :param at_once: whether to describe it now, or when the interval of its waits is over.
        """
        if job := self._jobs.get(job_id):
            self._poll_sooner(job, at_once=at_once)

    def set_event_poll_interval(self, seconds: float | None) -> None:
        """Set how often jobs without events are described. All are described soon, because events may have been lost.

        :param seconds: the least time between two describe calls for one job; None for the interval of its waits.
        """
        if self._schedule.event_poll_interval != (seconds or 0.0):
            self._schedule.event_poll_interval = seconds or 0.0
            for job in self._jobs.values():
                self._poll_sooner(job, at_once=False)

    def _poll_sooner(self, job: PolledJob[Answer], *, at_once: bool) -> None:
        now = _now()
        self._schedule.speed_up(job, now)
        self._schedule.reschedule(job, now, at_once=at_once)
        self._changed.set()

    def _add(self, job_id: str, wait: Subscription[Answer]) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            job = self._jobs[job_id] = PolledJob(job_id, next(self._orders))
        job.waits.append(wait)
        self.waits += 1
        now = _now()
        self._schedule.speed_up(job, now)
        if self._schedule.add_new(job, now):
            self._changed.set()
        if self._runner is None:
            # In a context of its own: otherwise its lines would go to the log of the task that subscribed first.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._runner.add_done_callback(self._finish)

    def _remove(self, job: PolledJob[Answer]) -> None:
        del self._jobs[job.job_id]
        self._responses.forget(job)
        job.removed = True

    async def _run(self) -> None:
        while self._jobs:
            seconds = self._schedule.due_in(_now())
            if seconds > 0:
                await self._sleep(seconds)
                continue
            await self._limiter.acquire()
            now = _now()
            if batch := self._schedule.pop_batch(now):
                call = asyncio.create_task(self._call(batch, now))
                self._calls.add(call)
                call.add_done_callback(self._call_ended)

    async def _sleep(self, seconds: float) -> None:
        """Sleep for some seconds, or until the schedule has changed."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._changed.wait()

    def _finish(self, runner: asyncio.Task[None]) -> None:
        """Fail the waits that are left, whatever ended the runner.

        A callback, because a runner that is cancelled before it starts executes no ``finally``.
        """
        if not runner.cancelled() and (cause := runner.exception()) is not None:
            log.error("The watcher crashed; every task that waits for its jobs fails", exc_info=cause)
            error = WatchError(f"the watcher crashed: {cause!r}")
        else:
            error = WatchError("the watcher was stopped before the job ended")
        self._is_over = True
        self._fail(list(self._jobs.values()), error)
        for call in self._calls:
            call.cancel()
        if not self._calls:
            self._close()

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        """Forget a call. The last call that ends after the runner closes the watcher."""
        self._calls.discard(call)
        if not self._calls and self._is_over:
            self._close()

    async def _call(self, batch: list[PolledJob[Answer]], sent_at: float) -> None:
        """Make one describe call, and apply its response."""
        try:
            answers = await self._describe([job.job_id for job in batch])
            self._responses.answered(batch, answers, sent_at)
        except CallError as error:
            self._responses.failed(batch, error, sent_at)
        except Exception as error:  # noqa: BLE001 -- a response that describe cannot read, or a bug in it
            self._responses.crashed(batch, error, sent_at)
        except asyncio.CancelledError:
            if self._is_over:
                raise
            # Nobody cancelled this task, so something that describe awaits was cancelled.
            self._responses.failed(batch, CallError(Fault.TRANSIENT, "the call was cancelled"), sent_at)
        finally:
            self._changed.set()

    def _fail(self, jobs: Iterable[PolledJob[Answer]], error: WatchError) -> None:
        """Fail every wait for these jobs, and remove the jobs."""
        for job in jobs:
            if not job.removed:
                self._remove(job)
                self._schedule.remove(job)
                self.waits -= len(job.waits)
                for wait in job.waits:
                    wait.fail(job.job_id, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
