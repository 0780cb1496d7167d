"""What the watcher promises, each promise in a story on a scripted clock.

Unless a story says otherwise the budget is 5 calls a second, a new wait is served after half a second, and polls fall
on the multiples of the interval.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections import deque
from typing import cast

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import Fault
from airflow_jobflow.polling import watcher as module
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.schedule import NEW_JOB_DELAY
from airflow_jobflow.polling.subscription import PolledJob
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import Service, Surprise, Waiter, gaps, leave, now, run, settle, until


def jobs(count: int) -> list[str]:
    """Return the ids of some jobs."""
    return [f"job-{number}" for number in range(count)]


def running(service: Service, count: int) -> list[str]:
    """Let jobs run in the service, and return their ids."""
    service.states |= dict.fromkeys(jobs(count), "RUNNING")
    return jobs(count)


# One call for many


async def test_a_hundred_waits_cost_one_call_a_round(service: Service) -> None:
    """A hundred waits, joined one after the other, share every call."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(45)
    assert service.times() == [0.5, 10, 20, 30, 40]
    assert service.sizes() == [100] * 5
    assert all(waiter.news() == ["RUNNING"] for waiter in waiters)
    await leave(waiters)


async def test_a_hundred_and_first_wait_costs_a_second_call(service: Service) -> None:
    """No call asks about more than a hundred jobs."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 101)]
    await until(15)
    assert service.sizes() == [100, 1, 100, 1]
    await leave(waiters)


async def test_the_batch_size_is_kept(service: Service) -> None:
    """A service that takes fewer ids in a call gets fewer."""
    watcher = service.watcher(batch_size=7)
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 20)]
    await until(5)
    assert service.sizes() == [7, 7, 6]
    await leave(waiters)


async def test_one_wait_for_many_jobs_hears_of_each(service: Service) -> None:
    """A wait for a list of jobs is described in as few calls as that many waits."""
    waiter = Waiter(service.watcher(), [*running(service, 250), "job-0"], 10)
    await until(5)
    assert service.sizes() == [100, 100, 50]
    assert sorted(about for _, about, _ in waiter.heard) == sorted(jobs(250))
    await leave([waiter])


async def test_a_job_is_not_asked_about_twice_in_a_call(service: Service) -> None:
    """Waits for the same job share its place in the call, and all hear the answer."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, "job-0", 10) for _ in running(service, 5)]
    await until(25)
    assert [call.ids for call in service.calls] == [("job-0",)] * 3
    assert all(waiter.news() == ["RUNNING"] for waiter in waiters)
    await leave(waiters)


async def test_a_due_call_takes_along_what_is_due_soon(service: Service) -> None:
    """A job due within a tenth of its interval goes along with a call that is made anyway."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(9.2)
    second = Waiter(watcher, "job-1", 10)
    await until(9.8)
    assert service.calls[-1].ids == ("job-1", "job-0")
    await leave([first, second])


async def test_a_due_call_leaves_alone_what_is_not_due_soon(service: Service) -> None:
    """A job due later than within a tenth of its interval is not described early."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(7.0)
    second = Waiter(watcher, "job-1", 10)
    await until(8.0)
    assert service.calls[-1].ids == ("job-1",)
    await leave([first, second])


async def test_a_second_wait_for_a_job_shares_its_entry(service: Service) -> None:
    """It has the job described at once, and then no more often than before."""
    running(service, 1)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(3)
    second = Waiter(watcher, "job-0", 10)
    await until(45)
    assert len(watcher._jobs) == 1
    assert service.times() == [0.5, 3.5, 10, 20, 30, 40]
    assert first.news() == second.news() == ["RUNNING"]
    await leave([first, second])


async def test_the_shortest_interval_of_a_jobs_waits_counts_while_it_is_there(service: Service) -> None:
    """An impatient wait brings its pace along and takes it away again, except for the call that was scheduled."""
    running(service, 1)
    watcher = service.watcher()
    patient = Waiter(watcher, "job-0", 10)
    await until(20)
    impatient = Waiter(watcher, "job-0", 4)
    await until(32)
    await leave([impatient])
    await until(65)
    assert service.times()[:8] == [0.5, 10, 20, 20.5, 24, 28, 32, 36]
    assert min(gaps(service.times()[7:])) >= 9.0
    await leave([patient])


# New waits


@pytest.mark.parametrize("joined_at", [0.0, 0.3, 7.77, 9.99, 10.0, 10.01])
async def test_a_new_wait_is_described_within_a_second(joined_at: float) -> None:
    """Whenever it comes, whoever else waits."""
    service = Service()
    watcher = service.watcher()
    others = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(joined_at)
    service.states["new"] = "RUNNING"
    new = Waiter(watcher, "new", 600)
    await until(joined_at + 1)
    assert new.news() == ["RUNNING"]
    await leave([*others, new])


async def test_a_new_wait_goes_ahead_of_a_crowd_that_is_due(service: Service) -> None:
    """With twenty calls' worth of jobs due, the new one is in the next call."""
    watcher = service.watcher()
    crowd = [Waiter(watcher, job_id, 10) for job_id in running(service, 2000)]
    await until(20.3)
    new = Waiter(watcher, "new", 10)
    await until(20.5)
    assert "new" in service.calls[-1].ids
    await leave([*crowd, new])


