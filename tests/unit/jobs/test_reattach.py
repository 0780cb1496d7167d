"""Every row of the table of what is done with what an earlier try has left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.reattach import Action, Decision, Notes, decide

NOTED_AT = 1_000_000.0
GRACE = 300.0
START, REPEAT, KEEP = Action.START, Action.REPEAT, Action.KEEP


def notes(**fields: Any) -> Notes:
    """What an earlier try has noted."""
    return Notes(**{"nonce": "abcd", "job_ids": ("a",), "max_tries": 2, "place": "here", "at": NOTED_AT, **fields})


def job(job_id: str, state: str, created: float | None = 10.0) -> Snapshot:
    """A job as AWS knows it, created some seconds after the attempt was noted."""
    moment = None if created is None else datetime.fromtimestamp(NOTED_AT + created, tz=UTC).isoformat()
    return Snapshot(job_id, JobState[state], state, created_at=moment)


def decided(noted: Notes, *found: Snapshot, max_tries: int = 2, after: float = 1000.0) -> Decision:
    """What is decided some seconds after the attempt was noted."""
    return decide(noted, found, max_tries=max_tries, place="here", now=NOTED_AT + after, grace=GRACE)


def done(decision: Decision) -> tuple[Action, list[str], list[str]]:
    """What is done, without the reason."""
    return decision.action, list(decision.keep), list(decision.stop)


def test_a_first_try_starts() -> None:
    """So does one in a run of the DAG that was deleted and made again: its notes went with it."""
    assert done(decided(Notes())) == (START, [], [])


def test_what_was_started_elsewhere_is_left_and_told_of() -> None:
    """An id of another region or connection means nothing here."""
    decision = decided(notes(place="eu-west-1"), job("a", "RUNNING"))
    assert done(decision) == (START, [], [])
    assert "eu-west-1" in decision.why
    assert "a" in decision.why


def test_a_clear_stops_what_runs_and_starts_over() -> None:
    """A person wants it again from the beginning."""
    assert done(decided(notes(), job("a", "RUNNING"), max_tries=3)) == (START, [], ["a"])


@pytest.mark.parametrize("found", [[], [job("a", "SUCCEEDED")], [job("a", "FAILED")]])
def test_a_clear_of_what_has_ended_starts_over(found: list[Snapshot]) -> None:
    """An old success is not the result of a new run."""
    assert done(decided(notes(), *found, max_tries=3)) == (START, [], [])


def test_retries_that_were_lowered_are_no_clear() -> None:
    """Airflow leaves max_tries as they were until a clear."""
    assert done(decided(notes(max_tries=5), job("a", "RUNNING"), max_tries=5)) == (KEEP, ["a"], [])


def test_a_clear_of_a_task_without_known_ids_stops_what_it_finds() -> None:
    """Its worker died before it could note them."""
    assert done(decided(notes(job_ids=()), job("a", "RUNNING"), max_tries=3)) == (START, [], ["a"])


def test_what_a_killed_task_left_running_is_stopped() -> None:
    """Its own stop may have failed."""
    assert done(decided(notes(abandoned=True), job("a", "RUNNING"))) == (START, [], ["a"])


def test_what_somebody_else_started_is_never_stopped() -> None:
    """A crawl that was merely joined is not ours."""
    assert done(decided(notes(joined=True), job("a", "RUNNING"), max_tries=3)) == (START, [], [])


@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_a_retry_keeps_what_runs_or_has_succeeded(state: str) -> None:
    """One attempt starts one job."""
    assert done(decided(notes(), job("a", state))) == (KEEP, ["a"], [])


def test_a_retry_of_what_failed_starts() -> None:
    """That is what retries are for."""
    assert done(decided(notes(), job("a", "FAILED"))) == (START, [], [])


def test_parts_of_which_one_still_runs_are_kept() -> None:
    """The verdict on all comes when the last one ends."""
    found = [job("a", "FAILED"), job("b", "RUNNING")]
    assert done(decided(notes(job_ids=("a", "b")), *found)) == (KEEP, ["a", "b"], [])


def test_a_job_that_was_just_started_may_be_unknown() -> None:
    """A second one beside it would be the fault this is all about."""
    assert done(decided(notes(), after=GRACE)) == (KEEP, ["a"], [])


def test_a_job_that_exists_no_longer_is_started_anew() -> None:
    """Nobody can tell how it went."""
    decision = decided(notes(), after=GRACE + 1)
    assert done(decision) == (START, [], [])
    assert "no longer" in decision.why


def test_an_attempt_that_left_no_trace_is_made_again() -> None:
    """Under the same nonce: should a trace show up late, it is of the same attempt."""
    assert done(decided(notes(job_ids=()))) == (REPEAT, [], [])


@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_what_was_started_and_not_noted_is_kept(state: str) -> None:
    """The worker died between the answer and the note."""
    assert done(decided(notes(job_ids=()), job("x", state))) == (KEEP, ["x"], [])


def test_what_was_started_and_not_noted_and_failed_starts() -> None:
    """As if it had been noted."""
    assert done(decided(notes(job_ids=()), job("x", "FAILED"))) == (START, [], [])


def test_of_two_with_one_name_the_first_is_kept_and_the_other_stopped() -> None:
    """Somebody cloned the job in the console, or a lost submit showed up late."""
    found = [job("later", "RUNNING", 20), job("first", "RUNNING", 10)]
    assert done(decided(notes(job_ids=()), *found)) == (KEEP, ["first"], ["later"])


def test_of_two_with_one_name_the_good_one_is_kept() -> None:
    """One of them failed, so it is no answer."""
    found = [job("good", "SUCCEEDED", 20), job("bad", "FAILED", 10), job("late", "SUCCEEDED", 30)]
    assert done(decided(notes(job_ids=()), *found)) == (KEEP, ["good"], [])


def test_parts_of_which_only_some_are_known_are_completed() -> None:
    """What the repeated attempt finds under its names it does not start again."""
    assert done(decided(notes(job_ids=(), several=True), job("x", "RUNNING"))) == (REPEAT, [], [])
    assert done(decided(notes(job_ids=(), several=True), job("x", "RUNNING"), max_tries=3)) == (START, [], ["x"])


def test_a_job_with_the_right_name_that_is_older_is_not_ours() -> None:
    """It was there before this attempt was noted; clocks may differ by a minute."""
    assert done(decided(notes(job_ids=()), job("x", "RUNNING", -61))) == (REPEAT, [], [])
    assert done(decided(notes(job_ids=()), job("x", "RUNNING", -59))) == (KEEP, ["x"], [])


def test_notes_of_an_older_version_are_read() -> None:
    """An upgrade between two tries must not start a second job without a word."""
    assert Notes.read({}) == Notes()
    noted = {"nonce": "abcd", "job_ids": ["a"], "max_tries": 2, "deadline": None, "unknown": 1}
    assert Notes.read(noted) == Notes("abcd", ("a",), 2)


SNAPSHOTS = st.builds(job, st.sampled_from("abcd"), st.sampled_from(list(JobState.__members__)), st.floats(-100, 100))


def test_a_clear_stops_nothing_that_only_has_the_name() -> None:
    """It is somebody else's."""
    assert done(decided(notes(job_ids=()), job("x", "RUNNING", -61), max_tries=3)) == (START, [], [])


