"""Whatever happens, in whatever order: what the watcher promises, held against generated stories.

A story is a list of timed steps: waits join and leave, jobs change and disappear, calls fail in every way there is. In
the end the service recovers and every job ends, so that every wait must hear the last word on its jobs. The stories
run on a scripted clock and are the same in every run; ``HYPOTHESIS_PROFILE=long`` tries many more, new ones each time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_jobflow.faults import Fault
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.refusals import CONCERNS_ALL, MIN_REFUSALS, REFUSED_GRACE
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import Call, Service, Surprise, Waiter, gaps, leave, now, run, settle, until

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

many_stories = settings(derandomize=not LONG, print_blob=True, deadline=None, max_examples=10_000 if LONG else 400)

JOBS = [f"job-{number}" for number in range(4)]
COURSE = ["SUBMITTED", "RUNNABLE", "RUNNING", "SUCCEEDED"]
GRACE = 40.0
DENIED_GRACE = 100.0

A_MOMENT = 1e-6
"""Seconds that rounding may cost."""


@dataclass
class World:
    """What a story's steps act on."""

    service: Service
    watcher: Watcher[str]
    waiters: list[Waiter]
    hidden: dict[str, str]
    """States of jobs that the service does not know for the time being."""

    @property
    def joined(self) -> list[Waiter]:
        """The waits that have not left."""
        return [waiter for waiter in self.waiters if waiter.left_at == math.inf]

    def advance(self, job_id: str) -> None:
        """Let a job come a step further."""
        states = self.hidden if job_id in self.hidden else self.service.states
        states[job_id] = COURSE[min(COURSE.index(states[job_id]) + 1, len(COURSE) - 1)]


Step = Callable[[World], object]


def join(job_ids: set[str], interval: float) -> Step:
    """Let a new wait join."""

    def step(world: World) -> None:
        if not world.watcher.ended:
            world.waiters.append(Waiter(world.watcher, sorted(job_ids), interval))

    return step


def go(which: int) -> Step:
    """Let a wait leave."""

    def step(world: World) -> None:
        # The first stays to the end, for a watcher that everybody has left cannot be joined again.
        if others := world.joined[1:]:
            others[which % len(others)].leave()

    return step


def hide(job_id: str) -> Step:
    """Let the service not know a job, or know it again."""

    def step(world: World) -> None:
        hides = job_id in world.service.states
        source, target = (world.service.states, world.hidden) if hides else (world.hidden, world.service.states)
        target[job_id] = source.pop(job_id)

    return step


def refuse_all(fault: Fault | None) -> Step:
    """Let every call be refused, or none any more."""
    return lambda world: setattr(world.service, "down", fault)


def wait_for(latency: float) -> Step:
    """Let calls take their time."""
    return lambda world: setattr(world.service, "latency", latency)


a_job = st.sampled_from(JOBS)
an_interval = st.sampled_from([1.0, 3.0, 7.0, 10.0, 10.5, 20.0])
some_time = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 3.0, 8.9, 9.5, 10.0, 21.0, 45.0])
joins = st.builds(join, st.sets(a_job, min_size=1), an_interval)
leaves = st.builds(go, st.integers(0, 7))
latencies = st.builds(wait_for, st.sampled_from([0.0, 0.05, 0.9, 4.0, 15.0]))
advances = st.builds(lambda job_id: lambda world: world.advance(job_id), a_job)
faults = st.builds(
    lambda what, times: lambda world: world.service.plan.extend([what] * times),
    st.sampled_from([Fault.THROTTLED, Fault.TRANSIENT, Fault.CREDENTIALS, Surprise.HANG]),
    st.integers(1, 4),
)
blows = st.builds(
    lambda what, times: lambda world: world.service.plan.extend([what] * times),
    st.sampled_from(
        [
            Fault.DENIED,
            Fault.REJECTED,
            Fault.SCOPE_NOT_FOUND,
            Surprise.CRASH,
            Surprise.CANCELLED,
            Surprise.NONSENSE,
        ]
    ),
    st.integers(1, 12),
)
REFUSALS = (Fault.DENIED, Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.CREDENTIALS)
refusals = st.builds(refuse_all, st.sampled_from([None, None, *REFUSALS]))
spoils = st.builds(lambda job_id: lambda world: world.service.bad.add(job_id), a_job)
heals = st.builds(lambda job_id: lambda world: world.service.bad.discard(job_id), a_job)
hides = st.builds(hide, a_job)
stories = st.lists(
    st.tuples(
        some_time,
        st.one_of(
            joins, joins, joins, leaves, advances, advances, latencies, faults, blows, spoils, heals, hides, refusals
        ),
    ),
    max_size=40,
)