async def test_new_waits_gather(service: Service) -> None:
    """Waits that come within half a second of the first are described together."""
    running(service, 5)
    watcher = service.watcher()
    waiters = []
    for job_id in jobs(5):
        waiters.append(Waiter(watcher, job_id, 10))
        await until(now() + 0.1)
    await until(1)
    assert [(call.at, len(call.ids)) for call in service.calls] == [(NEW_JOB_DELAY, 5)]
    await leave(waiters)


async def test_a_new_wait_is_described_while_a_split_is_under_way(service: Service) -> None:
    """A rejected call of a hundred jobs takes some time to take apart; a new wait need not sit it out."""
    service.bad = {"job-77"}
    watcher = service.watcher()
    crowd = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(0.6)
    service.states["new"] = "RUNNING"
    new = Waiter(watcher, "new", 10)
    await until(1.6)
    assert new.news() == ["RUNNING"]
    await leave([*crowd, new])


async def test_a_wait_that_joins_while_its_job_is_described_hears_of_it(service: Service) -> None:
    """The call under way serves it too; a call of its own follows, and the next ones are shared."""
    running(service, 1)
    service.latency = 3.0
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(2.0)
    second = Waiter(watcher, "job-0", 10)
    await until(25)
    assert second.heard == [(3.5, "job-0", "RUNNING")]
    assert service.times() == [0.5, 2.5, 10, 20]
    await leave([first, second])


async def test_an_older_answer_does_not_undo_a_newer_one(service: Service) -> None:
    """When two calls about a job overlap, what the earlier one saw is not published after what the later one saw."""
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
    assert first.news() == second.news() == ["SUCCEEDED"]
    await leave([first, second])


async def test_an_error_is_the_last_word_on_a_job(service: Service) -> None:
    """When two calls about a job overlap, what the earlier one saw is not published after the later one's refusal."""
    running(service, 2)
    service.latency = 5.0
    watcher = service.watcher(denied_grace=0)
    other, first = Waiter(watcher, "job-1", 10), Waiter(watcher, "job-0", 10)
    await until(1.0)
    service.latency = 0.0
    service.plan.append(Fault.DENIED)
    second = Waiter(watcher, "job-0", 10)
    await until(9.0)
    assert len(first.heard) == len(second.heard) == 1
    assert isinstance(first.error, DescribeRejected)
    await leave([other, first, second])


# Telling


async def test_every_change_is_told_once(service: Service) -> None:
    """An unchanged state is not published again."""
    running(service, 1)
    waiter = Waiter(service.watcher(), "job-0", 1)
    for state in ("SUBMITTED", "RUNNING", "RUNNING", "SUCCEEDED"):
        service.states["job-0"] = state
        await until(now() + 5)
    assert waiter.news() == ["SUBMITTED", "RUNNING", "SUCCEEDED"]
    await leave([waiter])


async def test_a_slow_reader_is_told_the_latest_and_nothing_twice(service: Service) -> None:
    """News that nobody has read yet is replaced by newer news; back where it was is no news."""
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


async def test_an_end_that_was_not_read_yet_is_not_lost_to_an_error(service: Service) -> None:
    """The last answer is published before the error."""
    service.states["job-0"] = "SUCCEEDED"
    watcher = service.watcher(denied_grace=0)
    with watcher.subscribe(["job-0"], 1) as wait:
        await until(1.5)
        service.plan.append(Fault.DENIED)
        await until(3)
        assert await anext(wait) == ("job-0", "SUCCEEDED")
        assert isinstance((await anext(wait))[1], DescribeRejected)


# The budget


async def test_the_budget_is_kept_with_far_too_many_waits(service: Service) -> None:
    """Ten thousand jobs at ten seconds would need 10 calls a second; 5 are made."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(120)
    assert min(gaps(service.times())) >= 0.2 - 1e-6
    assert len(service.calls) == pytest.approx(5 * 119.5, rel=0.02)
    await leave([waiter])


async def test_intervals_stretch_evenly_when_the_budget_is_too_small(service: Service) -> None:
    """Twice as many jobs as the budget can serve: every job is described half as often, and none is left out."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(200)
    for job_id in jobs(10_000)[::333]:
        apart = list(gaps(service.times(job_id)[2:]))
        assert apart == pytest.approx([20.0] * len(apart), rel=0.15)
    await leave([waiter])


async def test_short_and_long_intervals_stretch_by_the_same_factor(service: Service) -> None:
    """Who asked for twice the interval still gets twice the interval."""
    ids = running(service, 600)
    watcher = service.watcher(calls_per_second=1, batch_size=10)
    short, long = Waiter(watcher, ids[:300], 10), Waiter(watcher, ids[300:], 20)
    await until(900)
    stretched = {10: 45.0, 20: 90.0}
    for interval, some in ((10, ids[:300:37]), (20, ids[300::37])):
        for job_id in some:
            seen = list(gaps([at for at in service.times(job_id) if at > 200]))
            assert sum(seen) / len(seen) == pytest.approx(stretched[interval], rel=0.15)
    await leave([short, long])