@given(
    noted=st.builds(
        notes,
        job_ids=st.lists(st.sampled_from("abcd"), unique=True).map(tuple),
        abandoned=st.booleans(),
        joined=st.booleans(),
    ),
    found=st.lists(SNAPSHOTS, max_size=4, unique_by=lambda each: each.job_id),
    max_tries=st.integers(2, 3),
    after=st.floats(0, 1000),
)
def test_whatever_was_left_nothing_runs_that_nobody_wants(
    noted: Notes, found: list[Snapshot], max_tries: int, after: float
) -> None:
    """Of what runs and is this task's, all is kept or stopped, and nothing both; nothing starts beside what is kept."""
    known = [each for each in found if not noted.job_ids or each.job_id in noted.job_ids]
    decision = decided(noted, *known, max_tries=max_tries, after=after)
    running = {each.job_id for each in known if not each.state.ended}
    since = datetime.fromtimestamp(NOTED_AT - 60, tz=UTC)
    older = {each.job_id for each in known if datetime.fromisoformat(each.created_at or "") < since}
    ours = running if noted.job_ids else running - older
    assert not set(decision.keep) & set(decision.stop)
    if not noted.joined:
        assert ours <= set(decision.keep) | set(decision.stop)
        assert not (running - ours) & (set(decision.keep) | set(decision.stop))
    assert bool(decision.keep) == (decision.action is KEEP)
