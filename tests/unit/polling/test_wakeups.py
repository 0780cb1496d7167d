"""The effects of events on waits, each in a scenario on a scripted clock.

By default, a wait's interval is 10 s, ``event_poll_interval`` is 300 s, and calls to the queue succeed.
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
from tests.unit.polling.scripted import Service, Waiter, cancel_waits, gaps, jobs, now, running, settle, until
from tests.unit.polling.scripted_queue import VISIBILITY_TIMEOUT, Event, Queue, about


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the logged warnings."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class Simulation:
    """A service, a queue of its events, a watcher and a listener."""

    def __init__(self, service: Service, queue: Queue | None = None) -> None:
        self.service = service
        self.queue = queue or Queue()
        self.watcher: Watcher[str] = service.watcher()
        self.listener: Listener[Event] = self.queue.listener()
        self.listener.subscribe(self.watcher, about)
        self.waiters: list[Waiter] = []

    def wait(self, *job_ids: str, interval: float = 10.0) -> Waiter:
        """Add a wait."""
        self.waiters.append(Waiter(self.watcher, job_ids, interval))
        return self.waiters[-1]

    async def close(self) -> None:
        """Cancel all waits, and check that the listener ends with the watcher."""
        await cancel_waits(self.waiters)
        self.listener.unsubscribe(self.watcher)
        await settle()
        assert self.listener.ended
        assert len(self.queue.closed) == 1


# How often a job is described while events are received.


async def test_without_events_a_job_is_polled_at_event_poll_interval(service: Service) -> None:
    """This applies after the first calls, which are closer together: an event may have come before the wait."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(1000)
    assert service.times() == [0.5, 10, 20, 300, 600, 900]
    await simulation.close()


async def test_an_interval_longer_than_event_poll_interval_is_kept(service: Service) -> None:
    """Events make no wait poll more often."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0", interval=500)
    await until(1600)
    assert service.times() == [0.5, 500, 1000, 1500]
    await simulation.close()


async def test_a_hundred_waits_need_less_than_one_call_per_minute(service: Service) -> None:
    """They share their calls, no matter when they subscribed."""
    simulation = Simulation(service)
    for job_id in running(service, 100):
        simulation.wait(job_id)
        await until(now() + 0.7)
    await until(300)
    before = len(service.calls)
    await until(3600)
    assert len(service.calls) - before <= 55 * 1.1 / 5
    await simulation.close()


async def test_event_poll_interval_leaves_the_budget_to_many_more_waits(service: Service) -> None:
    """Ten thousand waits would need twice the budget at their own interval; at the slow one, they do not."""
    simulation = Simulation(service)
    simulation.wait(*running(service, 10_000))
    await until(2000)
    for job_id in jobs(10_000)[::999]:
        late = [at for at in service.times(job_id) if at > 400]
        assert max(gaps(late)) <= 330
    await simulation.close()


# Waking waits.


async def test_an_event_causes_a_describe_call_at_once(service: Service) -> None:
    """The wait receives the response to that call."""
    running(service, 2)
    simulation = Simulation(service)
    waiter, other = simulation.wait("job-0"), simulation.wait("job-1")
    await until(100)
    service.states["job-0"] = "SUCCEEDED"
    simulation.queue.send_event("job-0")
    await until(100.5)
    assert waiter.received[-1] == (100, "job-0", "SUCCEEDED")
    assert service.calls[-1].ids == ("job-0",)
    assert other.seen() == ["RUNNING"]
    assert not simulation.queue.messages
    await simulation.close()


async def test_events_of_one_receive_share_a_call(service: Service) -> None:
    """Ten jobs that end together need one call."""
    simulation = Simulation(service)
    for job_id in running(service, 10):
        simulation.wait(job_id)
    await until(100)
    before = len(service.calls)
    for job_id in jobs(10):
        service.states[job_id] = "SUCCEEDED"
        simulation.queue.send_event(job_id)
    await until(100.5)
    assert [len(call.ids) for call in service.calls[before:]] == [10]
    await simulation.close()


async def test_a_false_event_ends_no_wait(service: Service) -> None:
    """A wait receives only what a call returns."""
    running(service, 1)
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(100)
    simulation.queue.send_event("job-0")
    await until(200)
    assert waiter.seen() == ["RUNNING"]
    await simulation.close()


async def test_an_event_that_precedes_the_describe_response_shortens_the_interval(service: Service) -> None:
    """For a while after an event, the job is polled at the interval of its wait; then slowly again."""
    running(service, 1)
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(103)
    simulation.queue.send_event("job-0")
    await until(103 + EVENT_LAG)
    service.states["job-0"] = "SUCCEEDED"
    await until(103 + EVENT_LAG + 10)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await until(500)
    assert [at for at in service.times() if at > 100] == [103, 112, 121, 130, 300]
    await simulation.close()


async def test_a_call_in_progress_at_an_event_does_not_count(service: Service) -> None:
    """Its response may be older than the change."""
    running(service, 1)
    service.latency = 5.0
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(303)
    service.states["job-0"] = "SUCCEEDED"
    service.latency = 0.0
    simulation.queue.send_event("job-0")
    await until(304)
    assert service.times()[-2:] == [300, 303]
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await simulation.close()


async def test_an_event_of_an_intermediate_change_causes_no_immediate_call(service: Service) -> None:
    """It shares a later call with other jobs: a job has several such changes, and none ends a wait."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(103)
    simulation.queue.send_event("job-0", at_once=False)
    await until(115)
    assert service.times()[-1] == 110
    await simulation.close()


