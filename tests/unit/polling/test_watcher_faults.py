"""What faults of calls do to waits, each in a scenario on a scripted clock.

By default, the budget is 5 calls per second, a new wait is served after half a second, and polls happen at multiples of
the interval.
"""

from __future__ import annotations

from collections import deque

import pytest

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from tests.unit.polling.scripted import (
    Misbehaviour,
    Service,
    Waiter,
    cancel_waits,
    gaps,
    jobs,
    now,
    running,
    until,
)

# Transient faults.


async def test_throttling_halves_the_rate_and_it_recovers(service: Service) -> None:
    """After one throttled call, calls are twice as far apart; a minute later, they are as before."""
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
    assert not any(isinstance(news, WatchError) for news in waiter.seen())
    await cancel_waits([waiter])


async def test_a_recovered_rate_is_used(service: Service) -> None:
    """Jobs that were delayed at the low rate are not delayed further."""
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(10.1)
    service.plan.append(Fault.THROTTLED)
    await until(150)
    assert max(gaps(service.times())) <= 1.0
    await cancel_waits([waiter])


async def test_continued_throttling_fails_no_wait(service: Service) -> None:
    """An hour of throttling makes calls rare; the first response reaches the wait."""
    running(service, 1)
    waiter = Waiter(service.watcher(), "job-0", 10)
    service.plan.extend([Fault.THROTTLED] * 300)
    await until(3600)
    assert len(service.calls) > 300
    assert waiter.seen() == ["RUNNING"]
    assert max(gaps(service.times())) <= 20
    await cancel_waits([waiter])


async def test_a_throttled_call_is_retried(service: Service) -> None:
    """Its jobs do not wait for a whole interval."""
    running(service, 1)
    service.plan.append(Fault.THROTTLED)
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(2)
    assert waiter.seen() == ["RUNNING"]
    await cancel_waits([waiter])


async def test_a_transient_fault_is_retried_after_growing_pauses(service: Service) -> None:
    """A service that is down is called after 1, 2, 4 … 30 s, but no later than after the wait's interval."""
    running(service, 1)
    service.plan.extend([Fault.TRANSIENT] * 8)
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(200)
    assert list(gaps(service.times()[:9])) == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    assert waiter.seen() == ["RUNNING"]
    await cancel_waits([waiter])


async def test_pauses_start_again_after_a_response(service: Service) -> None:
    """A past outage does not lengthen the next pause."""
    running(service, 1)
    service.plan.extend([Fault.TRANSIENT] * 5)
    waiter = Waiter(service.watcher(), "job-0", 10)
    await until(60)
    service.plan.append(Fault.TRANSIENT)
    await until(75)
    at = next(call.at for call in service.calls if call.at >= 60 and call.answers is None)
    assert at + 1 in service.times()
    await cancel_waits([waiter])


async def test_denied_calls_fail_no_wait_within_the_grace_period(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Five hundred waits survive denials of 3 s and of 60 s, and the log has one warning for each."""
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
        assert all(waiter.seen()[-1] == f"after {began}" for waiter in waiters)
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "Describe calls fail and will be repeated for up to 300 s: scripted: denied"
        ]
    assert min(gaps(service.times())) >= 0.2 - 1e-6
    await cancel_waits(waiters)


async def test_one_denied_job_among_others_is_logged_once(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The responses for the others do not mean that its calls have recovered."""
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
    await cancel_waits(waiters)


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.TRANSIENT, Fault.SCOPE_NOT_FOUND])
async def test_after_an_outage_every_wait_sees_its_job_within_two_intervals(fault: Fault) -> None:
    """A thousand waits with an interval of 10 s recover after 50 s without responses."""
    service = Service()
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 1000)]
    await until(33)
    service.down = fault
    await until(83)
    service.down = None
    service.states |= dict.fromkeys(jobs(1000), "SUCCEEDED")
    await until(103)
    assert all(waiter.seen() == ["RUNNING", "SUCCEEDED"] for waiter in waiters)
    await cancel_waits(waiters)


@pytest.mark.parametrize(
    ("fault", "grace"),
    [(Fault.DENIED, 300), (Fault.CREDENTIALS, 300), (Fault.SCOPE_NOT_FOUND, 60), (Fault.REJECTED, 60)],
)
@pytest.mark.parametrize("together", [1, 20])
async def test_a_lasting_rejection_fails_the_waits_after_the_grace_period(
    fault: Fault, grace: float, together: int
) -> None:
    """The error has the reason, the duration and the number of calls."""
    service = Service(down=fault)
    waiters = [Waiter(service.watcher(), job_id, 10) for job_id in running(service, together)]
    await until(grace)
    assert not any(waiter.received for waiter in waiters)
    await until(grace + 32)
    for waiter in waiters:
        assert isinstance(waiter.error, DescribeRejected)
        assert waiter.error.fault is fault
        assert waiter.error.seconds >= grace
        assert waiter.error.refusals >= 3
        assert f"{waiter.error.refusals} describe calls in {waiter.error.seconds:.0f} s failed" in str(waiter.error)
    await cancel_waits(waiters)


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND, Fault.REJECTED])
async def test_without_a_grace_period_the_first_denial_fails_the_wait(fault: Fault) -> None:
    """A grace period of 0 s is a setting."""
    service = Service(down=fault)
    waiter = Waiter(service.watcher(denied_grace=0), running(service, 1), 10)
    await until(1)
    assert isinstance(waiter.error, DescribeRejected)
    assert len(service.calls) == 1
    await cancel_waits([waiter])


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND, Fault.REJECTED])
async def test_one_rejection_of_a_single_job_fails_no_wait(fault: Fault) -> None:
    """It may be a proxy's page, a cluster that one request does not find, or an unknown 400."""
    service = Service(plan=deque([fault]))
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(3)
    assert waiter.seen() == ["RUNNING"]
    await cancel_waits([waiter])


