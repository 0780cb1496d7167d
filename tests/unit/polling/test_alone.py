"""Jobs that a call for several jobs does not find: they are described alone, at once, with the same invariants."""

from __future__ import annotations

import pytest

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound
from airflow_jobflow.polling.schedule import PollSchedule
from airflow_jobflow.polling.subscription import PolledJob
from tests.unit.polling.scripted import Service, Waiter, cancel_waits, gaps, until


def ids(service: Service) -> list[tuple[str, ...]]:
    """Return the ids in each call."""
    return [call.ids for call in service.calls]


@pytest.fixture
def unlisted(service: Service) -> Service:
    """Return a service with two jobs, of which calls for several find only the first."""
    service.states |= {"near": "RUNNING", "far": "RUNNING"}
    service.unlisted = {"far", "farther"}
    return service


async def test_an_unlisted_job_is_described_alone_immediately(unlisted: Service) -> None:
    """A new wait for it gets its response within a second, like other waits."""
    watcher = unlisted.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(1)
    assert ids(unlisted) == [("near", "far"), ("far",)]
    assert [waiter.seen() for waiter in waiters] == [["RUNNING"], ["RUNNING"]]
    await cancel_waits(waiters)


async def test_an_unlisted_job_has_the_same_interval_as_the_others(unlisted: Service) -> None:
    """Each poll cycle costs one more call for it, and none for the others."""
    watcher = unlisted.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(35)
    assert [len(call) for call in ids(unlisted)] == [2, 1] * 4
    assert min(gaps(unlisted.times("near"))) >= 9
    unlisted.states["far"] = "SUCCEEDED"
    await until(41)
    assert waiters[1].seen() == ["RUNNING", "SUCCEEDED"]
    await cancel_waits(waiters)


async def test_an_unlisted_job_without_others_is_described_once_per_cycle(unlisted: Service) -> None:
    """There is no other job to share a call with."""
    waiter = Waiter(unlisted.watcher(), "far", 10)
    await until(25)
    assert ids(unlisted) == [("far",)] * 3
    await cancel_waits([waiter])


async def test_a_job_that_is_missing_alone_too_fails_after_the_grace_period(unlisted: Service) -> None:
    """Its absence from a call for several jobs does not count, in either direction."""
    watcher = unlisted.watcher(missing_grace=30)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "farther")]
    await until(25)
    assert waiters[1].seen() == []
    await until(45)
    assert isinstance(waiters[1].error, NotFound)
    assert waiters[0].seen() == ["RUNNING"]
    await cancel_waits(waiters)


async def test_a_job_that_becomes_unlisted_is_still_described(unlisted: Service) -> None:
    """Newer jobs have pushed it down."""
    unlisted.unlisted = set()
    watcher = unlisted.watcher(missing_grace=5)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(5)
    unlisted.unlisted = {"far"}
    unlisted.states["far"] = "SUCCEEDED"
    await until(12)
    assert waiters[1].seen() == ["RUNNING", "SUCCEEDED"]
    await cancel_waits(waiters)


async def test_a_cancelled_wait_for_an_unlisted_job_costs_no_call(unlisted: Service) -> None:
    """Nobody waits for the job any more."""
    watcher = unlisted.watcher(calls_per_second=0.5)
    waiters = [Waiter(watcher, name, 100) for name in ("near", "far")]
    await until(1)
    await cancel_waits([waiters[1]])
    await until(20)
    assert ids(unlisted) == [("near", "far")]
    await cancel_waits(waiters)


async def test_calls_for_single_jobs_keep_the_budget(unlisted: Service) -> None:
    """A hundred unlisted jobs are described one after the other, and all waits get their responses."""
    many = [f"far-{number}" for number in range(100)]
    unlisted.states |= dict.fromkeys(many, "RUNNING")
    unlisted.unlisted = set(many)
    watcher = unlisted.watcher()
    waiters = [Waiter(watcher, name, 100) for name in many]
    await until(25)
    assert min(gaps(unlisted.times())) >= 0.2 - 1e-9
    assert sorted(ids(unlisted)[1:]) == sorted((name,) for name in many)
    assert all(waiter.seen() == ["RUNNING"] for waiter in waiters)
    await cancel_waits(waiters)