async def test_a_thousand_events_of_a_job_cause_at_most_one_call_per_second(service: Service) -> None:
    """Events may be false."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    for _ in range(1000):
        simulation.queue.send_event("job-0")
        await until(now() + 0.05)
    polls = [at for at in service.times() if at >= 100]
    assert min(gaps(polls)) >= 1 - 1e-6
    assert len(polls) >= 49
    await simulation.close()


async def test_events_of_ten_thousand_children_cause_one_call_per_interval(service: Service) -> None:
    """Events of children also concern the array."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    for _ in range(1000):
        simulation.queue.send_event("job-0", at_once=False)
        await until(now() + 0.05)
    assert [at for at in service.times() if at >= 100] == [110, 120, 130, 140, 150]
    await simulation.close()


async def test_an_event_before_its_wait_is_compensated_by_early_calls(service: Service) -> None:
    """The first calls find the change, even if responses lag behind."""
    running(service, 2)
    simulation = Simulation(service)
    simulation.wait("job-1")
    await until(100)
    simulation.queue.send_event("job-0")
    await until(110)
    assert "2" not in simulation.queue.messages
    waiter = simulation.wait("job-0")
    await until(112)
    service.states["job-0"] = "SUCCEEDED"
    await until(121)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await simulation.close()


async def test_a_lost_event_delays_the_wait_by_event_poll_interval_at_most(service: Service) -> None:
    """The slow polling finds the end."""
    running(service, 1)
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(301)
    service.states["job-0"] = "SUCCEEDED"
    await until(601)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await simulation.close()


async def test_an_unknown_job_is_polled_at_the_interval_of_its_wait(service: Service) -> None:
    """A job that was just submitted may be missing for a while, and its wait must detect if it never appears."""
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(95)
    assert len(service.calls) == 10
    service.states["job-0"] = "RUNNING"
    await until(101)
    assert waiter.seen() == ["RUNNING"]
    await simulation.close()


# Messages.


async def test_a_message_without_a_wait_is_released_until_its_third_receive(service: Service) -> None:
    """Another process may wait for it; after the third receive it is deleted."""
    simulation = Simulation(service)
    simulation.wait(*running(service, 1))
    await until(100)
    simulation.queue.send_event("another's")
    await until(110)
    assert [at for at, _ in simulation.queue.received] == [100, 100 + RELEASE_PAUSE, 100 + 2 * RELEASE_PAUSE]
    assert len(simulation.queue.received) == MAX_RECEIVES
    assert not simulation.queue.messages
    assert service.times()[-1] < 100
    await simulation.close()


