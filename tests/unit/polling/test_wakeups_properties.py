"""Whatever events say, and whatever becomes of them: what waits are promised, held against generated stories.

In a story jobs go their course, and the event of each step arrives at once, late, twice, before it can be described,
or not at all; there are false events, events of nobody's jobs, and messages that are none; the queue comes and goes;
waits join and leave in two processes that share it. The stories run on a scripted clock, as the watcher's.
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
from tests.unit.polling.scripted import Service, Waiter, gaps, leave, now, run, settle, until
from tests.unit.polling.scripted_queue import Event, Queue, about
from tests.unit.polling.test_watcher_properties import (
    A_MOMENT,
    COURSE,
    JOBS,
    assert_calls_are_within,
    assert_truth_was_told,
    has_heard_all,
    many_stories,
)

SLOW = 100.0
END = COURSE[-1]


@dataclass
class Process:
    """A triggerer: what watches and listens in it, and its waits."""

    service: Service
    watcher: Watcher[str]
    listener: Listener[Event]
    waiters: list[Waiter] = field(default_factory=list)

    @classmethod
    def start(cls, states: dict[str, str], queue: Queue, budget: float) -> Process:
        """Start one, whose calls are counted apart, with a wait that stays."""
        service = Service(states)
        watcher = service.watcher(calls_per_second=budget)
        listener = queue.listener(event_poll_interval=SLOW)
        listener.subscribe(watcher, about)
        return cls(service, watcher, listener, [Waiter(watcher, "keeps-it-going", 10.0)])

    @property
    def joined(self) -> list[Waiter]:
        """The waits that have not left."""
        return [waiter for waiter in self.waiters if waiter.left_at == math.inf]


@dataclass
class World:
    """What a story's steps act on."""

    queue: Queue
    processes: list[Process]
    states: dict[str, str]
    ended_at: dict[str, float] = field(default_factory=dict)

    def advance(self, job_id: str) -> None:
        """Let a job come a step further."""
        self.states[job_id] = COURSE[min(COURSE.index(self.states[job_id]) + 1, len(COURSE) - 1)]
        if self.states[job_id] == END:
            self.ended_at.setdefault(job_id, now())


Step = Callable[[World], object]


def join(which: int, job_ids: set[str], interval: float) -> Step:
    """Let a new wait join in one of the processes."""

    def step(world: World) -> None:
        process = world.processes[which]
        process.waiters.append(Waiter(process.watcher, sorted(job_ids), interval))

    return step


def go(which: int, index: int) -> Step:
    """Let a wait leave."""

    def step(world: World) -> None:
        if others := world.processes[which].joined[1:]:
            others[index % len(others)].leave()

    return step


def change(job_id: str, delays: list[float]) -> Step:
    """Let a job come a step further, and its event arrive after the given delays; no delay for a lost event."""

    def step(world: World) -> None:
        world.advance(job_id)
        for delay in delays:
            world.queue.send_event(job_id, at_once=world.states[job_id] == END, delay=delay)

    return step


def say(job_id: str, *, at_once: bool) -> Step:
    """Send an event of a change that has not happened, maybe of an unknown job."""
    return lambda world: world.queue.send_event(job_id, at_once=at_once)


def rubbish(world: World) -> None:
    """Send a message that is not about a job."""
    world.queue.send(None)


def go_down(fault: Fault | None) -> Step:
    """Let the queue be out of reach, or answer again."""
    return lambda world: setattr(world.queue, "down", fault)


def fail(fault: Fault) -> Step:
    """Let one receive fail."""
    return lambda world: world.queue.plan.append(fault)


def untidy(fault: Fault | None) -> Step:
    """Let messages not be deleted or given back, or be so again."""
    return lambda world: setattr(world.queue, "untidy", fault)