async def test_calls_for_single_jobs_do_not_delay_new_waits(unlisted: Service) -> None:
    """New waits take turns with unlisted jobs."""
    many = [f"far-{number}" for number in range(100)]
    unlisted.states |= dict.fromkeys(many, "RUNNING")
    unlisted.unlisted = set(many)
    watcher = unlisted.watcher()
    waiters = [Waiter(watcher, name, 100) for name in many]
    await until(5)
    new = Waiter(watcher, "near", 100)
    await until(6)
    assert new.seen() == ["RUNNING"]
    await cancel_waits([*waiters, new])


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT, Fault.CREDENTIALS])
async def test_a_call_for_a_single_job_is_retried_after_a_transient_fault(fault: Fault) -> None:
    """A transient fault fails no wait."""
    service = Service({"near": "RUNNING", "far": "RUNNING"}, unlisted={"far"})
    watcher = service.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(0.6)
    service.plan.append(fault)
    await until(15)
    assert [waiter.seen() for waiter in waiters] == [["RUNNING"], ["RUNNING"]]
    await cancel_waits(waiters)


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.DENIED, Fault.SCOPE_NOT_FOUND])
async def test_a_rejected_call_for_a_single_job_fails_its_wait(fault: Fault) -> None:
    """The other waits got responses."""
    service = Service({"near": "RUNNING", "far": "RUNNING"}, unlisted={"far"})
    watcher = service.watcher(denied_grace=0)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(0.6)
    service.plan.append(fault)
    await until(5)
    assert isinstance(waiters[1].error, DescribeRejected)
    assert waiters[0].seen() == ["RUNNING"]
    await cancel_waits(waiters)


async def test_a_new_wait_for_a_job_that_is_being_described_alone_gets_its_state(unlisted: Service) -> None:
    """The last of the overlapping responses reaches the new wait."""
    unlisted.latency = 3.0
    watcher = unlisted.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(4)
    late = Waiter(watcher, "far", 10)
    await until(12)
    assert [waiter.seen() for waiter in (*waiters, late)] == [["RUNNING"]] * 3
    await until(60)
    assert min(gaps(sorted({call.at for call in unlisted.calls if call.ids == ("far",)})[2:])) >= 9
    await cancel_waits([*waiters, late])


def test_a_job_is_not_scheduled_alone_if_that_is_not_needed() -> None:
    """A job that is already scheduled, in a newer call, or removed is not scheduled again."""
    schedule: PollSchedule[str] = PollSchedule(100)
    job: PolledJob[str] = PolledJob("a", 0)
    for name, value in (("queued", True), ("removed", True), ("sent_at", 5.0)):
        before = getattr(job, name)
        setattr(job, name, value)
        schedule.schedule_single(job, sent_at=1.0)
        assert schedule.due_in(1.0) == float("inf"), name
        setattr(job, name, before)
    schedule.schedule_single(job, sent_at=1.0)
    assert schedule.due_in(1.0) == 0
    assert schedule.pop_batch(1.0) == [job]


def test_two_single_jobs_can_be_popped_in_succession() -> None:
    """A turn of the rate limiter must not be wasted: with many scopes, the next one takes a minute to come."""
    schedule: PollSchedule[str] = PollSchedule(100)
    several: list[PolledJob[str]] = [PolledJob(name, order) for order, name in enumerate("ab")]
    for job in several:
        schedule.reschedule_single(job, 1.0)
    assert schedule.due_in(2.0) <= 0
    assert [schedule.pop_batch(2.0), schedule.pop_batch(2.0)] == [[several[0]], [several[1]]]


def test_outdated_entries_of_the_schedule_do_not_count_as_due() -> None:
    """Entries of jobs that were removed or rescheduled are ignored."""
    schedule: PollSchedule[str] = PollSchedule(100)
    gone, moved, new = (PolledJob[str](name, order) for order, name in enumerate("abc"))
    for job in (gone, moved):
        schedule.schedule(job, 1.0, sent_at=0.0)
    schedule.add_new(new, 0.0)
    schedule.reschedule_single(moved, 9.0)
    gone.removed = new.removed = True
    assert schedule.due_in(2.0) == 7.0
