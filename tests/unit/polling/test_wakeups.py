"""What events do to waits, each promise in a story on a scripted clock.

Unless a story says otherwise a wait's interval is 10 s, ``event_poll_interval`` 300 s, and the queue answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import KeysView, Mapping

import pytest

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.schedule import EVENT_LAG
from airflow_jobflow.polling.wakeups import LONG_POLL, MAX_RECEIVES, RELEASE_PAUSE, Listener
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import Service, Waiter, gaps, leave, now, settle, until
from tests.unit.polling.scripted_queue import FORGOTTEN, Event, Queue, about


def jobs(count: int) -> list[str]:
    """Return the ids of some jobs."""
    return [f"job-{number}" for number in range(count)]


def running(service: Service, count: int) -> list[str]:
    """Let jobs run in the service, and return their ids."""
    service.states |= dict.fromkeys(jobs(count), "RUNNING")
    return jobs(count)


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the log has warned of."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class World:
    """A service, a queue of its events, and what watches and listens."""

    def __init__(self, service: Service, queue: Queue | None = None) -> None:
        self.service = service
        self.queue = queue or Queue()
        self.watcher: Watcher[str] = service.watcher()
        self.listener: Listener[Event] = self.queue.listener()
        self.listener.subscribe(self.watcher, about)
        self.waiters: list[Waiter] = []

    def wait(self, *job_ids: str, interval: float = 10.0) -> Waiter:
        """Let a wait join."""
        self.waiters.append(Waiter(self.watcher, job_ids, interval))
        return self.waiters[-1]

    async def over(self) -> None:
        """Let all waits leave, and the listener end with the watcher."""
        await leave(self.waiters)
        self.listener.unsubscribe(self.watcher)
        await settle()
        assert self.listener.ended
        assert len(self.queue.closed) == 1


# How often a job is described while events are received


async def test_without_events_a_job_is_polled_at_event_poll_interval(service: Service) -> None:
    """After the first calls, which are closer together: an event may have come before the wait."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(1000)
    assert service.times() == [0.5, 10, 20, 300, 600, 900]
    await world.over()


async def test_an_interval_longer_than_event_poll_interval_is_kept(service: Service) -> None:
    """It makes no wait faster."""
    running(service, 1)
    world = World(service)
    world.wait("job-0", interval=500)
    await until(1600)
    assert service.times() == [0.5, 500, 1000, 1500]
    await world.over()


async def test_a_hundred_waits_cost_less_than_a_call_a_minute(service: Service) -> None:
    """They share their calls, whenever they have subscribed."""
    world = World(service)
    for job_id in running(service, 100):
        world.wait(job_id)
        await until(now() + 0.7)
    await until(300)
    before = len(service.calls)
    await until(3600)
    assert len(service.calls) - before <= 55 * 1.1 / 5
    await world.over()


async def test_event_poll_interval_leaves_the_budget_to_many_more_waits(service: Service) -> None:
    """Ten thousand waits would need twice the budget at their own pace; at the slow one nothing is stretched."""
    world = World(service)
    world.wait(*running(service, 10_000))
    await until(2000)
    for job_id in jobs(10_000)[::999]:
        late = [at for at in service.times(job_id) if at > 400]
        assert max(gaps(late)) <= 330
    await world.over()


# Being woken


async def test_an_event_has_its_job_described_at_once(service: Service) -> None:
    """And the wait receives what the call returns."""
    running(service, 2)
    world = World(service)
    waiter, other = world.wait("job-0"), world.wait("job-1")
    await until(100)
    service.states["job-0"] = "SUCCEEDED"
    world.queue.send_event("job-0")
    await until(100.5)
    assert waiter.heard[-1] == (100, "job-0", "SUCCEEDED")
    assert service.calls[-1].ids == ("job-0",)
    assert other.news() == ["RUNNING"]
    assert not world.queue.letters
    await world.over()


async def test_events_of_one_receive_share_a_look(service: Service) -> None:
    """Ten jobs that end together cost one call."""
    world = World(service)
    for job_id in running(service, 10):
        world.wait(job_id)
    await until(100)
    before = len(service.calls)
    for job_id in jobs(10):
        service.states[job_id] = "SUCCEEDED"
        world.queue.send_event(job_id)
    await until(100.5)
    assert [len(call.ids) for call in service.calls[before:]] == [10]
    await world.over()


