"""Jobs that a call for several does not reach: asked for alone, at once, and with the same invariants."""

from __future__ import annotations

import pytest

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound
from airflow_jobflow.polling.schedule import PollSchedule
from airflow_jobflow.polling.subscription import PolledJob
from tests.unit.polling.scripted import Service, Waiter, gaps, leave, until


def ids(service: Service) -> list[tuple[str, ...]]:
    """What each call asked about."""
    return [call.ids for call in service.calls]


@pytest.fixture
def deep(service: Service) -> Service:
    """A service with two jobs of which calls for several reach only the first."""
    service.states |= {"near": "RUNNING", "far": "RUNNING"}
    service.deep = {"far", "farther"}
    return service


async def test_a_job_that_lies_deep_is_asked_for_alone_right_after(deep: Service) -> None:
    """And answered within the second in which a new wait is served."""
    watcher = deep.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(1)
    assert ids(deep) == [("near", "far"), ("far",)]
    assert [waiter.news() for waiter in waiters] == [["RUNNING"], ["RUNNING"]]
    await leave(waiters)


async def test_a_job_that_lies_deep_keeps_step_with_the_others(deep: Service) -> None:
    """Each round costs one call more for it, and none for the others."""
    watcher = deep.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(35)
    assert [len(call) for call in ids(deep)] == [2, 1] * 4
    assert min(gaps(deep.times("near"))) >= 9
    deep.states["far"] = "SUCCEEDED"
    await until(41)
    assert waiters[1].news() == ["RUNNING", "SUCCEEDED"]
    await leave(waiters)


async def test_a_job_that_is_waited_for_alone_is_asked_for_once_a_round(deep: Service) -> None:
    """There is nothing to share a call with."""
    waiter = Waiter(deep.watcher(), "far", 10)
    await until(25)
    assert ids(deep) == [("far",)] * 3
    await leave([waiter])


async def test_a_job_that_is_unknown_also_alone_vanishes_after_the_grace(deep: Service) -> None:
    """That a call for several does not reach it is neither a trace of it nor the lack of one."""
    watcher = deep.watcher(missing_grace=30)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "farther")]
    await until(25)
    assert waiters[1].news() == []
    await until(45)
    assert isinstance(waiters[1].error, NotFound)
    assert waiters[0].news() == ["RUNNING"]
    await leave(waiters)


async def test_a_job_that_is_deep_only_after_a_while_is_followed(deep: Service) -> None:
    """Newer ones have pushed it down."""
    deep.deep = set()
    watcher = deep.watcher(missing_grace=5)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(5)
    deep.deep = {"far"}
    deep.states["far"] = "SUCCEEDED"
    await until(12)
    assert waiters[1].news() == ["RUNNING", "SUCCEEDED"]
    await leave(waiters)


async def test_a_wait_that_leaves_before_it_is_asked_for_alone_costs_no_call(deep: Service) -> None:
    """Nobody wants to know any more."""
    watcher = deep.watcher(calls_per_second=0.5)
    waiters = [Waiter(watcher, name, 100) for name in ("near", "far")]
    await until(1)
    await leave([waiters[1]])
    await until(20)
    assert ids(deep) == [("near", "far")]
    await leave(waiters)


async def test_calls_for_one_are_spaced_by_the_budget_like_all(deep: Service) -> None:
    """A hundred that lie deep are asked for one after the other, and all are heard of."""
    many = [f"far-{number}" for number in range(100)]
    deep.states |= dict.fromkeys(many, "RUNNING")
    deep.deep = set(many)
    watcher = deep.watcher()
    waiters = [Waiter(watcher, name, 100) for name in many]
    await until(25)
    assert min(gaps(deep.times())) >= 0.2 - 1e-9
    assert sorted(ids(deep)[1:]) == sorted((name,) for name in many)
    assert all(waiter.news() == ["RUNNING"] for waiter in waiters)
    await leave(waiters)


async def test_calls_for_one_do_not_hold_up_new_waits(deep: Service) -> None:
    """They take turns with what is new."""
    many = [f"far-{number}" for number in range(100)]
    deep.states |= dict.fromkeys(many, "RUNNING")
    deep.deep = set(many)
    watcher = deep.watcher()
    waiters = [Waiter(watcher, name, 100) for name in many]
    await until(5)
    new = Waiter(watcher, "near", 100)
    await until(6)
    assert new.news() == ["RUNNING"]
    await leave([*waiters, new])


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT, Fault.CREDENTIALS])
async def test_a_call_for_one_that_fails_in_passing_is_made_again(fault: Fault) -> None:
    """It fails no wait."""
    service = Service({"near": "RUNNING", "far": "RUNNING"}, deep={"far"})
    watcher = service.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(0.6)
    service.plan.append(fault)
    await until(15)
    assert [waiter.news() for waiter in waiters] == [["RUNNING"], ["RUNNING"]]
    await leave(waiters)


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.DENIED, Fault.SCOPE_NOT_FOUND])
async def test_a_call_for_one_that_is_refused_fails_that_one(fault: Fault) -> None:
    """The others were answered."""
    service = Service({"near": "RUNNING", "far": "RUNNING"}, deep={"far"})
    watcher = service.watcher(denied_grace=0)
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(0.6)
    service.plan.append(fault)
    await until(5)
    assert isinstance(waiters[1].error, DescribeRejected)
    assert waiters[0].news() == ["RUNNING"]
    await leave(waiters)


async def test_a_new_wait_for_a_job_that_is_being_asked_for_alone_is_told(deep: Service) -> None:
    """Whichever of the calls about it answers last."""
    deep.latency = 3.0
    watcher = deep.watcher()
    waiters = [Waiter(watcher, name, 10) for name in ("near", "far")]
    await until(4)
    late = Waiter(watcher, "far", 10)
    await until(12)
    assert [waiter.news() for waiter in (*waiters, late)] == [["RUNNING"]] * 3
    await until(60)
    assert min(gaps(sorted({call.at for call in deep.calls if call.ids == ("far",)})[2:])) >= 9
    await leave([*waiters, late])


def test_only_a_job_that_is_not_described_already_is_scheduled_alone() -> None:
    """Not one that is scheduled, in a newer call, or removed."""
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


def test_a_job_that_is_due_alone_is_popped_although_the_last_one_was_alone() -> None:
    """A turn of the rate limiter must not be wasted: with many scopes it takes a minute to come."""
    schedule: PollSchedule[str] = PollSchedule(100)
    several: list[PolledJob[str]] = [PolledJob(name, order) for order, name in enumerate("ab")]
    for job in several:
        schedule.reschedule_single(job, 1.0)
    assert schedule.due_in(2.0) <= 0
    assert [schedule.pop_batch(2.0), schedule.pop_batch(2.0)] == [[several[0]], [several[1]]]


def test_outdated_entries_of_the_schedule_do_not_count_as_due() -> None:
    """Those of jobs that were removed or rescheduled."""
    schedule: PollSchedule[str] = PollSchedule(100)
    gone, moved, new = (PolledJob[str](name, order) for order, name in enumerate("abc"))
    for job in (gone, moved):
        schedule.schedule(job, 1.0, sent_at=0.0)
    schedule.add_new(new, 0.0)
    schedule.reschedule_single(moved, 9.0)
    gone.removed = new.removed = True
    assert schedule.due_in(2.0) == 7.0
