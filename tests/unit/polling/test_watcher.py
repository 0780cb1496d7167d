"""The promises of the watcher about calls, new waits and publishing, each in a scenario on a scripted clock.

By default, the budget is 5 calls per second, a new wait is served after half a second, and polls happen at multiples of
the interval.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling import watcher as module
from airflow_jobflow.polling.errors import DescribeRejected
from airflow_jobflow.polling.schedule import NEW_JOB_DELAY
from airflow_jobflow.polling.subscription import PolledJob
from tests.unit.polling.scripted import (
    Service,
    Waiter,
    cancel_waits,
    gaps,
    jobs,
    now,
    running,
    until,
)

# One call for many jobs.


async def test_a_hundred_waits_share_one_call_per_cycle(service: Service) -> None:
    """A hundred waits that were added one after the other share every call."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(45)
    assert service.times() == [0.5, 10, 20, 30, 40]
    assert service.sizes() == [100] * 5
    assert all(waiter.seen() == ["RUNNING"] for waiter in waiters)
    await cancel_waits(waiters)


async def test_a_hundred_and_first_wait_needs_a_second_call(service: Service) -> None:
    """No call describes more than a hundred jobs."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 101)]
    await until(15)
    assert service.sizes() == [100, 1, 100, 1]
    await cancel_waits(waiters)


async def test_the_batch_size_is_kept(service: Service) -> None:
    """A service that accepts fewer ids in a call gets fewer."""
    watcher = service.watcher(batch_size=7)
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 20)]
    await until(5)
    assert service.sizes() == [7, 7, 6]
    await cancel_waits(waiters)


async def test_one_wait_for_many_jobs_receives_each_state(service: Service) -> None:
    """A wait for a list of jobs needs as few calls as that many waits."""
    waiter = Waiter(service.watcher(), [*running(service, 250), "job-0"], 10)
    await until(5)
    assert service.sizes() == [100, 100, 50]
    assert sorted(about for _, about, _ in waiter.received) == sorted(jobs(250))
    await cancel_waits([waiter])


async def test_a_call_contains_a_job_once(service: Service) -> None:
    """Waits for the same job share its place in the call, and all receive the response."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, "job-0", 10) for _ in running(service, 5)]
    await until(25)
    assert [call.ids for call in service.calls] == [("job-0",)] * 3
    assert all(waiter.seen() == ["RUNNING"] for waiter in waiters)
    await cancel_waits(waiters)


async def test_a_due_call_includes_jobs_that_are_due_soon(service: Service) -> None:
    """A job that is due within a tenth of its interval is added to a due call."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(9.2)
    second = Waiter(watcher, "job-1", 10)
    await until(9.8)
    assert service.calls[-1].ids == ("job-1", "job-0")
    await cancel_waits([first, second])


async def test_a_due_call_excludes_jobs_that_are_due_later(service: Service) -> None:
    """A job that is due after more than a tenth of its interval is not described early."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(7.0)
    second = Waiter(watcher, "job-1", 10)
    await until(8.0)
    assert service.calls[-1].ids == ("job-1",)
    await cancel_waits([first, second])


async def test_a_second_wait_for_a_job_shares_its_entry(service: Service) -> None:
    """It causes an immediate call, and then no more calls than before."""
    running(service, 1)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(3)
    second = Waiter(watcher, "job-0", 10)
    await until(45)
    assert len(watcher._jobs) == 1
    assert service.times() == [0.5, 3.5, 10, 20, 30, 40]
    assert first.seen() == second.seen() == ["RUNNING"]
    await cancel_waits([first, second])


async def test_the_shortest_interval_of_a_jobs_waits_applies(service: Service) -> None:
    """The interval of a cancelled wait no longer applies, except for the call that is already scheduled."""
    running(service, 1)
    watcher = service.watcher()
    patient = Waiter(watcher, "job-0", 10)
    await until(20)
    impatient = Waiter(watcher, "job-0", 4)
    await until(32)
    await cancel_waits([impatient])
    await until(65)
    assert service.times()[:8] == [0.5, 10, 20, 20.5, 24, 28, 32, 36]
    assert min(gaps(service.times()[7:])) >= 9.0
    await cancel_waits([patient])


# New waits.


@pytest.mark.parametrize("subscribed_at", [0.0, 0.3, 7.77, 9.99, 10.0, 10.01])
async def test_a_new_wait_is_described_within_a_second(subscribed_at: float) -> None:
    """This holds at any time, and with other waits."""
    service = Service()
    watcher = service.watcher()
    others = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(subscribed_at)
    service.states["new"] = "RUNNING"
    new = Waiter(watcher, "new", 600)
    await until(subscribed_at + 1)
    assert new.seen() == ["RUNNING"]
    await cancel_waits([*others, new])


async def test_a_new_wait_precedes_all_due_jobs(service: Service) -> None:
    """If the due jobs need twenty calls, the new one is in the next call."""
    watcher = service.watcher()
    crowd = [Waiter(watcher, job_id, 10) for job_id in running(service, 2000)]
    await until(20.3)
    new = Waiter(watcher, "new", 10)
    await until(20.5)
    assert "new" in service.calls[-1].ids
    await cancel_waits([*crowd, new])


async def test_new_waits_are_batched(service: Service) -> None:
    """Waits that are added within half a second are described together."""
    running(service, 5)
    watcher = service.watcher()
    waiters = []
    for job_id in jobs(5):
        waiters.append(Waiter(watcher, job_id, 10))
        await until(now() + 0.1)
    await until(1)
    assert [(call.at, len(call.ids)) for call in service.calls] == [(NEW_JOB_DELAY, 5)]
    await cancel_waits(waiters)