async def test_a_false_event_ends_no_wait(service: Service) -> None:
    """A wait receives only what a call returns."""
    running(service, 1)
    world = World(service)
    waiter = world.wait("job-0")
    await until(100)
    world.queue.send_event("job-0")
    await until(200)
    assert waiter.news() == ["RUNNING"]
    await world.over()


async def test_an_end_that_is_described_later_than_told_is_not_left_to_event_poll_interval(service: Service) -> None:
    """For a while after an event the job is polled at the interval of its wait; then slowly again."""
    running(service, 1)
    world = World(service)
    waiter = world.wait("job-0")
    await until(103)
    world.queue.send_event("job-0")
    await until(103 + EVENT_LAG)
    service.states["job-0"] = "SUCCEEDED"
    await until(103 + EVENT_LAG + 10)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await until(500)
    assert [at for at in service.times() if at > 100] == [103, 112, 121, 130, 300]
    await world.over()


async def test_a_call_that_was_under_way_when_the_event_came_does_not_count(service: Service) -> None:
    """It may have been answered before the change."""
    running(service, 1)
    service.latency = 5.0
    world = World(service)
    waiter = world.wait("job-0")
    await until(303)
    service.states["job-0"] = "SUCCEEDED"
    service.latency = 0.0
    world.queue.send_event("job-0")
    await until(304)
    assert service.times()[-2:] == [300, 303]
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await world.over()


async def test_an_event_of_a_change_that_is_no_end_can_wait_for_the_interval(service: Service) -> None:
    """It shares a call with other jobs: a job has several such changes, and no wait ends with them."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(103)
    world.queue.send_event("job-0", at_once=False)
    await until(115)
    assert service.times()[-1] == 110
    await world.over()


async def test_a_thousand_events_of_a_job_cost_a_call_a_second_at_most(service: Service) -> None:
    """Such as false ones of its end."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    for _ in range(1000):
        world.queue.send_event("job-0")
        await until(now() + 0.05)
    polls = [at for at in service.times() if at >= 100]
    assert min(gaps(polls)) >= 1 - 1e-6
    assert len(polls) >= 49
    await world.over()


async def test_ten_thousand_children_cost_their_array_a_call_an_interval(service: Service) -> None:
    """Their events are about the array, too."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    for _ in range(1000):
        world.queue.send_event("job-0", at_once=False)
        await until(now() + 0.05)
    assert [at for at in service.times() if at >= 100] == [110, 120, 130, 140, 150]
    await world.over()


async def test_an_event_before_its_wait_joins_is_made_up_for(service: Service) -> None:
    """The first calls find the change, even if they lag behind."""
    running(service, 2)
    world = World(service)
    world.wait("job-1")
    await until(100)
    world.queue.send_event("job-0")
    await until(110)
    assert "2" not in world.queue.letters
    waiter = world.wait("job-0")
    await until(112)
    service.states["job-0"] = "SUCCEEDED"
    await until(121)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await world.over()


async def test_a_lost_event_costs_no_more_than_event_poll_interval(service: Service) -> None:
    """The rare polls find the end."""
    running(service, 1)
    world = World(service)
    waiter = world.wait("job-0")
    await until(301)
    service.states["job-0"] = "SUCCEEDED"
    await until(601)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await world.over()


async def test_a_job_that_is_unknown_is_described_at_its_own_pace_until_it_is_known(service: Service) -> None:
    """One just submitted may be unknown for a while, and its wait wants to know when it has vanished."""
    world = World(service)
    waiter = world.wait("job-0")
    await until(95)
    assert len(service.calls) == 10
    service.states["job-0"] = "RUNNING"
    await until(101)
    assert waiter.news() == ["RUNNING"]
    await world.over()


# What becomes of messages


async def test_a_message_that_nobody_waits_for_goes_back_until_it_was_received_three_times(service: Service) -> None:
    """Another process may wait for it; after that it is nobody's."""
    world = World(service)
    world.wait(*running(service, 1))
    await until(100)
    world.queue.send_event("another's")
    await until(110)
    assert [at for at, _ in world.queue.received] == [100, 100 + RELEASE_PAUSE, 100 + 2 * RELEASE_PAUSE]
    assert len(world.queue.received) == MAX_RECEIVES
    assert not world.queue.letters
    assert service.times()[-1] < 100
    await world.over()


