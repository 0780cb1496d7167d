"""A map's arithmetic: whatever happens in whatever order, what it promises holds."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.map_statuses import FAILED, IN_FULL, SUCCEEDED
from airflow_jobflow.jobs.maps import Found, Start
from airflow_jobflow.jobs.packing import chunks, pack, unpack
from airflow_jobflow.maps.state import MapState, newest_first


def fan_out(size: int, indexes: list[int] | None = None, **more: int) -> MapState:
    """A map that tolerates so many failures."""
    return MapState(
        size,
        list(range(size)) if indexes is None else indexes,
        max_concurrency=more.get("max_concurrency", 10),
        tolerance=Tolerance(more.get("tolerated", 0)),
        attempts=more.get("attempts", 1),
    )


EVENTS = st.sampled_from(["started", "full", "halted", "refused", "succeeded", "failed", "interrupted"])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.data(),
    st.integers(0, 12),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(1, 3),
)
def test_whatever_happens_every_story_ends_well_or_with_a_broken_tolerance(
    data: st.DataObject, size: int, most: int, tolerated: int, attempts: int
) -> None:
    """Nothing is started twice, never more than allowed at once, results stay in the items' order."""
    indexes = sorted(data.draw(st.sets(st.integers(0, size - 1)))) if size else []
    state = fan_out(size, indexes, max_concurrency=most, tolerated=tolerated, attempts=attempts)
    starting: list[Start] = []
    running: dict[str, int] = {}
    made: Counter[tuple[int, int]] = Counter()
    want_of_room: Counter[int] = Counter()
    first_starts: list[int] = []
    steps = 0
    while not state.is_over:
        steps += 1
        assert steps < 10_000
        while (start := state.next_start()) is not None:
            assert start.index in indexes
            assert start.index not in [each.index for each in starting] + list(running.values())
            if (start.attempt, start.turn) == (1, 0) and start.index not in first_starts:
                first_starts.append(start.index)
            starting.append(start)
        assert len(starting) + len(running) <= most
        event = data.draw(EVENTS)
        if event in ("started", "full", "halted", "refused") and starting:
            start = starting.pop(data.draw(st.integers(0, len(starting) - 1)))
            if event == "refused":
                state.record_rejected(start.index, f"{start.index}")
            elif event == "started" or want_of_room[start.index] >= 3:
                made[start.index, start.attempt] += 1
                job_id = f"{start.index}/{start.attempt}"
                running[job_id] = start.index
                state.record_started(start.index, job_id)
            else:
                want_of_room[start.index] += 1
                state.requeue(start, no_capacity=event == "full")
        elif event in ("succeeded", "failed", "interrupted") and running:
            job_id = data.draw(st.sampled_from(sorted(running)))
            assert state.index_of(job_id) == running.pop(job_id)
            state.record_end(job_id, job_id, succeeded=event == "succeeded", interrupted=event == "interrupted")
    assert first_starts == sorted(first_starts)
    assert all(count == 1 for count in made.values())
    assert all(attempt <= attempts for _, attempt in made)
    assert sorted(state.running) == sorted(running)
    assert state.too_many_failed == (state.count(FAILED) > tolerated)
    assert state.can_start is False or not state.too_many_failed
    if not state.too_many_failed:
        assert set(state.statuses) <= {SUCCEEDED, FAILED}
    assert all(status == SUCCEEDED for index, status in enumerate(state.statuses) if index not in indexes)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(1, 3)), max_size=12, unique=True))
def test_what_was_found_is_not_started_again(listed: list[tuple[int, int]]) -> None:
    """Of an item's attempts the newest counts."""
    found = [Found(index, f"{index}/{attempt}", attempt) for index, attempt in listed]
    state = fan_out(6, max_concurrency=99)
    counting = {each.job_id for each in newest_first(found) if state.record_found(each)}
    state.drop_found()
    newest = {index: max(a for i, a in listed if i == index) for index, _ in listed if 0 <= index < 6}
    assert counting == {f"{index}/{attempt}" for index, attempt in newest.items()}
    taken = []
    while start := state.next_start():
        taken.append(start.index)
    assert taken == [index for index in range(6) if index not in newest]


def test_an_interruption_is_another_attempt_and_a_want_of_room_another_turn() -> None:
    """Each start has a token of its own."""
    state = fan_out(2, max_concurrency=1, attempts=2)
    first = state.next_start()
    assert first == Start(0)
    state.requeue(first, no_capacity=True)
    assert state.next_start() == Start(0, turn=1)
    state.record_started(0, "a")
    assert state.attempt_of("a") == 1
    assert state.record_end("a", "", succeeded=False, interrupted=True)
    assert state.next_start() == Start(0, attempt=2)
    state.record_started(0, "b")
    assert not state.record_end("b", "", succeeded=False, interrupted=True)
    assert state.too_many_failed
    assert state.next_start() is None


def test_what_runs_when_nothing_is_to_be_started_any_more_still_ends() -> None:
    """And what was not started keeps the map from being over."""
    state = fan_out(2, max_concurrency=2)
    assert state.next_start() == Start(0)
    state.record_started(0, "a")
    state.stop_starting()
    assert state.next_start() is None
    state.record_end("a", "", succeeded=True)
    assert (state.statuses, state.is_over) == ("S-", False)


def test_all_items_are_run_where_a_failure_does_not_end_the_map() -> None:
    """However many have failed."""
    state = MapState(3, range(3), max_concurrency=1, tolerance=Tolerance(), stop_on_failure=False)
    for index in range(3):
        assert state.next_start() == Start(index)
        state.record_started(index, f"{index}")
        state.record_end(f"{index}", "", succeeded=False)
        assert (state.too_many_failed, state.is_over) == (False, index == 2)
    assert state.statuses == "FFF"


def test_a_map_that_starts_no_more_is_stalled_once_nothing_runs() -> None:
    """Not before, and not where nothing is left to be started."""
    state = fan_out(2, max_concurrency=2)
    assert state.next_start() == Start(0)
    state.stop_starting()
    assert not state.is_stalled
    state.record_started(0, "a")
    assert not state.is_stalled
    state.record_end("a", "", succeeded=True)
    assert (state.is_stalled, state.is_over) == (True, False)


def test_what_an_earlier_trigger_knew_to_have_ended_is_not_started() -> None:
    """Though it can be found no more."""
    state = fan_out(4, max_concurrency=99, tolerated=1)
    state.restore("SF-R", {0: "zero", 1: "one"})
    state.drop_found()
    assert (state.lines(), state.next_start(), state.next_start(), state.next_start()) == (
        ["zero", "one"],
        Start(2),
        Start(3),
        None,
    )


def test_only_failures_of_a_large_map_are_kept() -> None:
    """What is kept is bounded."""
    for size, kept in ((IN_FULL, ["s", "f"]), (IN_FULL + 1, ["f"])):
        state = fan_out(size, tolerated=9)
        for line in ("s", "f"):
            start = state.next_start()
            assert start
            state.record_started(start.index, line)
            state.record_end(line, line, succeeded=line == "s")
        assert state.lines() == kept


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=20))
def test_packing_keeps_lines(values: list[dict[str, str]]) -> None:
    """Also when cut in pieces; JSON has no line breaks."""
    lines = [json.dumps(value) for value in values]
    packed = pack(lines)
    assert unpack("".join(chunks(packed, 7))) == lines