async def test_a_new_wait_is_described_during_a_split(service: Service) -> None:
    """Splitting a rejected call of a hundred jobs takes some time, which a new wait need not wait for."""
    service.bad = {"job-77"}
    watcher = service.watcher()
    crowd = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(0.6)
    service.states["new"] = "RUNNING"
    new = Waiter(watcher, "new", 10)
    await until(1.6)
    assert new.seen() == ["RUNNING"]
    await cancel_waits([*crowd, new])


async def test_a_wait_added_during_a_call_for_its_job_gets_the_response(service: Service) -> None:
    """A further call follows for the new wait, and later ones are shared."""
    running(service, 1)
    service.latency = 3.0
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(2.0)
    second = Waiter(watcher, "job-0", 10)
    await until(25)
    assert second.received == [(3.5, "job-0", "RUNNING")]
    assert service.times() == [0.5, 2.5, 10, 20]
    await cancel_waits([first, second])


async def test_an_older_response_does_not_replace_a_newer_one(service: Service) -> None:
    """If two calls for a job overlap, the response of the earlier call is not published after that of the later one."""
    running(service, 1)
    service.latency = 5.0
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(1.0)
    service.states["job-0"] = "SUCCEEDED"
    service.latency = 0.0
    second = Waiter(watcher, "job-0", 10)
    await until(9.0)
    assert [call.answers for call in service.calls] == [{"job-0": "RUNNING"}, {"job-0": "SUCCEEDED"}]
    assert first.seen() == second.seen() == ["SUCCEEDED"]
    await cancel_waits([first, second])


async def test_no_state_is_published_after_an_error(service: Service) -> None:
    """If two calls for a job overlap, the response of the earlier call is not published after the later one's
    rejection.
    """
    running(service, 2)
    service.latency = 5.0
    watcher = service.watcher(denied_grace=0)
    other, first = Waiter(watcher, "job-1", 10), Waiter(watcher, "job-0", 10)
    await until(1.0)
    service.latency = 0.0
    service.plan.append(Fault.DENIED)
    second = Waiter(watcher, "job-0", 10)
    await until(9.0)
    assert len(first.received) == len(second.received) == 1
    assert isinstance(first.error, DescribeRejected)
    await cancel_waits([other, first, second])


# Publishing.


async def test_every_change_is_published_once(service: Service) -> None:
    """An unchanged state is not published again."""
    running(service, 1)
    waiter = Waiter(service.watcher(), "job-0", 1)
    for state in ("SUBMITTED", "RUNNING", "RUNNING", "SUCCEEDED"):
        service.states["job-0"] = state
        await until(now() + 5)
    assert waiter.seen() == ["SUBMITTED", "RUNNING", "SUCCEEDED"]
    await cancel_waits([waiter])


async def test_a_slow_reader_receives_only_the_latest_state(service: Service) -> None:
    """A state that was not read yet is replaced by the next; returning to the last read state publishes nothing."""
    running(service, 1)
    with service.watcher().subscribe(["job-0"], 1) as wait:
        assert await anext(wait) == ("job-0", "RUNNING")
        for state in ("PENDING", "STARTING"):
            service.states["job-0"] = state
            await until(now() + 2)
        assert await anext(wait) == ("job-0", "STARTING")
        for state in ("PENDING", "STARTING"):
            service.states["job-0"] = state
            await until(now() + 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await anext(wait)


async def test_an_unread_end_is_not_replaced_by_an_error(service: Service) -> None:
    """The last state is published before the error."""
    service.states["job-0"] = "SUCCEEDED"
    watcher = service.watcher(denied_grace=0)
    with watcher.subscribe(["job-0"], 1) as wait:
        await until(1.5)
        service.plan.append(Fault.DENIED)
        await until(3)
        assert await anext(wait) == ("job-0", "SUCCEEDED")
        assert isinstance((await anext(wait))[1], DescribeRejected)


# Large numbers.


async def test_memory_is_freed_after_thousands_of_waits(service: Service) -> None:
    """A watcher that lives for months holds only current waits and due entries."""
    watcher = service.watcher()
    stays = Waiter(watcher, running(service, 1), 10)
    for round_ in range(60):
        for number in range(50):
            guest = Waiter(watcher, [f"guest-{round_}-{number}", "job-0"], 10)
            await asyncio.sleep(0)
            guest.cancel()
        await until(now() + 1)
    await until(now() + 11)
    assert list(watcher._jobs) == ["job-0"]
    assert (
        len(watcher._schedule._due),
        len(watcher._schedule._new),
        len(watcher._schedule._halves),
        len(watcher._calls),
    ) == (1, 0, 0, 0)
    assert len(watcher._jobs["job-0"].waits) == 1
    assert watcher._schedule.describes_per_second == pytest.approx(0.1)
    await cancel_waits([stays])


async def test_the_cost_of_ten_thousand_waits_is_linear(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the waits need about ten times the steps for subscribing, calls, publishing and unsubscribing."""
    counted = itertools.count()

    class Counting(PolledJob[str]):
        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            next(counted)
            return super().__getattribute__(name)

    monkeypatch.setattr(module, "PolledJob", Counting)
    steps = []
    for many in (1000, 10_000):
        before = next(counted)
        watcher = service.watcher(calls_per_second=100)
        waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, many)]
        await until(now() + 15)
        await cancel_waits(waiters)
        assert watcher.ended
        steps.append(next(counted) - before)
    assert steps[1] < 12 * steps[0]


async def test_a_job_that_has_ended_need_not_be_described_again(service: Service) -> None:
    """A wait for many jobs may skip those that have ended."""
    running(service, 2)
    watcher = service.watcher()
    with watcher.subscribe(["job-0", "job-1"], 10) as wait:
        await anext(wait)
        await anext(wait)
        watcher.unsubscribe("job-0", wait)
        await until(15)
    assert service.sizes() == [2, 1]
