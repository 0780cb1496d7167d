"""How often a service may be called."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobflow.watch.pacing import FIRST_PAUSE, LONGEST_PAUSE, RECOVERY, SLOWEST, Pace, pause


def test_the_first_call_does_not_wait() -> None:
    """Nothing was spent yet."""
    assert Pace(5.0).delay(0.0) == 0.0


@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0, 2.5, 5.0, 50.0])
def test_calls_are_spaced_by_the_budget(budget: float) -> None:
    """The next call may go out one part of the budget later, not sooner."""
    pace = Pace(budget)
    pace.spend(100.0)
    assert pace.delay(100.0) == pytest.approx(1 / budget)
    assert pace.delay(100.0 + 0.5 / budget) == pytest.approx(0.5 / budget)
    assert pace.delay(100.0 + 1 / budget) == pytest.approx(0.0)


def test_quiet_time_is_not_saved_up() -> None:
    """An hour without calls does not allow a burst."""
    pace = Pace(5.0)
    pace.spend(0.0)
    pace.spend(3600.0)
    assert pace.delay(3600.0) == pytest.approx(0.2)


def test_throttling_halves_the_pace_and_holds_the_next_call() -> None:
    """The call after a throttled one waits for as long as the new pace says."""
    pace = Pace(4.0)
    pace.spend(10.0)
    pace.throttled(10.1, sent_at=10.0)
    assert pace.rate == 2.0
    assert pace.delay(10.1) == pytest.approx(0.5)


def test_calls_throttled_together_halve_the_pace_once() -> None:
    """Ten calls that were on their way are one piece of news, not ten."""
    pace = Pace(8.0)
    pace.throttled(1.0, sent_at=0.9)
    for sent_at in (0.1, 0.5, 0.99):
        pace.throttled(1.1, sent_at=sent_at)
    assert pace.rate == 4.0


def test_a_call_throttled_at_the_halved_pace_halves_it_again() -> None:
    """Throttling that goes on is answered by a pace that goes down."""
    pace = Pace(8.0)
    pace.throttled(1.0, sent_at=0.9)
    pace.throttled(1.6, sent_at=1.5)
    assert pace.rate == 2.0


def test_a_pace_never_falls_to_nothing() -> None:
    """However long a service throttles, it is asked now and then."""
    pace = Pace(5.0)
    for second in range(100):
        pace.throttled(second + 0.5, sent_at=second)
    assert pace.rate == SLOWEST


def test_a_budget_below_the_slowest_pace_is_kept() -> None:
    """Throttling does not raise a small budget."""
    pace = Pace(SLOWEST / 2)
    pace.throttled(0.1, sent_at=0.0)
    assert pace.rate == SLOWEST / 2


def test_the_pace_recovers_within_a_minute_of_answers() -> None:
    """From the slowest to the whole budget, a little with each answer, and no further."""
    pace = Pace(5.0)
    for second in range(10):
        pace.throttled(second + 0.5, sent_at=second)
    rates = []
    for second in range(10, int(10 + RECOVERY)):
        pace.answered(float(second))
        rates.append(pace.rate)
    assert rates == sorted(rates)
    assert rates[0] < 0.2
    assert rates[len(rates) // 2] == pytest.approx(2.5, rel=0.1)
    assert rates[-1] == pytest.approx(5.0, rel=0.05)
    pace.answered(1000.0)
    assert pace.rate == 5.0


def test_time_before_the_throttling_wins_nothing_back() -> None:
    """An hour at the full pace does not make up for what comes after."""
    pace = Pace(5.0)
    pace.answered(0.0)
    pace.throttled(3600.0, sent_at=3599.0)
    pace.answered(3600.0)
    assert pace.rate == 2.5


def test_pauses_double_from_the_first_to_the_longest() -> None:
    """A failing service is left alone for longer and longer, but never for good."""
    assert [pause(failures) for failures in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause(1) == FIRST_PAUSE
    assert pause(100_000) == LONGEST_PAUSE


happenings = st.lists(
    st.tuples(st.sampled_from(["call", "throttled", "answered"]), st.floats(0.0, 30.0)), min_size=1, max_size=60
)


@settings(derandomize=True, print_blob=True, deadline=None, max_examples=200)
@given(budget=st.floats(0.05, 50.0), script=happenings)
def test_whatever_happens_no_second_holds_more_calls_than_the_budget(
    budget: float, script: list[tuple[str, float]]
) -> None:
    """A caller that asks for the delay and keeps it stays within the budget, and the pace within its bounds."""
    pace, now, calls = Pace(budget), 0.0, [-math.inf]
    for happening, seconds in script:
        now += seconds
        match happening:
            case "throttled":
                pace.throttled(now, sent_at=calls[-1])
            case "answered":
                pace.answered(now)
            case _:
                now += pace.delay(now)
                assert now - calls[-1] >= 1 / budget - 1e-9
                calls.append(now)
                pace.spend(now)
        assert min(SLOWEST, budget) <= pace.rate <= budget