a_job = st.sampled_from(JOBS)
a_process = st.integers(0, 1)
a_fault = st.sampled_from([Fault.TRANSIENT, Fault.DENIED, Fault.REJECTED, Fault.CREDENTIALS, Fault.THROTTLED])
joins = st.builds(join, a_process, st.sets(a_job, min_size=1), st.sampled_from([1.0, 7.0, 10.0, 20.0, 150.0]))
leaves = st.builds(go, a_process, st.integers(0, 7))
changes = st.builds(change, a_job, st.lists(st.sampled_from([0.0, 0.1, 3.0, 40.0]), max_size=3))
lies = st.builds(lambda job_id, at_once: say(job_id, at_once=at_once), a_job | st.just("nobody's"), st.booleans())
outages = st.builds(go_down, st.none() | a_fault)
slips = st.builds(fail, a_fault)
untidiness = st.builds(untidy, st.none() | a_fault)
some_time = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 8.9, 10.0, 21.0, 45.0, 110.0])
stories = st.lists(
    st.tuples(
        some_time,
        st.one_of(joins, joins, leaves, changes, changes, lies, st.just(rubbish), outages, slips, untidiness),
    ),
    max_size=40,
)


async def play(story: list[tuple[float, Step]], budget: float) -> World:
    """Play a story to its end: all jobs end, without events."""
    states = dict.fromkeys([*JOBS, "keeps-it-going"], COURSE[0])
    queue = Queue()
    world = World(queue, [Process.start(states, queue, budget) for _ in range(2)], states)
    for seconds, step in story:
        await asyncio.sleep(seconds)
        step(world)
    await until(now() + 1)
    for job_id in states:
        while states[job_id] != END:
            world.advance(job_id)
    await until(now() + 2 * SLOW)
    return world


@many_stories
@given(stories, st.sampled_from([2.0, 5.0]))
def test_events_tell_nothing_cost_no_more_than_the_budget_and_lose_nothing(
    story: list[tuple[float, Step]], budget: float
) -> None:
    """Every wait receives exactly what was described, and its job's end within event_poll_interval."""

    async def play_all() -> None:
        world = await play(story, budget)
        for process in world.processes:
            assert_calls_are_within(budget, 100, process.service.calls)
            for waiter in process.waiters:
                assert_truth_was_told(waiter, process.service)
                assert_ends_are_heard_in_time(waiter, world)
            for waiter in process.joined:
                assert has_heard_all(waiter)
            await leave(process.joined)
            process.listener.unsubscribe(process.watcher)
        await settle()
        assert all(process.listener.ended and process.watcher.ended for process in world.processes)
        assert len(world.queue.closed) == len(world.processes)

    run(play_all())


def assert_ends_are_heard_in_time(waiter: Waiter, world: World) -> None:
    """A wait receives an end within event_poll_interval or its own longer interval, within a tenth."""
    slowest = max(SLOW, waiter.interval) * (1 + EARLY_FRACTION) + 3
    for job_id in waiter.job_ids:
        late_by = max(world.ended_at.get(job_id, math.inf), waiter.joined_at) + slowest
        if late_by < waiter.left_at and late_by < now():
            heard = [at for at, about_id, news in waiter.heard if (about_id, news) == (job_id, END)]
            assert heard, f"{job_id} ended at {world.ended_at[job_id]}, never heard by {waiter.heard}"
            assert heard[0] <= late_by


@many_stories
@given(st.lists(st.tuples(some_time, st.one_of(joins, leaves, lies, changes)), max_size=30))
def test_no_events_have_a_job_described_more_than_once_a_second(story: list[tuple[float, Step]]) -> None:
    """Except for new waits, which are served within a second."""

    async def play_all() -> None:
        world = await play(story, 5.0)
        for process in world.processes:
            for job_id in JOBS:
                joins_at = [waiter.joined_at for waiter in process.waiters if job_id in waiter.job_ids]
                polls = [call.at for call in process.service.calls if job_id in call.ids]
                calm = [at for at in polls if not any(0 <= at - joined <= 2.0 for joined in joins_at)]
                assert min(gaps(calm), default=1.0) >= 0.9 - A_MOMENT
            await leave(process.joined)
            process.listener.unsubscribe(process.watcher)
        await settle()

    run(play_all())