async def play(story: list[tuple[float, Step]], budget: float, batch_size: int) -> World:
    """Play a story to its end: the service recovers, every job ends, and there is time for every wait to hear of it."""
    service = Service(states=dict.fromkeys(JOBS, COURSE[0]), request_timeout=6.0)
    watcher = service.watcher(
        calls_per_second=budget,
        batch_size=batch_size,
        missing_grace=GRACE,
        denied_grace=DENIED_GRACE,
    )
    world = World(service, watcher, [Waiter(watcher, "keeps-it-going", 20.0)], {})
    service.states["keeps-it-going"] = COURSE[0]
    for seconds, step in story:
        await asyncio.sleep(seconds)
        step(world)
    service.plan.clear()
    service.latency, service.down = 0.0, None
    service.states |= dict.fromkeys([*JOBS, "keeps-it-going"], COURSE[-1])
    await until(now() + 60)
    patience = now() + 1200
    while now() < patience and not all(has_heard_all(waiter) for waiter in world.joined):
        await until(now() + 20)
    return world


def has_heard_all(waiter: Waiter) -> bool:
    """Whether the last a wait has heard of each of its jobs is its end, or why it cannot be known."""
    return all(waiter.news(job_id)[-1:] == [COURSE[-1]] or has_failed(waiter, job_id) for job_id in waiter.job_ids)


def has_failed(waiter: Waiter, job_id: str) -> bool:
    """Whether the last a wait has heard of a job is an error."""
    return any(isinstance(news, WatchError) for news in waiter.news(job_id)[-1:])


@many_stories
@given(stories, st.sampled_from([0.5, 2.0, 5.0]), st.sampled_from([1, 3, 100]))
def test_no_story_breaks_a_promise(story: list[tuple[float, Step]], budget: float, batch_size: int) -> None:
    """No wait is lost, no answer is repeated or invented, and the rate limit is kept."""

    async def play_all() -> None:
        world = await play(story, budget, batch_size)
        calls = world.service.calls
        assert_calls_are_within(budget, batch_size, calls)
        for waiter in world.waiters:
            assert_truth_was_told(waiter, world.service)
        for waiter in world.joined:
            assert has_heard_all(waiter), f"lost: {waiter.job_ids} after {waiter.heard}"
        await leave(world.joined)
        assert_nothing_is_left(world)

    run(play_all())


def assert_calls_are_within(budget: float, batch_size: int, calls: list[Call]) -> None:
    """No call comes sooner after another than the budget allows, is too big, or asks twice about a job."""
    assert all(gap >= 1 / budget - A_MOMENT for gap in gaps([call.at for call in calls]))
    for call in calls:
        assert 0 < len(call.ids) <= batch_size
        assert len(set(call.ids)) == len(call.ids)


def assert_truth_was_told(waiter: Waiter, service: Service) -> None:
    """What a wait has heard was described, in the order of events, no news twice, and nothing after an error."""
    for job_id in waiter.job_ids:
        heard = [(at, news) for at, about, news in waiter.heard if about == job_id]
        asked = [call for call in service.calls if job_id in call.ids]
        states = [news for _, news in heard if isinstance(news, str)]
        errors = [(at, news) for at, news in heard if isinstance(news, WatchError)]
        assert len(states) == len(set(states)), f"{job_id} published twice: {states}"
        assert states == sorted(states, key=COURSE.index), f"{job_id} went back: {states}"
        for at, news in heard:
            if isinstance(news, str):
                assert any(
                    abs(call.ended_at - at) < A_MOMENT and call.answers is not None and call.answers.get(job_id) == news
                    for call in asked
                ), f"{job_id} was never described as {news}"
        assert not errors or heard[-1] == errors[0], f"{job_id} had news after the last word: {heard}"
        for at, error in errors:
            assert_error_is_deserved(job_id, at, error, asked, service)


def assert_error_is_deserved(job_id: str, at: float, error: WatchError, asked: list[Call], service: Service) -> None:
    """An error has a cause that concerns the job, and a missing job was missing for as long as the grace."""
    match error:
        case NotFound():
            answered = [call for call in asked if call.answers is not None and call.ended_at <= at]
            answered.sort(key=lambda call: call.ended_at)
            unknown = list(itertools.takewhile(lambda c: job_id not in (c.answers or {}), reversed(answered)))
            assert unknown[0].ended_at - unknown[-1].ended_at >= GRACE - A_MOMENT
        case DescribeRejected():
            answers = [call.ended_at for call in asked if call.answers is not None and call.ended_at <= at]
            last_answer = max(answers, default=-math.inf)
            since = [call for call in asked if call.at >= last_answer and call.ended_at <= at + A_MOMENT]
            grace = DENIED_GRACE if error.fault in (Fault.DENIED, Fault.CREDENTIALS) else REFUSED_GRACE
            assert since[-1].at - since[0].at >= min(grace, error.seconds) - A_MOMENT
            assert error.seconds >= grace
            assert len(since) >= error.refusals >= MIN_REFUSALS
            if error.fault not in CONCERNS_ALL and any(
                since[0].at <= call.ended_at <= at for call in service.calls if call.answers is not None
            ):
                assert any(call.ids == (job_id,) for call in since), "never refused alone, though others were answered"
        case _:
            raise AssertionError(f"{job_id}: {error!r}")