async def test_two_processes_can_share_a_queue(service: Service) -> None:
    """A message for the other process is released."""
    running(service, 2)
    queue = Queue()
    worlds = [Simulation(service, queue), Simulation(service, queue)]
    waiters = [simulation.wait(job_id) for simulation, job_id in zip(worlds, jobs(2), strict=True)]
    await until(100)
    service.states |= dict.fromkeys(jobs(2), "SUCCEEDED")
    for job_id in jobs(2):
        queue.send_event(job_id)
    await until(110)
    assert [waiter.seen() for waiter in waiters] == [["RUNNING", "SUCCEEDED"]] * 2
    assert not queue.messages
    for simulation in worlds:
        await cancel_waits(simulation.waiters)
        simulation.listener.unsubscribe(simulation.watcher)
    await settle()


async def test_a_message_about_no_job_is_deleted_and_logged_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Further ones are not logged."""
    simulation = Simulation(service)
    simulation.wait(*running(service, 1))
    await until(100)
    for _ in range(50):
        simulation.queue.send(None)
    await until(110)
    assert not simulation.queue.messages
    assert [record.message for record in caplog.records if "about no job" in record.message] == [
        "Deleted a message about no job from the event queue; others like it are deleted silently: 'an excerpt'"
    ]
    await simulation.close()


async def test_messages_that_cannot_be_deleted_still_wake_waits(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """They are delivered again, which is logged once; polling stays slow, and receives are not made continuously."""
    running(service, 1)
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(100)
    simulation.queue.delete_fault = Fault.DENIED
    service.states["job-0"] = "SUCCEEDED"
    for _ in range(30):
        simulation.queue.send_event("job-0")
        simulation.queue.send_event("another's")
    await until(100 + VISIBILITY_TIMEOUT * 2)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    assert sum("cannot" in record.message or "not delete" in record.message for record in caplog.records) == 1
    assert min(gaps([at for at in simulation.queue.receives if at > 100])) >= 1
    await simulation.close()


async def test_a_failed_delete_does_not_keep_messages_from_other_processes(service: Service) -> None:
    """They are released at once. SQS reports a delete that failed for one message of ten as a failure."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    simulation.queue.undeletable = Fault.TRANSIENT
    simulation.queue.send_event("job-0")
    simulation.queue.send_event("another's")
    await until(101)
    own, others = simulation.queue.messages.values()
    assert (own.receives, own.hidden_until > now()) == (1, True)
    assert others.hidden_until <= now()
    await simulation.close()


# An unreachable queue.