async def test_a_rarely_polled_job_is_rejected_several_times_before_its_wait_fails(service: Service) -> None:
    """The interval is longer than the grace period."""
    service.down = Fault.REJECTED
    waiter = Waiter(service.watcher(), running(service, 1), 600)
    await until(200)
    assert isinstance(waiter.error, DescribeRejected)
    assert waiter.error.seconds >= 60
    assert len(service.calls) >= 3
    await cancel_waits([waiter])


async def test_an_outage_between_two_denials_does_not_count_as_denied(service: Service) -> None:
    """A denial before it and one after it are not five minutes of denials."""
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(5)
    service.down = Fault.CREDENTIALS
    await until(30)
    service.down = Fault.TRANSIENT
    await until(600)
    service.down = Fault.CREDENTIALS
    await until(800)
    assert waiter.seen() == ["RUNNING"]
    service.down = None
    service.states["job-0"] = "SUCCEEDED"
    await until(820)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await cancel_waits([waiter])


async def test_the_grace_period_restarts_after_a_response(service: Service) -> None:
    """Two short denials are not one long denial."""
    waiter = Waiter(service.watcher(denied_grace=60), running(service, 1), 10)
    for _ in range(10):
        service.down = Fault.DENIED
        await until(now() + 50)
        service.down = None
        await until(now() + 15)
    assert waiter.seen() == ["RUNNING"]
    await cancel_waits([waiter])


async def test_calls_for_single_jobs_are_rare_while_everything_is_denied(service: Service) -> None:
    """After the first ones, one call per second detects the end of the denials."""
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 1000)]
    await until(30)
    service.down = Fault.DENIED
    await until(130)
    assert len([call for call in service.calls if call.at > 50 and len(call.ids) == 1]) <= 81 + 8 * 9
    await cancel_waits(waiters)


# Hanging calls.


async def test_a_call_without_a_response_is_repeated(service: Service) -> None:
    """Its jobs are described again."""
    running(service, 1)
    service.plan.append(Misbehaviour.HANG)
    service.request_timeout = 7
    waiter = Waiter(service.watcher(), "job-0", 60)
    await until(20)
    assert service.calls[0].ended_at == pytest.approx(7.5)
    assert waiter.seen() == ["RUNNING"]
    assert waiter.received[0][0] == pytest.approx(8.5)
    await cancel_waits([waiter])


async def test_a_hanging_call_does_not_delay_other_jobs(service: Service) -> None:
    """Other jobs are described on time while one call hangs."""
    watcher = service.watcher(batch_size=10)
    service.hanging = {"job-0"}
    waiters = [Waiter(watcher, job_id, 2) for job_id in running(service, 30)]
    await until(21)
    for waiter in waiters[10:]:
        assert waiter.seen() == ["RUNNING"]
        assert max(gaps(service.times(waiter.job_ids[0])[1:])) <= 2.2
    await cancel_waits(waiters)


async def test_a_hanging_call_does_not_delay_a_new_wait_for_the_same_job(service: Service) -> None:
    """The new wait gets its own call, whose response also reaches the older wait."""
    running(service, 1)
    service.plan.append(Misbehaviour.HANG)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(5)
    second = Waiter(watcher, "job-0", 10)
    await until(6)
    assert first.seen() == second.seen() == ["RUNNING"]
    await cancel_waits([first, second])


# Rejected calls.


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.DENIED])
@pytest.mark.parametrize("bad", [{"job-0"}, {"job-99"}, {"job-49", "job-50"}, {"job-3", "job-42", "job-77"}])
async def test_a_rejected_call_is_split_until_only_the_bad_jobs_waits_fail(bad: set[str], fault: Fault) -> None:
    """Neither a bad id nor a denied job affects the ninety-nine other jobs of the call."""
    service = Service(bad=bad, fault=fault)
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 60) for job_id in running(service, 100)]
    await until(20)
    for waiter in waiters:
        assert waiter.seen() == ([] if waiter.job_ids[0] in bad else ["RUNNING"])
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
            assert waiter.seen() == ["RUNNING"]
    await cancel_waits(waiters)


async def test_if_all_calls_are_denied_all_waits_fail_after_the_grace_period(service: Service) -> None:
    """Ten thousand jobs are not described one by one before."""
    service.bad, service.fault = set(jobs(10_000)), Fault.DENIED
    waiter = Waiter(service.watcher(), running(service, 10_000), 10)
    await until(360)
    assert len(waiter.received) == 10_000
    assert len(service.calls) <= 5 * 360
    await cancel_waits([waiter])