async def test_a_budget_that_suffices_stretches_nothing(service: Service) -> None:
    """Fifty calls in ten seconds are just what the budget allows."""
    waiter = Waiter(service.watcher(), running(service, 5000), 10)
    await until(100)
    for job_id in jobs(5000)[::333]:
        apart = list(gaps(service.times(job_id)[1:]))
        assert apart == pytest.approx([10.0] * len(apart), rel=0.11)
    await leave([waiter])


async def test_two_polls_are_no_closer_than_the_interval_when_another_call_takes_one_along(service: Service) -> None:
    """A job that went along with another's call a little early is not described again when it would have been due."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(18.9)
    second = Waiter(watcher, "job-1", 10)
    await until(45)
    assert service.times("job-0") == [0.5, 10, 19.4, 30, 40]
    await leave([first, second])


async def test_two_polls_are_no_closer_than_the_interval_after_a_crowd_has_left(service: Service) -> None:
    """A job whose calls were late because many were due is not described too soon when the many are gone."""
    ids = running(service, 1000)
    watcher = service.watcher(calls_per_second=1)
    crowd, last = Waiter(watcher, ids[:900], 10), Waiter(watcher, ids[900:], 10)
    await until(35)
    await leave([crowd])
    await until(80)
    assert min(gaps(service.times("job-999")[2:])) >= 9.0
    await leave([last])


async def test_two_polls_are_no_closer_than_the_interval_when_it_grows(service: Service) -> None:
    """When the impatient wait has left, the other's interval counts from the last call."""
    running(service, 1)
    watcher = service.watcher()
    patient, impatient = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-0", 7)
    await until(43)
    await leave([impatient])
    await until(80)
    times = [at for at in service.times() if at >= 49]
    assert min(gaps(times)) >= 9.0
    await leave([patient])


async def test_two_polls_are_no_closer_than_the_interval_when_stretching_ends(service: Service) -> None:
    """Aligning a job again costs no extra call."""
    ids = running(service, 300)
    watcher = service.watcher(calls_per_second=0.5, batch_size=10)
    crowd, last = Waiter(watcher, ids[:250], 10), Waiter(watcher, ids[250:], 10)
    await until(140)
    await leave([crowd])
    await until(400)
    for job_id in ids[250::7]:
        assert min(gaps(service.times(job_id)[1:])) >= 9.0
    await leave([last])


# Many watchers, one budget


async def test_three_hundred_scopes_share_one_budget() -> None:
    """Three hundred Glue jobs with a run each make no more calls a second than one, and each gets its turn."""
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    services = [Service({"run": "RUNNING"}) for _ in range(300)]
    waiters = [Waiter(each.watcher(limiter=limiter), "run", 10) for each in services]
    await until(63)
    assert all(waiter.news() == ["RUNNING"] for waiter in waiters), "each was described within the first minute"
    await until(600)
    times = sorted(at for each in services for at in each.times())
    assert min(gaps(times)) >= 0.2 - 1e-6
    assert len(times) == pytest.approx(5 * 600, rel=0.01)
    assert all(50 <= gap <= 70 for each in services for gap in gaps(each.times())), "a round takes a minute"
    await leave(waiters)


async def test_a_scope_of_thousands_leaves_the_others_their_turns() -> None:
    """It has one call waiting at a time, like each of them."""
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    crowd, small = Service(), Service({"run": "RUNNING"})
    waiters = [Waiter(crowd.watcher(limiter=limiter), running(crowd, 10_000), 10)]
    await until(100)
    waiters.append(Waiter(small.watcher(limiter=limiter), "run", 10))
    await until(200)
    assert max(gaps(small.times())) <= 10.6
    await leave(waiters)


async def test_a_watcher_that_ends_while_it_waits_for_its_turn_holds_up_nobody(service: Service) -> None:
    """A hundred that were cancelled leave their places in the queue."""
    running(service, 1)
    limiter = RateLimiter(1.0, clock=asyncio.get_running_loop().time)
    others = [Waiter(Service().watcher(limiter=limiter), "run", 10) for _ in range(100)]
    last = Waiter(service.watcher(limiter=limiter), "job-0", 10)
    await until(3)
    await leave(others)
    await until(5)
    assert last.news() == ["RUNNING"]
    await leave([last])
    assert not limiter._queue


async def test_an_outage_of_three_hundred_scopes_is_over_after_a_round() -> None:
    """Denied for a minute: afterwards each is described as soon as its pause is over and the budget allows it."""
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
    assert all(waiter.news() == ["RUNNING", "SUCCEEDED"] for waiter in waiters)
    times = sorted(at for each in services for at in each.times())
    assert min(gaps(times)) >= 0.2 - 1e-6
    await leave(waiters)


# Faults that pass


