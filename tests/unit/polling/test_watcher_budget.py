"""How watchers keep the budget of calls, each promise in a scenario on a scripted clock.

By default, the budget is 5 calls per second, a new wait is served after half a second, and polls happen at multiples of
the interval.
"""

from __future__ import annotations

import asyncio

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import Fault
from tests.unit.polling.scripted import (
    Service,
    Waiter,
    cancel_waits,
    gaps,
    jobs,
    running,
    until,
)

# The budget.


async def test_the_budget_is_kept_with_too_many_waits(service: Service) -> None:
    """Ten thousand jobs at ten seconds would need 10 calls per second; 5 are made."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(120)
    assert min(gaps(service.times())) >= 0.2 - 1e-6
    assert len(service.calls) == pytest.approx(5 * 119.5, rel=0.02)
    await cancel_waits([waiter])


async def test_intervals_stretch_evenly_when_the_budget_is_too_small(service: Service) -> None:
    """With twice as many jobs as the budget allows, every job is described half as often."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(200)
    for job_id in jobs(10_000)[::333]:
        apart = list(gaps(service.times(job_id)[2:]))
        assert apart == pytest.approx([20.0] * len(apart), rel=0.15)
    await cancel_waits([waiter])


async def test_short_and_long_intervals_stretch_by_the_same_factor(service: Service) -> None:
    """A wait with twice the interval still has twice the interval."""
    ids = running(service, 600)
    watcher = service.watcher(calls_per_second=1, batch_size=10)
    short, long = Waiter(watcher, ids[:300], 10), Waiter(watcher, ids[300:], 20)
    await until(900)
    stretched = {10: 45.0, 20: 90.0}
    for interval, some in ((10, ids[:300:37]), (20, ids[300::37])):
        for job_id in some:
            seen = list(gaps([at for at in service.times(job_id) if at > 200]))
            assert sum(seen) / len(seen) == pytest.approx(stretched[interval], rel=0.15)
    await cancel_waits([short, long])


async def test_a_budget_that_suffices_stretches_nothing(service: Service) -> None:
    """Fifty calls in ten seconds are exactly the budget."""
    waiter = Waiter(service.watcher(), running(service, 5000), 10)
    await until(100)
    for job_id in jobs(5000)[::333]:
        apart = list(gaps(service.times(job_id)[1:]))
        assert apart == pytest.approx([10.0] * len(apart), rel=0.11)
    await cancel_waits([waiter])


async def test_two_polls_are_an_interval_apart_after_an_early_one(service: Service) -> None:
    """A job that was described a little early is not described again at its original time."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(18.9)
    second = Waiter(watcher, "job-1", 10)
    await until(45)
    assert service.times("job-0") == [0.5, 10, 19.4, 30, 40]
    await cancel_waits([first, second])


async def test_two_polls_are_an_interval_apart_after_many_waits_were_cancelled(service: Service) -> None:
    """A job whose calls were late is not described too early when the load has gone."""
    ids = running(service, 1000)
    watcher = service.watcher(calls_per_second=1)
    crowd, last = Waiter(watcher, ids[:900], 10), Waiter(watcher, ids[900:], 10)
    await until(35)
    await cancel_waits([crowd])
    await until(80)
    assert min(gaps(service.times("job-999")[2:])) >= 9.0
    await cancel_waits([last])


async def test_two_polls_are_an_interval_apart_when_it_grows(service: Service) -> None:
    """When the wait with the shorter interval is cancelled, the longer one counts from the last call."""
    running(service, 1)
    watcher = service.watcher()
    patient, impatient = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-0", 7)
    await until(43)
    await cancel_waits([impatient])
    await until(80)
    times = [at for at in service.times() if at >= 49]
    assert min(gaps(times)) >= 9.0
    await cancel_waits([patient])


async def test_two_polls_are_an_interval_apart_when_stretching_ends(service: Service) -> None:
    """Aligning a job again needs no extra call."""
    ids = running(service, 300)
    watcher = service.watcher(calls_per_second=0.5, batch_size=10)
    crowd, last = Waiter(watcher, ids[:250], 10), Waiter(watcher, ids[250:], 10)
    await until(140)
    await cancel_waits([crowd])
    await until(400)
    for job_id in ids[250::7]:
        assert min(gaps(service.times(job_id)[1:])) >= 9.0
    await cancel_waits([last])


# Many watchers, one budget.


async def test_three_hundred_scopes_share_one_budget() -> None:
    """Three hundred Glue jobs with a run each make no more calls per second than one, and each gets its turn."""
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    services = [Service({"run": "RUNNING"}) for _ in range(300)]
    waiters = [Waiter(each.watcher(limiter=limiter), "run", 10) for each in services]
    await until(63)
    assert all(waiter.seen() == ["RUNNING"] for waiter in waiters), "each was described within the first minute"
    await until(600)
    times = sorted(at for each in services for at in each.times())
    assert min(gaps(times)) >= 0.2 - 1e-6
    assert len(times) == pytest.approx(5 * 600, rel=0.01)
    assert all(50 <= gap <= 70 for each in services for gap in gaps(each.times())), "a round takes a minute"
    await cancel_waits(waiters)


async def test_a_scope_with_thousands_of_jobs_does_not_delay_others() -> None:
    """It has one queued call at a time, like every other scope."""
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    crowd, small = Service(), Service({"run": "RUNNING"})
    waiters = [Waiter(crowd.watcher(limiter=limiter), running(crowd, 10_000), 10)]
    await until(100)
    waiters.append(Waiter(small.watcher(limiter=limiter), "run", 10))
    await until(200)
    assert max(gaps(small.times())) <= 10.6
    await cancel_waits(waiters)


async def test_a_watcher_that_ends_while_queued_delays_no_other(service: Service) -> None:
    """A hundred cancelled watchers leave the queue."""
    running(service, 1)
    limiter = RateLimiter(1.0, clock=asyncio.get_running_loop().time)
    others = [Waiter(Service().watcher(limiter=limiter), "run", 10) for _ in range(100)]
    last = Waiter(service.watcher(limiter=limiter), "job-0", 10)
    await until(3)
    await cancel_waits(others)
    await until(5)
    assert last.seen() == ["RUNNING"]
    await cancel_waits([last])
    assert not limiter._queue


async def test_three_hundred_scopes_recover_within_a_cycle() -> None:
    """After a minute of denials, each is described as soon as its pause is over and the budget allows it."""
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    services = [Service({"run": "RUNNING"}) for _ in range(300)]
    waiters = [Waiter(each.watcher(limiter=limiter), "run", 10) for each in services]
    await until(100)
    for each in services:
        each.down = Fault.DENIED
    await until(160)
    for each in services:
        each.down, each.states = None, {"run": "SUCCEEDED"}
    await until(160 + 60 + 10)
    assert all(waiter.seen() == ["RUNNING", "SUCCEEDED"] for waiter in waiters)
    times = sorted(at for each in services for at in each.times())
    assert min(gaps(times)) >= 0.2 - 1e-6
    await cancel_waits(waiters)