async def test_without_a_grace_period_all_waits_fail_soon_if_all_calls_are_denied(service: Service) -> None:
    """Ten thousand jobs are not described one by one here either."""
    service.bad, service.fault = set(jobs(10_000)), Fault.DENIED
    waiter = Waiter(service.watcher(denied_grace=0), running(service, 10_000), 10)
    await until(60)
    assert len(waiter.received) == 10_000
    assert len(service.calls) < 200
    await cancel_waits([waiter])


@pytest.mark.parametrize("grace", [0, 100])
async def test_denials_of_some_jobs_are_not_mistaken_for_a_denial_of_all(grace: float) -> None:
    """A successful call in between shows that not all calls are denied."""
    service = Service(bad=set(jobs(100)[::2]), fault=Fault.DENIED)
    waiters = [Waiter(service.watcher(denied_grace=grace), job_id, 600) for job_id in running(service, 100)]
    await until(200)
    heard = [waiter.received[-1][2] for waiter in waiters]
    assert [isinstance(news, DescribeRejected) for news in heard] == [True, False] * 50
    await cancel_waits(waiters)


async def test_the_one_good_job_among_a_hundred_is_found(service: Service) -> None:
    """All calls for several jobs are denied because of the ninety-nine others."""
    service.bad, service.fault = set(jobs(100)[:70] + jobs(100)[71:]), Fault.DENIED
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 100)]
    await until(400)
    assert waiters[70].seen() == ["RUNNING"]
    assert all(isinstance(waiter.error, DescribeRejected) for waiter in waiters if waiter is not waiters[70])
    await cancel_waits(waiters)


async def test_a_wait_fails_only_after_a_rejected_call_for_its_job_alone(service: Service) -> None:
    """A job is not bad because it shares a call with bad ones."""
    service.bad, service.fault = set(jobs(300)[::3]), Fault.DENIED
    watcher = service.watcher(calls_per_second=1)
    waiters = [Waiter(watcher, job_id, 10) for job_id in running(service, 300)]
    await until(1500)
    for waiter in waiters:
        if waiter.job_ids[0] in service.bad:
            assert isinstance(waiter.error, DescribeRejected)
            assert any(call.ids == tuple(waiter.job_ids) for call in service.calls)
        else:
            assert waiter.seen() == ["RUNNING"]
    await cancel_waits(waiters)


async def test_a_wait_cancelled_during_a_split_is_not_described_again(service: Service) -> None:
    """The rest of the split continues without it."""
    service.bad = {"job-0", "job-7"}
    watcher = service.watcher()
    waiters = [Waiter(watcher, job_id, 60) for job_id in running(service, 8)]
    await until(0.6)
    await cancel_waits(waiters[4:])
    calls = len(service.calls)
    await until(10)
    assert not {job_id for call in service.calls[calls:] for job_id in call.ids} & set(jobs(8)[4:])
    assert all(waiter.seen() == ["RUNNING"] for waiter in waiters[1:4])
    await cancel_waits(waiters[:4])


# Jobs that the service does not know.


async def test_a_missing_job_fails_its_wait_after_the_grace_period(service: Service) -> None:
    """The grace period starts with the first call that did not find the job."""
    running(service, 1)
    watcher = service.watcher(missing_grace=33)
    good, missing = Waiter(watcher, "job-0", 10), Waiter(watcher, "missing", 10)
    await until(33.4)
    assert missing.received == []
    await until(34)
    assert isinstance(missing.error, NotFound)
    assert missing.error.job_id == "missing"
    assert missing.error.seconds == pytest.approx(33)
    assert str(missing.error) == "not found in AWS for 33 s"
    assert missing.received[0][0] == pytest.approx(33.5, abs=0.01)
    assert good.seen() == ["RUNNING"]
    await cancel_waits([good, missing])


async def test_a_job_that_appears_within_the_grace_period_is_published(service: Service) -> None:
    """A job that was just submitted may be missing for a while."""
    waiter = Waiter(service.watcher(missing_grace=60), "job-0", 10)
    await until(35)
    running(service, 1)
    await until(45)
    assert waiter.seen() == ["RUNNING"]
    assert waiter.received[0][0] == pytest.approx(40)
    await cancel_waits([waiter])


async def test_the_grace_period_of_a_missing_job_restarts_when_it_appears(service: Service) -> None:
    """Two short absences are not one long absence."""
    waiter = Waiter(service.watcher(missing_grace=60), "job-0", 10)
    for absent in (True, False, True, False):
        service.states = {} if absent else {"job-0": "RUNNING"}
        await until(now() + 50)
    assert waiter.seen() == ["RUNNING"]
    await cancel_waits([waiter])


async def test_without_a_grace_period_a_missing_job_fails_its_wait_at_once(service: Service) -> None:
    """A grace period of 0 s is a setting."""
    waiter = Waiter(service.watcher(missing_grace=0), "missing", 10)
    await until(1)
    assert isinstance(waiter.error, NotFound)
    await cancel_waits([waiter])