async def test_throttling_halves_the_pace_and_it_recovers(service: Service) -> None:
    """After one throttled call the calls are twice as far apart; a minute later they are as before."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(10.1)
    service.plan.append(Fault.THROTTLED)
    await until(100)
    times = [at for at in service.times() if at > 10.1]
    apart = list(gaps(times))
    assert apart[0] == pytest.approx(0.4)
    assert apart[1] == pytest.approx(0.4, rel=0.05)
    assert apart[:60] == pytest.approx(sorted(apart[:60], reverse=True))
    assert apart[-1] == pytest.approx(0.2)
    assert not any(isinstance(news, WatchError) for news in waiter.news())
    await leave([waiter])


async def test_a_pace_that_has_recovered_is_used(service: Service) -> None:
    """Jobs put off while calls were few do not stay put off when calls may be many again."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(10.1)
    service.plan.append(Fault.THROTTLED)
    await until(150)
    assert max(gaps(service.times())) <= 1.0
    await leave([waiter])


async def test_throttling_that_goes_on_fails_no_wait(service: Service) -> None:
    """An hour of throttling makes calls rare; the first answer reaches the wait."""
    running(service, 1)
    waiter = Waiter(service.watcher(), "job-0", 10)
    service.plan.extend([Fault.THROTTLED] * 300)
    await until(3600)
    assert len(service.calls) > 300
    assert waiter.news() == ["RUNNING"]
    assert max(gaps(service.times())) <= 20
    await leave([waiter])


async def test_a_throttled_call_is_made_again(service: Service) -> None:
    """Its jobs are not put off by a whole interval."""
    running(service, 1)
    service.plan.append(Fault.THROTTLED)
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(2)
    assert waiter.news() == ["RUNNING"]
    await leave([waiter])


async def test_a_passing_fault_fails_no_wait_and_is_retried_after_growing_pauses(service: Service) -> None:
    """A service that is down for a while is called after 1, 2, 4 … 30 s; but no later than the wait's interval."""
    running(service, 1)
    service.plan.extend([Fault.TRANSIENT] * 8)
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(200)
    assert list(gaps(service.times()[:9])) == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    assert waiter.news() == ["RUNNING"]
    await leave([waiter])


async def test_pauses_start_anew_after_an_answer(service: Service) -> None:
    """An outage yesterday does not lengthen today's pause."""
    running(service, 1)
    service.plan.extend([Fault.TRANSIENT] * 5)
    waiter = Waiter(service.watcher(), "job-0", 10)
    await until(60)
    service.plan.append(Fault.TRANSIENT)
    await until(75)
    at = next(call.at for call in service.calls if call.at >= 60 and call.answers is None)
    assert at + 1 in service.times()
    await leave([waiter])


async def test_a_refusal_of_all_fails_no_wait_until_it_has_lasted_for_the_grace(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Five hundred waits, denied for 3 s and for 60 s: all go on, and the log has one warning for each."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 500)]
    for began, seconds in ((20.0, 3.0), (200.0, 60.0)):
        await until(began)
        caplog.clear()
        service.down = Fault.DENIED
        await until(began + seconds)
        service.down = None
        service.states |= dict.fromkeys(jobs(500), f"after {began}")
        await until(began + seconds + 20)
        assert all(waiter.news()[-1] == f"after {began}" for waiter in waiters)
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "Describe calls fail and will be repeated for up to 300 s: scripted: denied"
        ]
    assert min(gaps(service.times())) >= 0.2 - 1e-6
    await leave(waiters)


