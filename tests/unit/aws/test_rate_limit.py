"""The rate limiter: how often AWS is called, and in which order callers are served."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import signal
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobflow.aws.rate_limit import (
    FIRST_DELAY,
    MAX_DELAY,
    MIN_RATE,
    OVERDUE,
    RECOVERY,
    RateLimiter,
    _Ticket,
    backoff,
    full_jitter,
)
from tests.unit.polling.scripted import gaps, now, run, settle, until

ROUNDING = 2e-6


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def scripted(budget: float) -> RateLimiter:
    """Return a limiter on the scripted clock of the running event loop."""
    return RateLimiter(budget, clock=asyncio.get_running_loop().time)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on a scripted clock."""
    run(scenario)


async def call_at(limiter: RateLimiter, times: list[float]) -> None:
    """Make a call, and record its time."""
    times.append(await limiter.acquire())


# The rate


@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0, 2.5, 5.0, 50.0])
def test_calls_are_spaced_by_the_budget(budget: float) -> None:
    """Calls are spaced evenly; the first does not wait."""

    async def scenario() -> None:
        limiter, times = scripted(budget), list[float]()
        await asyncio.gather(*(call_at(limiter, times) for _ in range(20)))
        assert times == pytest.approx([number / budget for number in range(20)])

    play(scenario())


def test_quiet_time_is_not_saved_up() -> None:
    """An hour without calls allows no burst afterwards."""

    async def scenario() -> None:
        limiter, times = scripted(5.0), list[float]()
        await call_at(limiter, times)
        await until(3600)
        await asyncio.gather(*(call_at(limiter, times) for _ in range(3)))
        assert times == pytest.approx([0, 3600, 3600.2, 3600.4])

    play(scenario())


def test_late_timers_do_not_lower_the_rate() -> None:
    """Timers are some milliseconds late, which must not add up."""
    clock = Clock()
    limiter = RateLimiter(10.0, clock=clock)
    calls: list[float] = []
    for _ in range(100):
        calls.append(limiter.acquire_blocking() if not calls else _acquire_late(limiter, clock, 0.03))
    assert calls[-1] == pytest.approx(9.9, abs=0.05)


def _acquire_late(limiter: RateLimiter, clock: Clock, lateness: float) -> float:
    from airflow_jobflow.aws.rate_limit import _Ticket

    ticket = _Ticket(lambda: None, blocks=True)
    clock.now += limiter._rest(ticket) + lateness
    assert limiter._rest(ticket) == 0
    return clock.now


def test_throttling_halves_the_rate_and_delays_the_next_call() -> None:
    """The call after a throttled one waits for the interval of the halved rate."""

    async def scenario() -> None:
        limiter = scripted(4.0)
        sent_at = await limiter.acquire()
        await until(0.1)
        limiter.throttled(sent_at)
        assert limiter.rate == 2.0
        assert await limiter.acquire() == pytest.approx(0.6)

    play(scenario())


def test_throttling_also_delays_callers_that_already_wait() -> None:
    """Queued calls at the old rate would only be throttled again."""

    async def scenario() -> None:
        limiter, times = scripted(10.0), list[float]()
        calls = [asyncio.create_task(call_at(limiter, times)) for _ in range(10)]
        await until(0.35)
        limiter.throttled(0.3)
        await asyncio.wait(calls)
        assert min(gaps(times[4:])) >= 0.2 - ROUNDING

    play(scenario())


def test_calls_throttled_together_halve_the_rate_once() -> None:
    """Ten calls that were sent before the first throttling count as one."""
    clock = Clock()
    limiter = RateLimiter(8.0, clock=clock)
    clock.now = 1.0
    for sent_at in (0.9, 0.1, 0.5, 0.99):
        limiter.throttled(sent_at)
    assert limiter.rate == 4.0


def test_a_call_throttled_at_the_halved_rate_halves_it_again() -> None:
    """Continued throttling lowers the rate further, but never to zero."""
    clock = Clock()
    limiter = RateLimiter(8.0, clock=clock)
    for _ in range(100):
        sent_at, clock.now = clock.now, clock.now + 0.5
        limiter.throttled(sent_at)
    assert limiter.rate == MIN_RATE


