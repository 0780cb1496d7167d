"""The state machine of a map: its invariants hold for every order of events."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.changes import Change
from airflow_jobflow.jobs.map_statuses import FAILED, IN_FULL, SUCCEEDED
from airflow_jobflow.jobs.maps import Found, Start, newest_first
from airflow_jobflow.jobs.packing import chunks, pack, unpack
from airflow_jobflow.maps.state import MapState


def map_state(size: int, indexes: list[int] | None = None, **more: int) -> MapState:
    """Return the state of a map that tolerates ``tolerated`` failures."""
    return MapState(
        size,
        list(range(size)) if indexes is None else indexes,
        max_concurrency=more.get("max_concurrency", 10),
        tolerance=Tolerance(more.get("tolerated", 0)),
        attempts=more.get("attempts", 1),
    )


EVENTS = st.sampled_from(["started", "no_capacity", "not_owned", "rejected", "succeeded", "failed", "starts again"])

INTERRUPTED = Change("i", {}, {}, "nothing changes, because its host was taken away")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.data(),
    st.integers(0, 12),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(1, 3),
)
def test_every_sequence_of_events_ends_with_all_items_ended_or_too_many_failed(
    data: st.DataObject, size: int, most: int, tolerated: int, attempts: int
) -> None:
    """No attempt is started twice, the concurrency limit holds, and items start in order."""
    indexes = sorted(data.draw(st.sets(st.integers(0, size - 1)))) if size else []
    state = map_state(size, indexes, max_concurrency=most, tolerated=tolerated, attempts=attempts)
    starting: list[Start] = []
    running: dict[str, int] = {}
    made: Counter[tuple[int, int]] = Counter()
    refusals: Counter[int] = Counter()
    first_starts: list[int] = []
    steps = 0
    while not state.is_over:
        steps += 1
        assert steps < 10_000
        while (start := state.next_start()) is not None:
            assert start.index in indexes
            assert start.index not in [each.index for each in starting] + list(running.values())
            if start == Start(start.index) and start.index not in first_starts:
                first_starts.append(start.index)
            starting.append(start)
        assert len(starting) + len(running) <= most
        event = data.draw(EVENTS)
        if event in ("started", "no_capacity", "not_owned", "rejected") and starting:
            start = starting.pop(data.draw(st.integers(0, len(starting) - 1)))
            if event == "rejected":
                state.record_rejected(start.index, f"{start.index}")
            elif event == "started" or refusals[start.index] >= 3:
                made[start.index, start.attempt] += 1
                job_id = f"{start.index}/{start.attempt}"
                running[job_id] = start.index
                state.record_started(start.index, job_id)
            else:
                refusals[start.index] += 1
                state.requeue(start, no_capacity=event == "no_capacity")
        elif event in ("succeeded", "failed", "starts again") and running:
            job_id = data.draw(st.sampled_from(sorted(running)))
            assert state.last_start(job_id).index == running.pop(job_id)
            if event == "starts again" and state.has_attempt_left(job_id):
                state.start_again(job_id, INTERRUPTED)
            else:
                state.record_end(job_id, job_id, SUCCEEDED if event == "succeeded" else FAILED)
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
def test_found_jobs_are_not_started_again(listed: list[tuple[int, int]]) -> None:
    """The newest attempt of an item counts."""
    found = [Found(index, f"{index}/{attempt}", "m" * (attempt - 1)) for index, attempt in listed]
    state = map_state(6, max_concurrency=99)
    counting = {each.job_id for each in newest_first(found) if state.record_found(each)}
    state.drop_found()
    newest = {index: max(a for i, a in listed if i == index) for index, _ in listed if 0 <= index < 6}
    assert counting == {f"{index}/{attempt}" for index, attempt in newest.items()}
    taken = []
    while start := state.next_start():
        taken.append(start.index)
    assert taken == [index for index in range(6) if index not in newest]


def test_an_interruption_is_a_new_attempt_and_missing_capacity_a_new_turn() -> None:
    """An interruption gets a new token, and a start without capacity is retried."""
    state = map_state(2, max_concurrency=1, attempts=2)
    first = state.next_start()
    assert first == Start(0)
    state.requeue(first, no_capacity=True)
    assert state.next_start() == Start(0, turn=1)
    state.record_started(0, "a")
    assert state.has_attempt_left("a")
    state.start_again("a", INTERRUPTED)
    assert state.next_start() == Start(0, "i")
    state.record_started(0, "b")
    assert not state.has_attempt_left("b")
    state.record_end("b", "", FAILED)
    assert state.too_many_failed
    assert state.next_start() is None


def test_running_jobs_still_end_after_starting_was_stopped() -> None:
    """A map with items that were not started is not over."""
    state = map_state(2, max_concurrency=2)
    assert state.next_start() == Start(0)
    state.record_started(0, "a")
    state.stop_starting()
    assert state.next_start() is None
    state.record_end("a", "", SUCCEEDED)
    assert (state.statuses, state.is_over) == ("S-", False)


def test_all_items_run_if_failures_do_not_stop_the_map() -> None:
    """No matter how many have failed."""
    state = MapState(3, range(3), max_concurrency=1, tolerance=Tolerance(), stop_on_failure=False)
    for index in range(3):
        assert state.next_start() == Start(index)
        state.record_started(index, f"{index}")
        state.record_end(f"{index}", "", FAILED)
        assert (state.too_many_failed, state.is_over) == (False, index == 2)
    assert state.statuses == "FFF"


def test_a_map_that_stopped_starting_is_stalled_once_nothing_runs() -> None:
    """It is not stalled while an item runs."""
    state = map_state(2, max_concurrency=2)
    assert state.next_start() == Start(0)
    state.stop_starting()
    assert not state.is_stalled
    state.record_started(0, "a")
    assert not state.is_stalled
    state.record_end("a", "", SUCCEEDED)
    assert (state.is_stalled, state.is_over) == (True, False)


def test_items_that_ended_before_a_checkpoint_are_not_started() -> None:
    """Their jobs may no longer be found. An item whose job could not be described may still run."""
    state = map_state(5, max_concurrency=99, tolerated=1)
    state.restore("SF-RU", {0: "zero", 1: "one", 4: "four"})
    state.drop_found()
    assert (state.lines(), state.next_start(), state.next_start(), state.next_start()) == (
        ["zero", "one", "four"],
        Start(2),
        Start(3),
        None,
    )


def test_a_large_map_keeps_the_result_lines_of_failures_only() -> None:
    """Otherwise memory would grow with the number of items."""
    for size, kept in ((IN_FULL, ["s", "f"]), (IN_FULL + 1, ["f"])):
        state = map_state(size, tolerated=9)
        for line in ("s", "f"):
            start = state.next_start()
            assert start
            state.record_started(start.index, line)
            state.record_end(line, line, SUCCEEDED if line == "s" else FAILED)
        assert state.lines() == kept


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=20))
def test_packing_keeps_lines(values: list[dict[str, str]]) -> None:
    """Lines survive packing, even if it splits them into parts: JSON has no line breaks."""
    lines = [json.dumps(value) for value in values]
    packed = pack(lines)
    assert unpack("".join(chunks(packed, 7))) == lines
