"""The promises to waits, checked with generated scenarios of events.

In a scenario, jobs change their states, and the event of each change arrives at once, late, twice, before the change
can be described, or not at all. There are also false events, events of unknown jobs, and messages that are not events.
The queue fails and recovers; waits are added and cancelled in two processes that share it. The scenarios run on a
scripted clock, like those of the watcher.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.schedule import EARLY_FRACTION
from airflow_jobflow.polling.wakeups import Listener
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import Service, Waiter, cancel_waits, gaps, now, run, settle, until
from tests.unit.polling.scripted_queue import Event, Queue, about
from tests.unit.polling.test_watcher_properties import (
    JOBS,
    ROUNDING,
    STATES,
    assert_calls_are_within,
    assert_received_states_are_correct,
    has_received_all,
    many_scenarios,
)

SLOW = 100.0
END = STATES[-1]


@dataclass
class Process:
    """A triggerer, with its watcher, listener and waits."""

    service: Service
    watcher: Watcher[str]
    listener: Listener[Event]
    waiters: list[Waiter] = field(default_factory=list)

    @classmethod
    def start(cls, states: dict[str, str], queue: Queue, budget: float) -> Process:
        """Start a triggerer with a permanent wait. Its calls are counted separately."""
        service = Service(states)
        watcher = service.watcher(calls_per_second=budget)
        listener = queue.listener(event_poll_interval=SLOW)
        listener.subscribe(watcher, about)
        return cls(service, watcher, listener, [Waiter(watcher, "permanent", 10.0)])

    @property
    def active(self) -> list[Waiter]:
        """The waits that are not cancelled."""
        return [waiter for waiter in self.waiters if waiter.cancelled_at == math.inf]


@dataclass
class Simulation:
    """The state that the steps of a scenario change."""

    queue: Queue
    processes: list[Process]
    states: dict[str, str]
    ended_at: dict[str, float] = field(default_factory=dict)

    def advance(self, job_id: str) -> None:
        """Move a job to its next state."""
        self.states[job_id] = STATES[min(STATES.index(self.states[job_id]) + 1, len(STATES) - 1)]
        if self.states[job_id] == END:
            self.ended_at.setdefault(job_id, now())


Step = Callable[[Simulation], object]


def subscribe(which: int, job_ids: set[str], interval: float) -> Step:
    """Add a wait in one of the processes."""

    def step(simulation: Simulation) -> None:
        process = simulation.processes[which]
        process.waiters.append(Waiter(process.watcher, sorted(job_ids), interval))

    return step


def cancel_wait(which: int, index: int) -> Step:
    """Cancel a wait."""

    def step(simulation: Simulation) -> None:
        if others := simulation.processes[which].active[1:]:
            others[index % len(others)].cancel()

    return step


def change(job_id: str, delays: list[float]) -> Step:
    """Move a job to its next state, and send an event after each delay; without a delay, the event is lost."""

    def step(simulation: Simulation) -> None:
        simulation.advance(job_id)
        for delay in delays:
            simulation.queue.send_event(job_id, at_once=simulation.states[job_id] == END, delay=delay)

    return step


def send_false_event(job_id: str, *, at_once: bool) -> Step:
    """Send an event of a change that has not happened, possibly of an unknown job."""
    return lambda simulation: simulation.queue.send_event(job_id, at_once=at_once)


def send_unrelated_message(simulation: Simulation) -> None:
    """Send a message that is not about a job."""
    simulation.queue.send(None)


def set_outage(fault: Fault | None) -> Step:
    """Let all receive calls fail, or succeed again."""
    return lambda simulation: setattr(simulation.queue, "down", fault)


def fail_receive(fault: Fault) -> Step:
    """Let one receive call fail."""
    return lambda simulation: simulation.queue.plan.append(fault)


def set_delete_fault(fault: Fault | None) -> Step:
    """Let calls that delete or release messages fail, or succeed again."""
    return lambda simulation: setattr(simulation.queue, "delete_fault", fault)


a_job = st.sampled_from(JOBS)
a_process = st.integers(0, 1)
a_fault = st.sampled_from([Fault.TRANSIENT, Fault.DENIED, Fault.REJECTED, Fault.CREDENTIALS, Fault.THROTTLED])
subscriptions = st.builds(
    subscribe, a_process, st.sets(a_job, min_size=1), st.sampled_from([1.0, 7.0, 10.0, 20.0, 150.0])
)
cancellations = st.builds(cancel_wait, a_process, st.integers(0, 7))
changes = st.builds(change, a_job, st.lists(st.sampled_from([0.0, 0.1, 3.0, 40.0]), max_size=3))
false_events = st.builds(
    lambda job_id, at_once: send_false_event(job_id, at_once=at_once), a_job | st.just("nobody's"), st.booleans()
)
outages = st.builds(set_outage, st.none() | a_fault)
receive_faults = st.builds(fail_receive, a_fault)
delete_faults = st.builds(set_delete_fault, st.none() | a_fault)
some_time = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 8.9, 10.0, 21.0, 45.0, 110.0])
scenarios = st.lists(
    st.tuples(
        some_time,
        st.one_of(
            subscriptions,
            subscriptions,
            cancellations,
            changes,
            changes,
            false_events,
            st.just(send_unrelated_message),
            outages,
            receive_faults,
            delete_faults,
        ),
    ),
    max_size=40,
)


async def play(scenario: list[tuple[float, Step]], budget: float) -> Simulation:
    """Run a scenario to its end: all jobs end, without events."""
    states = dict.fromkeys([*JOBS, "permanent"], STATES[0])
    queue = Queue()
    simulation = Simulation(queue, [Process.start(states, queue, budget) for _ in range(2)], states)
    for seconds, step in scenario:
        await asyncio.sleep(seconds)
        step(simulation)
    await until(now() + 1)
    for job_id in states:
        while states[job_id] != END:
            simulation.advance(job_id)
    await until(now() + 2 * SLOW)
    return simulation


@many_scenarios
@given(scenarios, st.sampled_from([2.0, 5.0]))
def test_events_keep_the_budget_and_lose_no_end(scenario: list[tuple[float, Step]], budget: float) -> None:
    """Every wait receives only described states, and the end of its job within ``event_poll_interval``."""

    async def check() -> None:
        simulation = await play(scenario, budget)
        for process in simulation.processes:
            assert_calls_are_within(budget, 100, process.service.calls)
            for waiter in process.waiters:
                assert_received_states_are_correct(waiter, process.service)
                assert_ends_are_received_in_time(waiter, simulation)
            for waiter in process.active:
                assert has_received_all(waiter)
            await cancel_waits(process.active)
            process.listener.unsubscribe(process.watcher)
        await settle()
        assert all(process.listener.ended and process.watcher.ended for process in simulation.processes)
        assert len(simulation.queue.closed) == len(simulation.processes)

    run(check())


def assert_ends_are_received_in_time(waiter: Waiter, simulation: Simulation) -> None:
    """Check that a wait receives an end within event_poll_interval or its own longer interval, with a tolerance of a
    tenth.
    """
    slowest = max(SLOW, waiter.interval) * (1 + EARLY_FRACTION) + 3
    for job_id in waiter.job_ids:
        late_by = max(simulation.ended_at.get(job_id, math.inf), waiter.subscribed_at) + slowest
        if late_by < waiter.cancelled_at and late_by < now():
            heard = [at for at, about_id, news in waiter.received if (about_id, news) == (job_id, END)]
            assert heard, f"{job_id} ended at {simulation.ended_at[job_id]}, never heard by {waiter.received}"
            assert heard[0] <= late_by


@many_scenarios
@given(st.lists(st.tuples(some_time, st.one_of(subscriptions, cancellations, false_events, changes)), max_size=30))
def test_events_cause_at_most_one_describe_per_second(scenario: list[tuple[float, Step]]) -> None:
    """New waits, which are served within a second, are an exception."""

    async def check() -> None:
        simulation = await play(scenario, 5.0)
        for process in simulation.processes:
            for job_id in JOBS:
                joins_at = [waiter.subscribed_at for waiter in process.waiters if job_id in waiter.job_ids]
                polls = [call.at for call in process.service.calls if job_id in call.ids]
                calm = [at for at in polls if not any(0 <= at - joined <= 2.0 for joined in joins_at)]
                assert min(gaps(calm), default=1.0) >= 0.9 - ROUNDING
            await cancel_waits(process.active)
            process.listener.unsubscribe(process.watcher)
        await settle()

    run(check())