def test_a_budget_below_the_slowest_rate_is_kept() -> None:
    """Throttling does not raise a budget that is below the minimum rate."""
    limiter = RateLimiter(MIN_RATE / 2, clock=Clock())
    limiter.throttled(0.0)
    assert limiter.rate == MIN_RATE / 2


def test_the_rate_recovers_within_a_minute_of_successes() -> None:
    """Each success raises the rate a little, from the minimum up to the budget."""
    clock = Clock()
    limiter = RateLimiter(5.0, clock=clock)
    for _ in range(10):
        sent_at, clock.now = clock.now, clock.now + 0.5
        limiter.throttled(sent_at)
    rates = []
    for _ in range(int(RECOVERY)):
        clock.now += 1
        limiter.succeeded()
        rates.append(limiter.rate)
    assert rates == sorted(rates)
    assert rates[0] < 0.2
    assert rates[len(rates) // 2] == pytest.approx(2.5, rel=0.1)
    assert rates[-1] == pytest.approx(5.0, rel=0.05)
    clock.now += 1000
    limiter.succeeded()
    assert limiter.rate == 5.0


def test_time_before_the_throttling_recovers_nothing() -> None:
    """Successes before the throttling do not speed up the recovery."""
    clock = Clock()
    limiter = RateLimiter(5.0, clock=clock)
    limiter.succeeded()
    clock.now = 3600.0
    limiter.throttled(3599.0)
    limiter.succeeded()
    assert limiter.rate == 2.5


events = st.lists(
    st.tuples(st.sampled_from(["call", "call", "call", "leave", "throttled", "answered"]), st.floats(0.0, 30.0)),
    min_size=1,
    max_size=60,
)


@settings(derandomize=True, print_blob=True, deadline=None, max_examples=200)
@given(budget=st.floats(0.05, 50.0), script=events)
def test_any_sequence_of_events_keeps_the_budget_and_serves_every_caller(
    budget: float, script: list[tuple[str, float]]
) -> None:
    """Callers are served in order, within the bounds of the rate."""

    async def scenario() -> None:
        limiter, calls = scripted(budget), list[tuple[int, float]]()
        waiting: list[asyncio.Task[None]] = []
        numbers = itertools.count()

        async def call(number: int) -> None:
            calls.append((number, await limiter.acquire()))

        for happening, seconds in script:
            await asyncio.sleep(seconds)
            match happening:
                case "throttled":
                    limiter.throttled(calls[-1][1] if calls else now())
                case "answered":
                    limiter.succeeded()
                case "leave":
                    if waiting:
                        waiting.pop(len(waiting) // 2).cancel()
                case _:
                    waiting.append(asyncio.create_task(call(next(numbers))))
            assert min(MIN_RATE, budget) <= limiter.rate <= budget
        await asyncio.wait({*waiting, asyncio.create_task(asyncio.sleep(0))})
        assert [number for number, _ in calls] == sorted(number for number, _ in calls)
        assert len(calls) >= len(waiting)
        assert all(gap >= 1 / budget - ROUNDING for gap in gaps([at for _, at in calls]))

    play(scenario())


# The queue


def test_three_hundred_callers_take_turns() -> None:
    """Each of three hundred callers gets its share, even if one calls more often than the others."""

    async def scenario() -> None:
        limiter, turns = scripted(5.0), dict[int, int]()

        async def scope(number: int) -> None:
            while True:
                await limiter.acquire()
                turns[number] = turns.get(number, 0) + 1

        scopes = [asyncio.create_task(scope(number)) for number in range(300)]
        await until(600)
        assert sum(turns.values()) == pytest.approx(5 * 600, abs=2)
        assert max(turns.values()) - min(turns.values()) <= 1
        for each in scopes:
            each.cancel()
        await settle()

    play(scenario())


def test_a_caller_that_is_cancelled_leaves_no_gap() -> None:
    """If 99 of 100 callers are cancelled, the last one does not wait for their turns."""

    async def scenario() -> None:
        limiter, times = scripted(1.0), list[float]()
        await limiter.acquire()
        before = [asyncio.create_task(limiter.acquire()) for _ in range(99)]
        last = asyncio.create_task(call_at(limiter, times))
        await until(0.5)
        for each in before:
            each.cancel()
        await last
        assert times == pytest.approx([1.0])

    play(scenario())


def test_a_cancelled_caller_keeps_the_message() -> None:
    """Airflow detects by the message that a trigger was killed."""

    async def scenario() -> None:
        limiter = scripted(0.1)
        await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await settle()
        waiting.cancel("killed")
        with pytest.raises(asyncio.CancelledError, match="killed"):
            await waiting

    play(scenario())


def test_callers_of_a_closed_event_loop_do_not_block_others() -> None:
    """``airflow dags test`` runs an event loop per trigger, which may end at any time."""
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(limiter.acquire()) for _ in range(3)]  # the first gets its turn, the others wait
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    clock.now = OVERDUE + 1.1
    assert limiter.acquire_blocking() == clock.now
    for each in waiting:
        each._log_destroy_pending = False  # type: ignore[attr-defined]  # it was closed on purpose
    del waiting, each
    gc.collect()


def test_the_callers_of_one_blocked_event_loop_are_skipped_together() -> None:
    """A signal handler may block the event loop of a map while it starts items; the stop calls come from another
    thread.
    """
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    is_waiting, is_over = threading.Event(), threading.Event()

    async def blocks() -> None:
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        is_waiting.set()
        is_over.wait()
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)

    thread = threading.Thread(target=asyncio.run, args=(blocks(),))
    thread.start()
    try:
        is_waiting.wait()
        clock.now = OVERDUE + 1.1
        assert limiter.acquire_blocking() == clock.now
    finally:
        is_over.set()
        thread.join()