def assert_nothing_is_left(world: World) -> None:
    """The watcher has ended, and its client was closed once."""
    assert world.watcher.ended
    assert len(world.service.closed) == 1
    assert not world.watcher._jobs
    assert not world.watcher._calls
    assert abs(world.watcher._schedule.describes_per_second) < A_MOMENT


a_calm_step = st.one_of(joins, joins, leaves, advances)


@many_stories
@given(
    st.lists(st.tuples(some_time, a_calm_step), min_size=1, max_size=30),
    st.sampled_from([0.5, 2.0, 5.0]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([0.0, 0.05, 0.9, 4.0]),
)
@example(  # a call is answered in the very moment in which the next one for the same job goes out
    [(9.5, join(set(JOBS), 3.0)), (3.0, join(set(JOBS), 3.0)), (0.1, join({JOBS[0]}, 3.0)), (8.9, go(0))], 0.5, 3, 4.0
)
def test_two_polls_of_a_job_are_an_interval_apart(
    story: list[tuple[float, Step]], budget: float, batch_size: int, latency: float
) -> None:
    """If nothing fails; within a tenth of it, except for the first and second call for a new wait."""

    async def play_all() -> None:
        world = await play([(0.0, wait_for(latency)), *story], budget, batch_size)
        for job_id in JOBS:
            waiters = [waiter for waiter in world.waiters if job_id in waiter.job_ids]
            times = [call.at for call in world.service.calls if job_id in call.ids]
            for before, at, after in zip([-math.inf, *times], times, times[1:], strict=False):
                if any(before <= waiter.joined_at <= after for waiter in waiters):
                    continue  # ``at`` or ``after`` is a first call, or ``after`` is a second one
                waited = [waiter.interval for waiter in waiters if waiter.joined_at < at <= waiter.left_at]
                if waited:
                    assert after - at >= 0.9 * min(waited) - A_MOMENT, f"{job_id} at {at} and {after}: {waited}"
        await leave(world.joined)

    run(play_all())


@many_stories
@given(st.lists(st.tuples(some_time, a_calm_step), max_size=30))
def test_new_waits_are_described_within_a_second(story: list[tuple[float, Step]]) -> None:
    """As long as nothing fails, and no more come than the budget can serve."""

    async def play_all() -> None:
        world = await play(story, budget=5.0, batch_size=100)
        for waiter in world.waiters:
            for job_id in waiter.job_ids if waiter.left_at > waiter.joined_at + 1 else []:
                polls = [call.at for call in world.service.calls if job_id in call.ids]
                assert any(0 <= at - waiter.joined_at <= 1.0 for at in polls)
        await leave(world.joined)
        await settle()

    run(play_all())


outages = st.lists(
    st.tuples(
        st.sampled_from([0.3, 1.0, 3.0, 8.9, 21.0]),
        st.one_of(
            joins,
            leaves,
            advances,
            refusals,
            st.builds(refuse_all, st.sampled_from([Fault.TRANSIENT])),
            spoils,
            st.builds(
                lambda what, times: lambda world: world.service.plan.extend([what] * times),
                st.sampled_from([Fault.TRANSIENT, *REFUSALS, Surprise.CRASH, Surprise.CANCELLED, Surprise.NONSENSE]),
                st.integers(1, 12),
            ),
        ),
    ),
    max_size=30,
)


@many_stories
@given(outages, st.sampled_from([2, 3, 100]), st.floats(0.0, 1.0))
def test_after_an_outage_every_wait_sees_its_job_within_two_intervals(
    story: list[tuple[float, Step]], batch_size: int, jitter: float
) -> None:
    """Whatever was refused or failed before, and however long the pauses were; the budget allows it here."""

    async def play_all() -> None:
        service = Service(states=dict.fromkeys(JOBS, COURSE[0]), latency=0.05)
        service.states["keeps-it-going"] = COURSE[0]
        watcher = service.watcher(
            calls_per_second=20.0, batch_size=batch_size, denied_grace=1e6, jitter=lambda longest: longest * jitter
        )
        world = World(service, watcher, [Waiter(watcher, "keeps-it-going", 20.0)], {})
        for seconds, step in story:
            await asyncio.sleep(seconds)
            step(world)
        await settle()
        service.plan.clear()
        service.bad.clear()
        service.down = None
        service.states = dict.fromkeys(service.states, COURSE[-1])
        recovered = now()
        for waiter in sorted(world.joined, key=lambda waiter: waiter.interval):
            await until(max(now(), recovered + 2 * max(waiter.interval, 1.0)))
            for job_id in waiter.job_ids:
                assert waiter.news(job_id)[-1:] == [COURSE[-1]] or refused_for_a_minute(waiter, job_id)
        await leave(world.joined)

    run(play_all())


def refused_for_a_minute(waiter: Waiter, job_id: str) -> bool:
    """Whether a wait has failed because AWS rejected its job's calls for longer than that has patience."""
    last = waiter.news(job_id)[-1]
    return (
        isinstance(last, DescribeRejected)
        and last.fault in (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)
        and last.seconds >= 60
    )