async def test_one_refused_job_among_others_is_logged_once(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The answers for the others do not mean that its calls have recovered."""
    caplog.set_level("INFO")
    service.bad, service.fault = {"job-3"}, Fault.DENIED
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 20)]
    await until(100)
    warning = "Describe calls fail and will be repeated for up to 300 s: scripted: denied"
    assert [record.getMessage() for record in caplog.records] == [warning]
    service.bad = set()
    await until(150)
    assert [record.getMessage() for record in caplog.records] == [warning, "Describe calls recovered"]
    await leave(waiters)


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.TRANSIENT, Fault.SCOPE_NOT_FOUND])
async def test_after_an_outage_every_wait_sees_its_job_within_two_intervals(fault: Fault) -> None:
    """A thousand waits of 10 s, after 50 s in which no call was answered."""
    service = Service()
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 1000)]
    await until(33)
    service.down = fault
    await until(83)
    service.down = None
    service.states |= dict.fromkeys(jobs(1000), "SUCCEEDED")
    await until(103)
    assert all(waiter.news() == ["RUNNING", "SUCCEEDED"] for waiter in waiters)
    await leave(waiters)


@pytest.mark.parametrize(
    ("fault", "grace"),
    [(Fault.DENIED, 300), (Fault.CREDENTIALS, 300), (Fault.SCOPE_NOT_FOUND, 60), (Fault.REJECTED, 60)],
)
@pytest.mark.parametrize("together", [1, 20])
async def test_a_refusal_that_lasts_fails_the_waits_after_the_grace(fault: Fault, grace: float, together: int) -> None:
    """And not before; with the reason, for how long, and how often."""
    service = Service(down=fault)
    waiters = [Waiter(service.watcher(), job_id, 10) for job_id in running(service, together)]
    await until(grace)
    assert not any(waiter.heard for waiter in waiters)
    await until(grace + 32)
    for waiter in waiters:
        assert isinstance(waiter.error, DescribeRejected)
        assert waiter.error.fault is fault
        assert waiter.error.seconds >= grace
        assert waiter.error.refusals >= 3
        assert f"{waiter.error.refusals} describe calls in {waiter.error.seconds:.0f} s failed" in str(waiter.error)
    await leave(waiters)


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND, Fault.REJECTED])
async def test_without_a_grace_the_first_refusal_fails_the_wait(fault: Fault) -> None:
    """As some want."""
    service = Service(down=fault)
    waiter = Waiter(service.watcher(denied_grace=0), running(service, 1), 10)
    await until(1)
    assert isinstance(waiter.error, DescribeRejected)
    assert len(service.calls) == 1
    await leave([waiter])


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND, Fault.REJECTED])
async def test_one_refusal_of_a_lone_job_ends_nothing(fault: Fault) -> None:
    """A proxy's page, a cluster that one request does not find, a 400 that nobody knows."""
    service = Service(plan=deque([fault]))
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(3)
    assert waiter.news() == ["RUNNING"]
    await leave([waiter])


async def test_a_lone_job_polled_rarely_is_refused_several_times_before_its_wait_fails(service: Service) -> None:
    """Its interval is longer than the grace period."""
    service.down = Fault.REJECTED
    waiter = Waiter(service.watcher(), running(service, 1), 600)
    await until(200)
    assert isinstance(waiter.error, DescribeRejected)
    assert waiter.error.seconds >= 60
    assert len(service.calls) >= 3
    await leave([waiter])


async def test_an_outage_between_two_refusals_does_not_count_as_refused(service: Service) -> None:
    """A refusal before it and one after it are not five minutes of refusals."""
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(5)
    service.down = Fault.CREDENTIALS
    await until(30)
    service.down = Fault.TRANSIENT
    await until(600)
    service.down = Fault.CREDENTIALS
    await until(800)
    assert waiter.news() == ["RUNNING"]
    service.down = None
    service.states["job-0"] = "SUCCEEDED"
    await until(820)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await leave([waiter])


async def test_the_grace_of_refusals_starts_anew_after_an_answer(service: Service) -> None:
    """Two short denials are not a long one."""
    waiter = Waiter(service.watcher(denied_grace=60), running(service, 1), 10)
    for _ in range(10):
        service.down = Fault.DENIED
        await until(now() + 50)
        service.down = None
        await until(now() + 15)
    assert waiter.news() == ["RUNNING"]
    await leave([waiter])


async def test_calls_for_single_jobs_are_few_while_everything_is_refused(service: Service) -> None:
    """Those that were refused alone in the beginning, and one a second that shows when it is over."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 1000)]
    await until(30)
    service.down = Fault.DENIED
    await until(130)
    assert len([call for call in service.calls if call.at > 50 and len(call.ids) == 1]) <= 81 + 8 * 9
    await leave(waiters)


# Hanging calls


async def test_a_call_without_a_response_is_repeated(service: Service) -> None:
    """Its jobs are described again."""
    running(service, 1)
    service.plan.append(Surprise.HANG)
    service.request_timeout = 7
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(20)
    assert service.calls[0].ended_at == pytest.approx(7.5)
    assert waiter.news() == ["RUNNING"]
    assert waiter.heard[0][0] == pytest.approx(8.5)
    await leave([waiter])


async def test_a_hanging_call_holds_up_nobody_else(service: Service) -> None:
    """While one call hangs, other jobs are described as ever, and on time."""
    watcher = service.watcher(batch_size=10)
    service.hanging = {"job-0"}
    waiters = [Waiter(watcher, job_id, 2) for job_id in running(service, 30)]
    await until(21)
    for waiter in waiters[10:]:
        assert waiter.news() == ["RUNNING"]
        assert max(gaps(service.times(waiter.job_ids[0])[1:])) <= 2.2
    await leave(waiters)


async def test_a_hanging_call_does_not_hold_up_a_new_wait_for_the_same_job(service: Service) -> None:
    """The new wait has a call of its own, and what that says reaches the older wait too."""
    running(service, 1)
    service.plan.append(Surprise.HANG)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(5)
    second = Waiter(watcher, "job-0", 10)
    await until(6)
    assert first.news() == second.news() == ["RUNNING"]
    await leave([first, second])


# Rejected calls


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.DENIED])
@pytest.mark.parametrize("bad", [{"job-0"}, {"job-99"}, {"job-49", "job-50"}, {"job-3", "job-42", "job-77"}])
async def test_a_rejected_call_is_split_until_only_the_bad_jobs_waits_fail(bad: set[str], fault: Fault) -> None:
    """Ninety-nine good jobs never notice the bad one among them; nor the one that a permission is missing for."""
    service = Service(bad=bad, fault=fault)
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 60) for job_id in running(service, 100)]
    await until(20)
    for waiter in waiters:
        assert waiter.news() == ([] if waiter.job_ids[0] in bad else ["RUNNING"])
    in_groups = [call for call in service.calls if len(call.ids) > 1]
    assert len(in_groups) <= 1 + 2 * 7 * len(bad)
    assert min(gaps(service.times())) >= 0.2 - 1e-6
    await until(65)
    assert service.sizes().count(100 - len(bad)) == 1, "those that are refused are kept out of the others' calls"
    await until(400)
    for waiter in waiters:
        if waiter.job_ids[0] in bad:
            assert isinstance(waiter.error, DescribeRejected)
            assert waiter.error.fault is fault
            assert waiter.error.seconds >= (300 if fault is Fault.DENIED else 60)
        else:
            assert waiter.news() == ["RUNNING"]
    await leave(waiters)


async def test_where_everything_is_denied_all_waits_fail_after_the_grace(service: Service) -> None:
    """Ten thousand jobs are not described one by one before."""
    service.bad, service.fault = set(jobs(10_000)), Fault.DENIED
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(360)
    assert len(waiter.heard) == 10_000
    assert len(service.calls) <= 5 * 360
    await leave([waiter])


async def test_without_a_grace_a_denial_of_everything_fails_all_waits_soon(service: Service) -> None:
    """Nor here."""
    service.bad, service.fault = set(jobs(10_000)), Fault.DENIED
    waiter = Waiter(service.watcher(denied_grace=0), running(service, 10_000), 10)
    await until(60)
    assert len(waiter.heard) == 10_000
    assert len(service.calls) < 200
    await leave([waiter])


@pytest.mark.parametrize("grace", [0, 100])
async def test_denials_of_some_are_not_taken_for_a_denial_of_all(grace: float) -> None:
    """Also where many are: an answer in between shows it."""
    service = Service(bad=set(jobs(100)[::2]), fault=Fault.DENIED)
    waiters = [Waiter(service.watcher(denied_grace=grace), job_id, 600) for job_id in running(service, 100)]
    await until(200)
    heard = [waiter.heard[-1][2] for waiter in waiters]
    assert [isinstance(news, DescribeRejected) for news in heard] == [True, False] * 50
    await leave(waiters)


async def test_the_one_good_job_among_a_hundred_is_found(service: Service) -> None:
    """Its ninety-nine neighbours are denied, so that every call for several is refused."""
    service.bad, service.fault = set(jobs(100)[:70] + jobs(100)[71:]), Fault.DENIED
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(400)
    assert waiters[70].news() == ["RUNNING"]
    assert all(isinstance(waiter.error, DescribeRejected) for waiter in waiters if waiter is not waiters[70])
    await leave(waiters)


async def test_a_wait_fails_only_after_a_call_for_its_job_alone_if_others_are_answered(service: Service) -> None:
    """A job that shares its calls with bad ones is none."""
    service.bad, service.fault = set(jobs(300)[::3]), Fault.DENIED
    watcher = service.watcher(calls_per_second=1)
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 300)]
    await until(1500)
    for waiter in waiters:
        if waiter.job_ids[0] in service.bad:
            assert isinstance(waiter.error, DescribeRejected)
            assert any(call.ids == tuple(waiter.job_ids) for call in service.calls)
        else:
            assert waiter.news() == ["RUNNING"]
    await leave(waiters)


async def test_a_wait_that_leaves_during_a_split_is_not_asked_about_any_more(service: Service) -> None:
    """What is left of the split goes on without it."""
    service.bad = {"job-0", "job-7"}
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 60) for job_id in running(service, 8)]
    await until(0.6)
    await leave(waiters[4:])
    calls = len(service.calls)
    await until(10)
    assert not {job_id for call in service.calls[calls:] for job_id in call.ids} & set(jobs(8)[4:])
    assert all(waiter.news() == ["RUNNING"] for waiter in waiters[1:4])
    await leave(waiters[:4])


# Jobs that the service does not know


async def test_a_missing_job_vanishes_after_the_grace_and_not_before(service: Service) -> None:
    """The grace period starts with the first call that did not find it."""
    running(service, 1)
    watcher = service.watcher(missing_grace=33)
    good, missing = Waiter(watcher, "job-0", 10), Waiter(watcher, "missing", 10)
    await until(33.4)
    assert missing.heard == []
    await until(34)
    assert isinstance(missing.error, NotFound)
    assert missing.error.job_id == "missing"
    assert missing.error.seconds == pytest.approx(33)
    assert str(missing.error) == "AWS has found no such job for 33 s"
    assert missing.heard[0][0] == pytest.approx(33.5, abs=0.01)
    assert good.news() == ["RUNNING"]
    await leave([good, missing])


async def test_a_job_that_turns_up_within_the_grace_is_told(service: Service) -> None:
    """A job that was only just submitted may be unknown for a while."""
    waiter = Waiter(service.watcher(missing_grace=60), "job-0", 10)
    await until(35)
    running(service, 1)
    await until(45)
    assert waiter.news() == ["RUNNING"]
    assert waiter.heard[0][0] == pytest.approx(40)
    await leave([waiter])


async def test_the_grace_starts_anew_when_a_job_was_seen_in_between(service: Service) -> None:
    """Two short absences are not a long one."""
    waiter = Waiter(service.watcher(missing_grace=60), "job-0", 10)
    for absent in (True, False, True, False):
        service.states = {} if absent else {"job-0": "RUNNING"}
        await until(now() + 50)
    assert waiter.news() == ["RUNNING"]
    await leave([waiter])


async def test_no_grace_means_gone_at_the_first_look(service: Service) -> None:
    """A grace of 0 s fails at once."""
    waiter = Waiter(service.watcher(missing_grace=0), "missing", 10)
    await until(1)
    assert isinstance(waiter.error, NotFound)
    await leave([waiter])


# Leaving and ending


async def test_the_last_waits_leaving_closes_the_client(service: Service) -> None:
    """Not the first one's, and only once."""
    running(service, 2)
    watcher = service.watcher()
    first, second = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(12)
    await leave([first])
    await until(15)
    assert service.closed == []
    assert not watcher.ended
    await leave([second])
    assert service.closed == [15]
    assert watcher.ended


async def test_a_watcher_whose_jobs_have_all_failed_ends(service: Service) -> None:
    """Waits that have heard the last word keep nothing going."""
    service.plan.append(Fault.SCOPE_NOT_FOUND)
    watcher = service.watcher(denied_grace=0)
    waiter = Waiter(watcher, ["job-0", "job-1"], 10)
    await until(50)
    assert watcher.ended
    assert service.closed == [0.5]
    assert len(service.calls) == 1
    await leave([waiter])


async def test_leaving_while_a_call_is_under_way_gives_the_call_up(service: Service) -> None:
    """Nobody wants its answer."""
    running(service, 1)
    service.latency = 5
    waiter = Waiter(service.watcher(), "job-0", 10)
    await until(2)
    await leave([waiter])
    assert service.calls[0].given_up
    assert service.closed == [2]


async def test_the_client_is_closed_after_the_calls_under_way_have_ended(service: Service) -> None:
    """A client is not closed under a call that uses it."""
    running(service, 1)
    service.latency = 5
    under_way: list[bool] = []

    def close() -> None:
        under_way.append(any(not call.given_up for call in service.calls))

    waiter = Waiter(service.watcher(close=close), "job-0", 10)
    await until(2)
    await leave([waiter])
    assert under_way == [False]


async def test_a_cancelled_wait_leaves_no_trace(service: Service) -> None:
    """Its job is not described again, and nothing of it stays once its turn would have come."""
    running(service, 2)
    watcher = service.watcher()
    cancelled, other = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(12)
    await leave([cancelled])
    polls = len(service.times("job-0"))
    assert list(watcher._jobs) == ["job-1"]
    assert watcher._schedule.describes_per_second == pytest.approx(0.1)
    await until(40)
    assert len(service.times("job-0")) == polls
    assert len(watcher._schedule._due) == 1
    assert not watcher._schedule._new
    await leave([other])


async def test_a_wait_that_leaves_before_its_first_call_costs_no_call(service: Service) -> None:
    """It gathered, and went."""
    running(service, 2)
    watcher = service.watcher()
    stays, goes = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(0.3)
    await leave([goes])
    await until(5)
    assert [call.ids for call in service.calls] == [("job-0",)]
    await leave([stays])


async def test_one_of_two_waits_for_a_job_may_leave(service: Service) -> None:
    """The other goes on hearing of it."""
    running(service, 1)
    watcher = service.watcher()
    first, second = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-0", 10)
    await until(12)
    await leave([first])
    service.states["job-0"] = "SUCCEEDED"
    await until(25)
    assert first.news() == ["RUNNING"]
    assert second.news() == ["RUNNING", "SUCCEEDED"]
    await leave([second])


async def test_a_job_that_failed_one_wait_can_be_waited_for_again(service: Service) -> None:
    """The earlier wait's leaving does not take the later one's place away."""
    watcher = service.watcher(missing_grace=5)
    running(service, 1)
    other, first = Waiter(watcher, "job-0", 10), Waiter(watcher, "late", 2)
    await until(10)
    assert isinstance(first.error, NotFound)
    service.states["late"] = "RUNNING"
    second = Waiter(watcher, "late", 2)
    await until(10.1)
    await leave([first])
    await until(12)
    assert second.news() == ["RUNNING"]
    await leave([other, second])


@pytest.mark.parametrize("interval", [0.0, -1.0])
async def test_a_wait_refused_at_the_door_leaves_nothing_behind(interval: float) -> None:
    """An interval that is none does not spoil the watcher for the others."""
    service = Service()
    running(service, 2)
    watcher = service.watcher()
    with pytest.raises(ValueError), watcher.subscribe(["job-0"], interval):  # noqa: PT011  # the words are not the matter
        pass
    assert not watcher._jobs
    waiter = Waiter(watcher, "job-1", 10)
    await until(5)
    assert waiter.news() == ["RUNNING"]
    assert service.times() == [0.5]
    await leave([waiter])


async def test_a_watcher_that_has_ended_refuses_to_be_joined(service: Service) -> None:
    """Sooner an error than a wait that nobody will ever answer."""
    watcher = service.watcher()
    await leave_after(Waiter(watcher, "job-0", 10), 1)
    assert watcher.ended
    with pytest.raises(RuntimeError), watcher.subscribe(["job-0"], 10):
        pass


async def leave_after(waiter: Waiter, seconds: float) -> None:
    """Let a wait wait for a while."""
    await until(now() + seconds)
    await leave([waiter])


async def test_a_wait_that_comes_as_the_last_one_leaves_is_served(service: Service) -> None:
    """Between the last one's leaving and the watcher's end there is no gap to fall into."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(3)
    with watcher.subscribe(["job-1"], 10) as wait:
        await leave([first])
        assert await anext(wait) == ("job-1", "RUNNING")
    await settle()
    assert watcher.ended


# What must not happen, happens


@pytest.mark.parametrize("surprise", [Surprise.CRASH, Surprise.CANCELLED, Surprise.NONSENSE])
async def test_a_describe_that_does_what_it_should_not_is_called_again(surprise: Surprise) -> None:
    """One unreadable response ends no wait."""
    service = Service()
    running(service, 2)
    watcher = service.watcher()
    other = Waiter(watcher, "job-0", 30)
    await until(1)
    service.plan.append(surprise)
    waiter = Waiter(watcher, "job-1", 30)
    await until(100)
    assert other.news() == waiter.news() == ["RUNNING"]
    await leave([other, waiter])


@pytest.mark.parametrize("surprise", [Surprise.CRASH, Surprise.NONSENSE])
async def test_a_describe_that_only_does_what_it_should_not_fails_its_waits(
    surprise: Surprise, caplog: pytest.LogCaptureFixture
) -> None:
    """After a minute, with the bug in the error and, once, in the log."""
    service = Service(plan=deque([surprise] * 100))
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(100)
    assert isinstance(waiter.error, DescribeRejected)
    assert "unexpected error" in str(waiter.error)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    await leave([waiter])


@pytest.mark.parametrize("cancelled_at", [0.0, 0.2, 3.0])
async def test_a_cancelled_runner_tells_its_waits(cancelled_at: float) -> None:
    """Whoever cancels it, and be it before it has begun."""
    service = Service()
    running(service, 1)
    watcher = service.watcher()
    with watcher.subscribe(["job-0"], 10) as wait:
        if cancelled_at:
            await until(cancelled_at)
        assert watcher._runner is not None
        watcher._runner.cancel()
        news = [(await anext(wait))[1] for _ in range(1 + (cancelled_at > 1))]
        assert isinstance(news[-1], WatchError)
        assert watcher.ended
    assert len(service.closed) == 1


async def test_a_runner_that_dies_tells_its_waits(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the watcher itself must not leave ten thousand waits without a word."""
    running(service, 1)
    watcher = service.watcher()
    waiter = Waiter(watcher, "job-0", 10)
    await until(5)

    def broken(_: float) -> float:
        raise ZeroDivisionError("scripted: a bug")

    monkeypatch.setattr(watcher._schedule, "due_in", broken)
    await until(12)
    assert "scripted: a bug" in str(waiter.error)
    assert watcher.ended
    await leave([waiter])


def test_a_watcher_works_on_each_new_event_loop() -> None:
    """A process may run one loop after another: each has a watcher of its own, and all are served."""
    service = Service()
    running(service, 1)

    async def story() -> None:
        waiter = Waiter(service.watcher(), "job-0", 10)
        await until(3)
        assert waiter.news() == ["RUNNING"]
        await leave([waiter])

    run(story())
    run(story())
    assert len(service.closed) == 2


async def test_the_first_joiners_context_does_not_leak_into_the_calls(service: Service) -> None:
    """Calls are made for everybody: what they log must not land in the log of the task that came first."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def describe(job_ids: list[str]) -> dict[str, str]:
        seen.append(whose.get())
        return dict.fromkeys(job_ids, "RUNNING")

    whose.set("the first joiner's")
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    waiter = Waiter(Watcher(cast("module.Describe[str]", describe), limiter), "job-0", 10)
    await until(15)
    assert seen == ["nobody's", "nobody's"]
    await leave([waiter])


# Many


async def test_nothing_stays_after_thousands_of_joins_and_leaves(service: Service) -> None:
    """A watcher that lives for months holds what is waited for, and what is due to be popped."""
    watcher = service.watcher()
    stays = Waiter(watcher, running(service, 1), 10)
    for round_ in range(60):
        for number in range(50):
            guest = Waiter(watcher, [f"guest-{round_}-{number}", "job-0"], 10)
            await asyncio.sleep(0)
            guest.leave()
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
    await leave([stays])


async def test_ten_thousand_joins_are_not_quadratic(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the waits cost about ten times the steps: subscribing, calls, publishing and unsubscribing together."""
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
        await leave(waiters)
        assert watcher.ended
        steps.append(next(counted) - before)
    assert steps[1] < 12 * steps[0]


async def test_a_job_that_has_ended_can_be_left_alone(service: Service) -> None:
    """A wait for many need not describe jobs that have ended until the last one has."""
    running(service, 2)
    watcher = service.watcher()
    with watcher.subscribe(["job-0", "job-1"], 10) as wait:
        await anext(wait)
        await anext(wait)
        watcher.unsubscribe("job-0", wait)
        await until(15)
    assert service.sizes() == [2, 1]