def test_a_signal_handler_does_not_wait_for_its_own_thread() -> None:
    """Airflow calls ``on_kill`` in a signal handler while the task waits for a turn; waiting would deadlock."""
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    limiter.acquire_blocking()
    turns: list[float] = []

    def handler(*_: object) -> None:
        clock.now = 1.5  # it is the interrupted caller's turn, but it cannot take it
        turns.append(limiter.acquire_blocking())
        clock.now = 3.0

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        turns.append(limiter.acquire_blocking())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert turns == [1.5, 3.0]


def test_functions_in_progress_come_first() -> None:
    """Functions in progress hold the client's few threads; if they waited behind hundreds of scopes, no thread would be
    left.
    """
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    limiter.acquire_blocking()
    tickets = [_Ticket(lambda: None, blocks=goes_on, goes_on=goes_on) for goes_on in (False, True, False, True)]
    for number, ticket in enumerate(tickets):
        ticket.thread = number
        assert limiter._rest(ticket) > 0
    order = []
    while left := [number for number in range(4) if number not in order]:
        clock.now += 1.0
        order += [number for number in left if limiter._rest(tickets[number]) == 0]
    assert order == [1, 3, 0, 2]


def test_a_caller_that_an_exception_ends_leaves_the_queue() -> None:
    """A caller that is interrupted by an exception, such as Airflow's ``execution_timeout``, leaves the queue."""
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    limiter.acquire_blocking()

    class Alarm(BaseException):
        pass

    def handler(*_: object) -> None:
        raise Alarm

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Alarm):
            limiter.acquire_blocking()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not limiter._queue
    clock.now = 1.0
    assert limiter.acquire_blocking() == 1.0


def test_threads_and_loops_share_one_queue() -> None:
    """Calls of triggers and of threads share one budget."""
    limiter = RateLimiter(1000.0)
    times: list[float] = []

    def blocking() -> None:
        times.extend(limiter.acquire_blocking() for _ in range(40))

    async def awaiting() -> None:
        times.extend([await limiter.acquire() for _ in range(40)])

    threads = [threading.Thread(target=blocking) for _ in range(3)]
    threads += [threading.Thread(target=lambda: asyncio.run(awaiting())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 240
    assert max(times) - min(times) >= 0.239 - 0.001
    assert not limiter._queue


# Pauses


def test_pauses_double_from_the_first_to_the_longest() -> None:
    """Pauses double up to a maximum, so that a failing service is called rarely but never abandoned."""
    assert [backoff(failures) for failures in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff(1) == FIRST_DELAY
    assert backoff(100_000) == MAX_DELAY
    assert backoff(5, 10.0) == 10.0


def test_jitter_spreads_over_the_whole_pause() -> None:
    """Jitter spreads the retries of callers that failed together."""
    chosen = [full_jitter(10.0) for _ in range(1000)]
    assert 0 <= min(chosen) < 1
    assert 9 < max(chosen) <= 10
    assert math.isclose(sum(chosen) / 1000, 5, abs_tol=0.5)
