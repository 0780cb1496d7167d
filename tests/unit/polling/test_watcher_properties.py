"""The promises of the watcher, checked with generated scenarios.

A scenario is a list of timed steps: waits are added and cancelled, jobs change and disappear, and calls fail in every
way. At the end, the service recovers and every job ends, so that every wait must receive the final states of its jobs.
The scenarios run on a scripted clock and are the same in every run; ``HYPOTHESIS_PROFILE=long`` generates many more,
and new ones each time.
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
from tests.unit.polling.scripted import Call, Misbehaviour, Service, Waiter, cancel_waits, gaps, now, run, settle, until

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

many_scenarios = settings(derandomize=not LONG, print_blob=True, deadline=None, max_examples=10_000 if LONG else 400)

JOBS = [f"job-{number}" for number in range(4)]
STATES = ["SUBMITTED", "RUNNABLE", "RUNNING", "SUCCEEDED"]
GRACE = 40.0
DENIED_GRACE = 100.0

ROUNDING = 1e-6
"""Tolerance in seconds for rounding."""


@dataclass
class Simulation:
    """The state that the steps of a scenario change."""

    service: Service
    watcher: Watcher[str]
    waiters: list[Waiter]
    hidden: dict[str, str]
    """States of jobs that the service does not know at the moment."""

    @property
    def active(self) -> list[Waiter]:
        """The waits that are not cancelled."""
        return [waiter for waiter in self.waiters if waiter.cancelled_at == math.inf]

    def advance(self, job_id: str) -> None:
        """Move a job to its next state."""
        states = self.hidden if job_id in self.hidden else self.service.states
        states[job_id] = STATES[min(STATES.index(states[job_id]) + 1, len(STATES) - 1)]


Step = Callable[[Simulation], object]


def subscribe(job_ids: set[str], interval: float) -> Step:
    """Add a wait."""

    def step(simulation: Simulation) -> None:
        if not simulation.watcher.ended:
            simulation.waiters.append(Waiter(simulation.watcher, sorted(job_ids), interval))

    return step


def cancel_wait(which: int) -> Step:
    """Cancel a wait."""

    def step(simulation: Simulation) -> None:
        # The first wait is permanent, because a watcher without waits ends.
        if others := simulation.active[1:]:
            others[which % len(others)].cancel()

    return step


def hide(job_id: str) -> Step:
    """Let the service forget a job, or know it again."""

    def step(simulation: Simulation) -> None:
        hides = job_id in simulation.service.states
        source, target = (
            (simulation.service.states, simulation.hidden) if hides else (simulation.hidden, simulation.service.states)
        )
        target[job_id] = source.pop(job_id)

    return step


def set_fault(fault: Fault | None) -> Step:
    """Let every call fail with a fault, or succeed again."""
    return lambda simulation: setattr(simulation.service, "down", fault)


def set_latency(latency: float) -> Step:
    """Set the duration of calls."""
    return lambda simulation: setattr(simulation.service, "latency", latency)


a_job = st.sampled_from(JOBS)
an_interval = st.sampled_from([1.0, 3.0, 7.0, 10.0, 10.5, 20.0])
some_time = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 3.0, 8.9, 9.5, 10.0, 21.0, 45.0])
subscriptions = st.builds(subscribe, st.sets(a_job, min_size=1), an_interval)
cancellations = st.builds(cancel_wait, st.integers(0, 7))
latencies = st.builds(set_latency, st.sampled_from([0.0, 0.05, 0.9, 4.0, 15.0]))
advances = st.builds(lambda job_id: lambda simulation: simulation.advance(job_id), a_job)
faults = st.builds(
    lambda what, times: lambda simulation: simulation.service.plan.extend([what] * times),
    st.sampled_from([Fault.THROTTLED, Fault.TRANSIENT, Fault.CREDENTIALS, Misbehaviour.HANG]),
    st.integers(1, 4),
)
serious_faults = st.builds(
    lambda what, times: lambda simulation: simulation.service.plan.extend([what] * times),
    st.sampled_from(
        [
            Fault.DENIED,
            Fault.REJECTED,
            Fault.SCOPE_NOT_FOUND,
            Misbehaviour.CRASH,
            Misbehaviour.CANCELLED,
            Misbehaviour.NONSENSE,
        ]
    ),
    st.integers(1, 12),
)
REFUSALS = (Fault.DENIED, Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.CREDENTIALS)
refusals = st.builds(set_fault, st.sampled_from([None, None, *REFUSALS]))
breaks = st.builds(lambda job_id: lambda simulation: simulation.service.bad.add(job_id), a_job)
repairs = st.builds(lambda job_id: lambda simulation: simulation.service.bad.discard(job_id), a_job)
hides = st.builds(hide, a_job)
scenarios = st.lists(
    st.tuples(
        some_time,
        st.one_of(
            subscriptions,
            subscriptions,
            subscriptions,
            cancellations,
            advances,
            advances,
            latencies,
            faults,
            serious_faults,
            breaks,
            repairs,
            hides,
            refusals,
        ),
    ),
    max_size=40,
)


async def play(scenario: list[tuple[float, Step]], budget: float, batch_size: int) -> Simulation:
    """Run a scenario to its end: the service recovers, all jobs end, and all waits have time to receive that."""
    service = Service(states=dict.fromkeys(JOBS, STATES[0]), request_timeout=6.0)
    watcher = service.watcher(
        calls_per_second=budget,
        batch_size=batch_size,
        missing_grace=GRACE,
        denied_grace=DENIED_GRACE,
    )
    simulation = Simulation(service, watcher, [Waiter(watcher, "permanent", 20.0)], {})
    service.states["permanent"] = STATES[0]
    for seconds, step in scenario:
        await asyncio.sleep(seconds)
        step(simulation)
    service.plan.clear()
    service.latency, service.down = 0.0, None
    service.states |= dict.fromkeys([*JOBS, "permanent"], STATES[-1])
    await until(now() + 60)
    patience = now() + 1200
    while now() < patience and not all(has_received_all(waiter) for waiter in simulation.active):
        await until(now() + 20)
    return simulation


def has_received_all(waiter: Waiter) -> bool:
    """Return whether a wait has received a final state or an error for each of its jobs."""
    return all(waiter.seen(job_id)[-1:] == [STATES[-1]] or has_failed(waiter, job_id) for job_id in waiter.job_ids)


def has_failed(waiter: Waiter, job_id: str) -> bool:
    """Return whether the last item that a wait received for a job is an error."""
    return any(isinstance(news, WatchError) for news in waiter.seen(job_id)[-1:])


@many_scenarios
@given(scenarios, st.sampled_from([0.5, 2.0, 5.0]), st.sampled_from([1, 3, 100]))
def test_every_scenario_keeps_the_promises(scenario: list[tuple[float, Step]], budget: float, batch_size: int) -> None:
    """No wait is lost, no state is repeated or invented, and the rate limit is kept."""

    async def check() -> None:
        simulation = await play(scenario, budget, batch_size)
        calls = simulation.service.calls
        assert_calls_are_within(budget, batch_size, calls)
        for waiter in simulation.waiters:
            assert_received_states_are_correct(waiter, simulation.service)
        for waiter in simulation.active:
            assert has_received_all(waiter), f"lost: {waiter.job_ids} after {waiter.received}"
        await cancel_waits(simulation.active)
        assert_watcher_has_ended(simulation)

    run(check())


def assert_calls_are_within(budget: float, batch_size: int, calls: list[Call]) -> None:
    """Check that calls keep the budget and the batch size, and contain a job once."""
    assert all(gap >= 1 / budget - ROUNDING for gap in gaps([call.at for call in calls]))
    for call in calls:
        assert 0 < len(call.ids) <= batch_size
        assert len(set(call.ids)) == len(call.ids)


def assert_received_states_are_correct(waiter: Waiter, service: Service) -> None:
    """Check that a wait received only described states, in order, without repetitions, and nothing after an error."""
    for job_id in waiter.job_ids:
        heard = [(at, news) for at, about, news in waiter.received if about == job_id]
        asked = [call for call in service.calls if job_id in call.ids]
        states = [news for _, news in heard if isinstance(news, str)]
        errors = [(at, news) for at, news in heard if isinstance(news, WatchError)]
        assert len(states) == len(set(states)), f"{job_id} published twice: {states}"
        assert states == sorted(states, key=STATES.index), f"{job_id} went back: {states}"
        for at, news in heard:
            if isinstance(news, str):
                assert any(
                    abs(call.ended_at - at) < ROUNDING and call.answers is not None and call.answers.get(job_id) == news
                    for call in asked
                ), f"{job_id} was never described as {news}"
        assert not errors or heard[-1] == errors[0], f"{job_id} had news after the last word: {heard}"
        for at, error in errors:
            assert_error_has_a_cause(job_id, at, error, asked, service)


def assert_error_has_a_cause(job_id: str, at: float, error: WatchError, asked: list[Call], service: Service) -> None:
    """Check that an error has a cause that concerns the job, and that a missing job was missing long enough."""
    match error:
        case NotFound():
            answered = [call for call in asked if call.answers is not None and call.ended_at <= at]
            answered.sort(key=lambda call: call.ended_at)
            unknown = list(itertools.takewhile(lambda c: job_id not in (c.answers or {}), reversed(answered)))
            assert unknown[0].ended_at - unknown[-1].ended_at >= GRACE - ROUNDING
        case DescribeRejected():
            answers = [call.ended_at for call in asked if call.answers is not None and call.ended_at <= at]
            last_answer = max(answers, default=-math.inf)
            since = [call for call in asked if call.at >= last_answer and call.ended_at <= at + ROUNDING]
            grace = DENIED_GRACE if error.fault in (Fault.DENIED, Fault.CREDENTIALS) else REFUSED_GRACE
            assert since[-1].at - since[0].at >= min(grace, error.seconds) - ROUNDING
            assert error.seconds >= grace
            assert len(since) >= error.refusals >= MIN_REFUSALS
            if error.fault not in CONCERNS_ALL and any(
                since[0].at <= call.ended_at <= at for call in service.calls if call.answers is not None
            ):
                assert any(call.ids == (job_id,) for call in since), "never refused alone, though others were answered"
        case _:
            raise AssertionError(f"{job_id}: {error!r}")


def assert_watcher_has_ended(simulation: Simulation) -> None:
    """The watcher has ended, and its client was closed once."""
    assert simulation.watcher.ended
    assert len(simulation.service.closed) == 1
    assert not simulation.watcher._jobs
    assert not simulation.watcher._calls
    assert abs(simulation.watcher._schedule.describes_per_second) < ROUNDING


a_calm_step = st.one_of(subscriptions, subscriptions, cancellations, advances)


@many_scenarios
@given(
    st.lists(st.tuples(some_time, a_calm_step), min_size=1, max_size=30),
    st.sampled_from([0.5, 2.0, 5.0]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([0.0, 0.05, 0.9, 4.0]),
)
@example(  # the next call for the same job starts at the moment of the response
    [
        (9.5, subscribe(set(JOBS), 3.0)),
        (3.0, subscribe(set(JOBS), 3.0)),
        (0.1, subscribe({JOBS[0]}, 3.0)),
        (8.9, cancel_wait(0)),
    ],
    0.5,
    3,
    4.0,
)
def test_two_polls_of_a_job_are_an_interval_apart(
    scenario: list[tuple[float, Step]], budget: float, batch_size: int, latency: float
) -> None:
    """Without faults, with a tolerance of a tenth, except for the first two calls for a new wait."""

    async def check() -> None:
        simulation = await play([(0.0, set_latency(latency)), *scenario], budget, batch_size)
        for job_id in JOBS:
            waiters = [waiter for waiter in simulation.waiters if job_id in waiter.job_ids]
            times = [call.at for call in simulation.service.calls if job_id in call.ids]
            for before, at, after in zip([-math.inf, *times], times, times[1:], strict=False):
                if any(before <= waiter.subscribed_at <= after for waiter in waiters):
                    continue  # ``at`` or ``after`` is a first call, or ``after`` is a second one
                waited = [waiter.interval for waiter in waiters if waiter.subscribed_at < at <= waiter.cancelled_at]
                if waited:
                    assert after - at >= 0.9 * min(waited) - ROUNDING, f"{job_id} at {at} and {after}: {waited}"
        await cancel_waits(simulation.active)

    run(check())


@many_scenarios
@given(st.lists(st.tuples(some_time, a_calm_step), max_size=30))
def test_new_waits_are_described_within_a_second(scenario: list[tuple[float, Step]]) -> None:
    """This holds without faults, and while the budget suffices."""

    async def check() -> None:
        simulation = await play(scenario, budget=5.0, batch_size=100)
        for waiter in simulation.waiters:
            for job_id in waiter.job_ids if waiter.cancelled_at > waiter.subscribed_at + 1 else []:
                polls = [call.at for call in simulation.service.calls if job_id in call.ids]
                assert any(0 <= at - waiter.subscribed_at <= 1.0 for at in polls)
        await cancel_waits(simulation.active)
        await settle()

    run(check())


outages = st.lists(
    st.tuples(
        st.sampled_from([0.3, 1.0, 3.0, 8.9, 21.0]),
        st.one_of(
            subscriptions,
            cancellations,
            advances,
            refusals,
            st.builds(set_fault, st.sampled_from([Fault.TRANSIENT])),
            breaks,
            st.builds(
                lambda what, times: lambda simulation: simulation.service.plan.extend([what] * times),
                st.sampled_from(
                    [Fault.TRANSIENT, *REFUSALS, Misbehaviour.CRASH, Misbehaviour.CANCELLED, Misbehaviour.NONSENSE]
                ),
                st.integers(1, 12),
            ),
        ),
    ),
    max_size=30,
)


@many_scenarios
@given(outages, st.sampled_from([2, 3, 100]), st.floats(0.0, 1.0))
def test_after_an_outage_every_wait_sees_its_job_within_two_intervals(
    scenario: list[tuple[float, Step]], batch_size: int, jitter: float
) -> None:
    """This holds for all faults and pauses before, if the budget suffices."""

    async def check() -> None:
        service = Service(states=dict.fromkeys(JOBS, STATES[0]), latency=0.05)
        service.states["permanent"] = STATES[0]
        watcher = service.watcher(
            calls_per_second=20.0, batch_size=batch_size, denied_grace=1e6, jitter=lambda longest: longest * jitter
        )
        simulation = Simulation(service, watcher, [Waiter(watcher, "permanent", 20.0)], {})
        for seconds, step in scenario:
            await asyncio.sleep(seconds)
            step(simulation)
        await settle()
        service.plan.clear()
        service.bad.clear()
        service.down = None
        service.states = dict.fromkeys(service.states, STATES[-1])
        recovered = now()
        for waiter in sorted(simulation.active, key=lambda waiter: waiter.interval):
            await until(max(now(), recovered + 2 * max(waiter.interval, 1.0)))
            for job_id in waiter.job_ids:
                assert waiter.seen(job_id)[-1:] == [STATES[-1]] or rejected_for_a_minute(waiter, job_id)
        await cancel_waits(simulation.active)

    run(check())


def rejected_for_a_minute(waiter: Waiter, job_id: str) -> bool:
    """Return whether a wait has failed because AWS rejected the calls for its job for longer than the grace period."""
    last = waiter.seen(job_id)[-1]
    return (
        isinstance(last, DescribeRejected)
        and last.fault in (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)
        and last.seconds >= 60
    )