async def test_two_processes_on_one_queue_each_hear_of_their_own(service: Service) -> None:
    """What the one receives for the other goes back."""
    running(service, 2)
    queue = Queue()
    worlds = [World(service, queue), World(service, queue)]
    waiters = [world.wait(job_id) for world, job_id in zip(worlds, jobs(2), strict=True)]
    await until(100)
    service.states |= dict.fromkeys(jobs(2), "SUCCEEDED")
    for job_id in jobs(2):
        queue.send_event(job_id)
    await until(110)
    assert [waiter.news() for waiter in waiters] == [["RUNNING", "SUCCEEDED"]] * 2
    assert not queue.letters
    for world in worlds:
        await leave(world.waiters)
        world.listener.unsubscribe(world.watcher)
    await settle()


async def test_what_tells_of_no_job_is_deleted_and_said_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """However much of it comes."""
    world = World(service)
    world.wait(*running(service, 1))
    await until(100)
    for _ in range(50):
        world.queue.send(None)
    await until(110)
    assert not world.queue.letters
    assert [record.message for record in caplog.records if "about no job" in record.message] == [
        "Deleted a message about no job from the event queue; others like it are deleted silently: 'an excerpt'"
    ]
    await world.over()


async def test_messages_that_cannot_be_deleted_wake_all_the_same(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """They come again, which the log says once; the pace stays slow, and the queue is not asked without a rest."""
    running(service, 1)
    world = World(service)
    waiter = world.wait("job-0")
    await until(100)
    world.queue.untidy = Fault.DENIED
    service.states["job-0"] = "SUCCEEDED"
    for _ in range(30):
        world.queue.send_event("job-0")
        world.queue.send_event("another's")
    await until(100 + FORGOTTEN * 2)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    assert sum("cannot" in record.message or "not delete" in record.message for record in caplog.records) == 1
    assert min(gaps([at for at in world.queue.receives if at > 100])) >= 1
    await world.over()


async def test_a_failed_delete_does_not_keep_messages_from_other_processes(service: Service) -> None:
    """They are released at once. SQS reports a delete that failed for one message of ten as a failure."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    world.queue.undeletable = Fault.TRANSIENT
    world.queue.send_event("job-0")
    world.queue.send_event("another's")
    await until(101)
    own, others = world.queue.letters.values()
    assert (own.receives, own.hidden_until > now()) == (1, True)
    assert others.hidden_until <= now()
    await world.over()


# The queue out of reach


async def test_a_queue_out_of_reach_brings_the_waits_own_pace_and_one_warning(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """When it can be read again, all jobs are polled once, because messages may have been lost."""
    caplog.set_level(logging.INFO)
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(305)
    world.queue.down = Fault.TRANSIENT
    await until(500)
    assert [at for at in service.times() if at > 350] == [360 + 10 * turn for turn in range(15)]
    assert next(at for at in service.times() if at > 300) <= 305 + LONG_POLL + 1 + 10
    world.queue.down = None
    await until(1100)
    again = next(at for at in world.queue.receives if at >= 500)
    assert [at for at in service.times() if again + EVENT_LAG + 20 < at] == [600, 900]
    said = [record.message for record in caplog.records if "events" in record.message]
    assert said == [
        "Receiving events: jobs without events are polled every 300 s",
        "Cannot receive events; until that works, jobs are polled at their own poll_interval: scripted: transient",
        "Receiving events: jobs without events are polled every 300 s",
    ]
    await world.over()


@pytest.mark.parametrize(
    "fault", [Fault.REJECTED, Fault.DENIED, Fault.SCOPE_NOT_FOUND, Fault.THROTTLED, Fault.TRANSIENT]
)
async def test_a_queue_that_never_answers_is_asked_less_and_less_often(
    service: Service, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be made, or allowed, later; the waits do not notice."""
    running(service, 1)
    world = World(service, Queue(down=fault))
    world.wait("job-0")
    await until(400)
    assert len(service.calls) == 41
    assert list(gaps(world.queue.receives))[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert len(warnings(caplog)) == 1
    await world.over()


async def test_one_lost_connection_costs_nothing(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """It causes neither a call nor a log line."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    world.queue.plan.append(Fault.TRANSIENT)
    await until(290)
    assert service.times() == [0.5, 10, 20]
    assert not warnings(caplog)
    await world.over()


async def test_credentials_that_expire_cost_one_receive(service: Service) -> None:
    """The next one has a client of its own."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    world.queue.plan.append(Fault.CREDENTIALS)
    await until(200)
    assert service.times() == [0.5, 10, 20]
    await world.over()


async def test_no_queue_is_no_news(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The listener ends without a word, and the waits keep their own pace."""
    running(service, 1)
    world = World(service, Queue(exists=False))
    world.wait("job-0")
    await until(45)
    assert service.times() == [0.5, 10, 20, 30, 40]
    assert world.listener.ended
    assert not warnings(caplog)
    await world.over()


async def test_a_bug_is_said_and_brings_the_waits_own_pace(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """What listens goes on: the next message may be a better one."""
    running(service, 1)
    world = World(service)
    waiter = world.wait("job-0")
    await until(300.5)
    world.queue.plan.extend([RuntimeError("a bug")] * 8)
    await until(400)
    assert [at for at in service.times() if at > 340] == [350, 360, 370, 380, 390, 400]
    assert [record.exc_info is not None for record in warnings(caplog)] == [True]
    await until(600)
    service.states["job-0"] = "SUCCEEDED"
    world.queue.send_event("job-0")
    await until(601)
    assert waiter.news() == ["RUNNING", "SUCCEEDED"]
    await world.over()


async def test_a_listener_that_is_stopped_leaves_the_watchers_at_their_own_pace(service: Service) -> None:
    """Whatever has stopped it."""
    running(service, 1)
    world = World(service)
    world.wait("job-0")
    await until(100)
    assert world.listener._task is not None
    world.listener._task.cancel()
    await until(145)
    assert [at for at in service.times() if at > 100] == [110, 120, 130, 140]
    assert world.listener.ended
    await world.over()


# Who listens


async def test_watchers_that_come_later_share_the_listener_and_the_last_one_ends_it(service: Service) -> None:
    """One receive at a time, whatever the number of watchers."""
    running(service, 2)
    world = World(service)
    first = world.wait("job-0")
    await until(100)
    other_watcher = service.watcher()
    world.listener.subscribe(other_watcher, about)
    second = Waiter(other_watcher, "job-1", 10)
    await until(200)
    service.states |= dict.fromkeys(jobs(2), "SUCCEEDED")
    for job_id in jobs(2):
        world.queue.send_event(job_id)
    await until(201)
    assert first.news() == second.news() == ["RUNNING", "SUCCEEDED"]
    assert [at for at in service.times("job-1") if at < 200] == [100.5, 110, 120]
    world.listener.unsubscribe(other_watcher)
    await leave([second])
    assert not world.listener.ended
    await world.over()
    with pytest.raises(RuntimeError):
        world.listener.subscribe(other_watcher, about)


async def test_what_is_logged_lands_in_no_tasks_log(service: Service) -> None:
    """The listener has a context of its own."""
    contexts: list[contextvars.Context] = []
    whose = contextvars.ContextVar("whose", default="nobody's")
    whose.set("a task's")
    world = World(service)

    def note(event: Event, known: KeysView[str]) -> Mapping[str, bool]:
        contexts.append(contextvars.copy_context())
        return about(event, known)

    world.listener.subscribe(world.watcher, note)
    world.wait(*running(service, 1))
    world.queue.send_event("job-0")
    await until(1)
    assert {whose in context for context in contexts} == {False}
    await world.over()


async def test_a_watcher_can_be_woken_by_whoever_knows_of_a_change(service: Service) -> None:
    """Also one that nobody listens for; and of a job that nobody waits for nothing comes."""
    running(service, 1)
    watcher = service.watcher()
    waiter = Waiter(watcher, "job-0", 100)
    await until(50)
    assert list(watcher.job_ids) == ["job-0"]
    watcher.wake("job-0", at_once=True)
    watcher.wake("another's", at_once=True)
    await asyncio.sleep(0.1)
    assert service.times() == [0.5, 50]
    await leave([waiter])