async def test_an_unreachable_queue_restores_the_intervals_of_waits(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """When it can be read again, all jobs are described once, because messages may have been lost."""
    caplog.set_level(logging.INFO)
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(305)
    simulation.queue.down = Fault.TRANSIENT
    await until(500)
    assert [at for at in service.times() if at > 350] == [360 + 10 * turn for turn in range(15)]
    assert next(at for at in service.times() if at > 300) <= 305 + LONG_POLL + 1 + 10
    simulation.queue.down = None
    await until(1100)
    again = next(at for at in simulation.queue.receives if at >= 500)
    assert [at for at in service.times() if again + EVENT_LAG + 20 < at] == [600, 900]
    said = [record.message for record in caplog.records if "events" in record.message]
    assert said == [
        "Receiving events: jobs without events are polled every 300 s",
        "Cannot receive events; until that works, jobs are polled at their own poll_interval: scripted: transient",
        "Receiving events: jobs without events are polled every 300 s",
    ]
    await simulation.close()


@pytest.mark.parametrize(
    "fault", [Fault.REJECTED, Fault.DENIED, Fault.SCOPE_NOT_FOUND, Fault.THROTTLED, Fault.TRANSIENT]
)
async def test_a_queue_that_never_responds_is_called_with_growing_pauses(
    service: Service, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be created or permitted later; the waits are not affected."""
    running(service, 1)
    simulation = Simulation(service, Queue(down=fault))
    simulation.wait("job-0")
    await until(400)
    assert len(service.calls) == 41
    assert list(gaps(simulation.queue.receives))[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert len(warnings(caplog)) == 1
    await simulation.close()


async def test_one_lost_connection_has_no_effect(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """It causes neither a call nor a log line."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    simulation.queue.plan.append(Fault.TRANSIENT)
    await until(290)
    assert service.times() == [0.5, 10, 20]
    assert not warnings(caplog)
    await simulation.close()


async def test_expired_credentials_fail_one_receive(service: Service) -> None:
    """The next receive uses a new client."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    simulation.queue.plan.append(Fault.CREDENTIALS)
    await until(200)
    assert service.times() == [0.5, 10, 20]
    await simulation.close()


async def test_without_a_queue_the_listener_ends(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The waits keep their own interval, and nothing is logged."""
    running(service, 1)
    simulation = Simulation(service, Queue(exists=False))
    simulation.wait("job-0")
    await until(45)
    assert service.times() == [0.5, 10, 20, 30, 40]
    assert simulation.listener.ended
    assert not warnings(caplog)
    await simulation.close()


async def test_a_bug_in_event_parsing_is_logged_and_restores_the_intervals(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """The listener continues with the next message."""
    running(service, 1)
    simulation = Simulation(service)
    waiter = simulation.wait("job-0")
    await until(300.5)
    simulation.queue.plan.extend([RuntimeError("a bug")] * 8)
    await until(400)
    assert [at for at in service.times() if at > 340] == [350, 360, 370, 380, 390, 400]
    assert [record.exc_info is not None for record in warnings(caplog)] == [True]
    await until(600)
    service.states["job-0"] = "SUCCEEDED"
    simulation.queue.send_event("job-0")
    await until(601)
    assert waiter.seen() == ["RUNNING", "SUCCEEDED"]
    await simulation.close()


async def test_a_stopped_listener_restores_the_intervals(service: Service) -> None:
    """The cause does not matter."""
    running(service, 1)
    simulation = Simulation(service)
    simulation.wait("job-0")
    await until(100)
    assert simulation.listener._task is not None
    simulation.listener._task.cancel()
    await until(145)
    assert [at for at in service.times() if at > 100] == [110, 120, 130, 140]
    assert simulation.listener.ended
    await simulation.close()


# Listeners.


async def test_watchers_share_the_listener_and_the_last_one_ends_it(service: Service) -> None:
    """There is one receive call at a time for all watchers."""
    running(service, 2)
    simulation = Simulation(service)
    first = simulation.wait("job-0")
    await until(100)
    other_watcher = service.watcher()
    simulation.listener.subscribe(other_watcher, about)
    second = Waiter(other_watcher, "job-1", 10)
    await until(200)
    service.states |= dict.fromkeys(jobs(2), "SUCCEEDED")
    for job_id in jobs(2):
        simulation.queue.send_event(job_id)
    await until(201)
    assert first.seen() == second.seen() == ["RUNNING", "SUCCEEDED"]
    assert [at for at in service.times("job-1") if at < 200] == [100.5, 110, 120]
    simulation.listener.unsubscribe(other_watcher)
    await cancel_waits([second])
    assert not simulation.listener.ended
    await simulation.close()
    with pytest.raises(RuntimeError):
        simulation.listener.subscribe(other_watcher, about)


async def test_the_listener_does_not_log_to_a_task(service: Service) -> None:
    """The listener has its own context."""
    contexts: list[contextvars.Context] = []
    whose = contextvars.ContextVar("whose", default="nobody's")
    whose.set("a task's")
    simulation = Simulation(service)

    def note(event: Event, known: KeysView[str]) -> Mapping[str, bool]:
        contexts.append(contextvars.copy_context())
        return about(event, known)

    simulation.listener.subscribe(simulation.watcher, note)
    simulation.wait(*running(service, 1))
    simulation.queue.send_event("job-0")
    await until(1)
    assert {whose in context for context in contexts} == {False}
    await simulation.close()


async def test_a_watcher_can_be_woken_without_a_listener(service: Service) -> None:
    """Waking a job without a wait has no effect."""
    running(service, 1)
    watcher = service.watcher()
    waiter = Waiter(watcher, "job-0", 100)
    await until(50)
    assert list(watcher.job_ids) == ["job-0"]
    watcher.wake("job-0", at_once=True)
    watcher.wake("another's", at_once=True)
    await asyncio.sleep(0.1)
    assert service.times() == [0.5, 50]
    await cancel_waits([waiter])
