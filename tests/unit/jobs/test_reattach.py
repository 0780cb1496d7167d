"""Every row and every note of the table of what is done with what earlier tries have started."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_jobflow.jobs.attempt import Attempt, Try
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.reattach import SKEW, Action, Decision, Found, Now, decide

RUN_BEGAN_AT = 1_000_000.0
BEGAN_AT = RUN_BEGAN_AT + 100
GRACE = 300.0
START, REPEAT, KEEP = Action.START, Action.REPEAT, Action.KEEP
CLEARS = 1
"""How often something in the DAG run was cleared before the try that decides."""


def recorded(**fields: Any) -> Attempt:
    """What the last try has recorded, since the last clear."""
    return Attempt(
        **{"token": "abcd", "number": 1, "clear_number": CLEARS, "location": "here", "began_at": BEGAN_AT, **fields}
    )


def found(
    job_id: str,
    state: str,
    created: float | None = 110.0,
    *,
    clears: int | None = CLEARS,
    stopping: bool = False,
    part: bool = False,
) -> Found:
    """A job as AWS knows it.

    :param created: seconds after the start of the run; None if AWS does not say.
    :param clears: the clear number of the try that started it; None if it carries no try.
    :param part: whether it is a part of an array.
    """
    moment = None if created is None else datetime.fromtimestamp(RUN_BEGAN_AT + created, tz=UTC).isoformat()
    job = Snapshot(job_id, JobState[state], state, created_at=moment, stopped_by_request=stopping)
    return Found(job, None if clears is None else Try(1, 2, clears), part)


def decided(record: Attempt, *jobs: Found, after: float = 1000.0, clears: int = CLEARS) -> Decision:
    """What is decided some seconds after the attempt began."""
    return decide(record, jobs, Now(clears, "here", RUN_BEGAN_AT, BEGAN_AT + after, GRACE))


def done(decision: Decision) -> tuple[Action, list[str], list[str]]:
    """What is done, without the reason."""
    return decision.action, list(decision.keep), list(decision.stop)


# The two rows that come first.


def test_what_was_started_elsewhere_is_left_and_logged() -> None:
    """An id of another region or connection means nothing here."""
    decision = decided(recorded(location="eu-west-1", job_ids=["a"]), found("a", "RUNNING"))
    assert done(decision) == (START, [], [])
    assert "elsewhere (eu-west-1: a)" in decision.why
    assert "no id is known" in decided(recorded(location="eu-west-1")).why


@pytest.mark.parametrize("record", [Attempt(), recorded(clear_number=0), recorded(clear_number=0, job_ids=["a"])])
def test_a_clear_stops_what_runs_and_starts_over(record: Attempt) -> None:
    """With a record and without: Airflow 3.2 has no task state store."""
    decision = decided(record, found("a", "RUNNING", clears=0), found("b", "SUCCEEDED", clears=0))
    assert done(decision) == (START, [], ["a"])
    assert "cleared" in decision.why


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_a_clear_of_what_has_ended_starts_over(state: str) -> None:
    """An old success is not the result of a new run, whether max_tries was changed by the clear or not (D2)."""
    assert done(decided(recorded(clear_number=0), found("a", state, clears=0))) == (START, [], [])
    assert done(decided(Attempt(), found("a", state, clears=0))) == (START, [], [])


def test_a_job_of_before_a_clear_is_stopped_and_the_one_after_it_is_kept() -> None:
    """The stop of the try that was cleared may have failed."""
    jobs = found("old", "RUNNING", 50, clears=0), found("new", "RUNNING")
    assert done(decided(recorded(), *jobs)) == (KEEP, ["new"], ["old"])
    assert done(decided(Attempt(), *jobs)) == (KEEP, ["new"], ["old"])


def test_a_job_without_a_try_counts_as_of_before_a_clear_unless_there_was_none() -> None:
    """The role may not tag: only the record then says that the task was not cleared."""
    assert done(decided(Attempt(), found("a", "RUNNING", clears=None))) == (START, [], ["a"])
    assert done(decided(recorded(clear_number=0), found("a", "RUNNING", clears=None))) == (START, [], ["a"])
    assert done(decided(recorded(), found("a", "RUNNING", clears=None))) == (KEEP, ["a"], [])


def test_a_job_that_was_kept_without_a_record_is_not_kept_after_a_clear() -> None:
    """It was found by its group only, so no token is recorded of it."""
    record = recorded(token="", job_ids=["a"], clear_number=0)
    assert done(decided(record, found("a", "RUNNING", clears=0), after=1)) == (START, [], ["a"])


def test_what_somebody_else_started_is_never_stopped() -> None:
    """A crawl that was merely joined: not by a clear, and not by a kill."""
    crawl = found("a", "RUNNING", clears=None)
    assert done(decided(recorded(joined=True, job_ids=["a"], clear_number=0), crawl)) == (START, [], [])
    assert done(decided(recorded(joined=True, job_ids=["a"], abandoned=True), crawl)) == (START, [], [])
    assert done(decided(recorded(joined=True, job_ids=["a"]), crawl)) == (KEEP, ["a"], [])


# abandoned


def test_what_a_killed_task_left_running_is_stopped() -> None:
    """Its own stop may have failed."""
    assert done(decided(recorded(abandoned=True), found("a", "RUNNING"))) == (START, [], ["a"])
    assert done(decided(recorded(abandoned=True, job_ids=["a"]), found("a", "RUNNING"))) == (START, [], ["a"])


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_the_result_of_what_a_killed_task_left_is_not_taken(state: str) -> None:
    """Nobody wants it."""
    assert done(decided(recorded(abandoned=True), found("a", state))) == (START, [], [])


# ids


def test_a_job_that_was_just_started_may_be_unknown() -> None:
    """A second one beside it would be the fault that all of this prevents."""
    assert done(decided(recorded(job_ids=["a"]), after=GRACE)) == (KEEP, ["a"], [])


def test_a_job_that_exists_no_longer_is_started_anew() -> None:
    """Its result is not known."""
    decision = decided(recorded(job_ids=["a"]), after=GRACE + 1)
    assert done(decision) == (START, [], [])
    assert "no longer" in decision.why


@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_a_retry_keeps_what_is_recorded_and_runs_or_has_succeeded(state: str) -> None:
    """One attempt starts one job. What is recorded counts whatever its age."""
    assert done(decided(recorded(job_ids=["a"]), found("a", state, -1000))) == (KEEP, ["a"], [])


def test_a_retry_of_what_is_recorded_and_failed_starts() -> None:
    """That is what retries are for."""
    assert done(decided(recorded(job_ids=["a"]), found("a", "FAILED"))) == (START, [], [])
    assert done(decided(recorded(job_ids=["a"]), found("a", "RUNNING", stopping=True))) == (START, [], [])


def test_parts_of_which_one_still_runs_are_kept() -> None:
    """The outcome of all comes when the last one ends."""
    record = recorded(job_ids=["a", "b"], parts=["0-3", "7"])
    assert done(decided(record, found("a", "FAILED"), found("b", "RUNNING"))) == (KEEP, ["a", "b"], [])
    assert done(decided(record, found("a", "FAILED"), found("b", "SUCCEEDED"))) == (START, [], [])
    assert done(decided(record, found("a", "SUCCEEDED"), found("b", "SUCCEEDED"))) == (KEEP, ["a", "b"], [])


def test_what_runs_beside_the_recorded_job_is_stopped() -> None:
    """Somebody has cloned it in the console."""
    jobs = found("a", "RUNNING"), found("clone", "RUNNING")
    assert done(decided(recorded(job_ids=["a"]), *jobs)) == (KEEP, ["a"], ["clone"])


def test_what_runs_though_the_recorded_job_has_failed_is_kept() -> None:
    """Two of one task instance must not run at once."""
    jobs = found("a", "FAILED"), found("b", "RUNNING")
    assert done(decided(recorded(job_ids=["a"]), *jobs)) == (KEEP, ["b"], [])


# several parts, no ids


def test_parts_of_which_only_some_are_known_are_completed() -> None:
    """What the repeated attempt finds under its names it does not start again."""
    record = recorded(parts=["0-3", "7"])
    assert done(decided(record, found("x", "RUNNING"))) == (REPEAT, [], [])
    assert done(decided(recorded(parts=["0-3", "7"], clear_number=0), found("x", "RUNNING", clears=0))) == (
        START,
        [],
        ["x"],
    )


@pytest.mark.parametrize("record", [recorded(job_ids=["whole"], size=9), Attempt()])
def test_a_part_is_not_the_array(record: Attempt) -> None:
    """Another part could not be submitted, so the record is of the array that came before."""
    whole, done_part = found("whole", "FAILED", 100), found("x", "SUCCEEDED", part=True)
    decision = decided(record, whole, done_part, found("y", "RUNNING", part=True))
    assert done(decision) == (START, [], ["y"])
    assert decision.failed == ([] if record.job_ids else ["whole"])
    assert done(decided(record, found("x", "RUNNING", part=True))) == (START, [], ["x"])


def test_parts_that_are_recorded_are_the_array() -> None:
    """Together they have the result."""
    jobs = [found(each, "SUCCEEDED", part=True) for each in "ab"]
    assert done(decided(recorded(job_ids=["a", "b"], parts=["0-3", "7"]), *jobs)) == (KEEP, ["a", "b"], [])


# anything else


@pytest.mark.parametrize("record", [recorded(), Attempt()])
@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_what_was_started_and_not_recorded_is_kept(record: Attempt, state: str) -> None:
    """The worker died between the response and the record, or there is no store."""
    assert done(decided(record, found("x", state))) == (KEEP, ["x"], [])


@pytest.mark.parametrize("record", [recorded(), Attempt()])
def test_what_was_started_and_not_recorded_and_failed_starts(record: Attempt) -> None:
    """As if it had been recorded."""
    decision = decided(record, found("x", "FAILED"), found("old", "FAILED", clears=0))
    assert done(decision) == (START, [], [])
    assert decision.failed == ["x"]  # not what failed before the clear


def test_a_job_that_somebody_is_stopping_is_not_waited_for() -> None:
    """Nor is its attempt repeated: with the same token, ECS would answer with the very task."""
    assert done(decided(recorded(), found("x", "RUNNING", stopping=True))) == (START, [], [])


def test_of_two_the_first_is_kept_and_the_other_stopped() -> None:
    """A lost submit showed up late."""
    jobs = found("later", "RUNNING", 120), found("first", "RUNNING", 110)
    assert done(decided(recorded(), *jobs)) == (KEEP, ["first"], ["later"])


def test_of_two_the_good_one_is_kept() -> None:
    """One of them failed, so it is no answer."""
    jobs = found("good", "SUCCEEDED", 120), found("bad", "FAILED", 110), found("late", "SUCCEEDED", 130)
    assert done(decided(recorded(), *jobs)) == (KEEP, ["good"], [])


def test_jobs_that_are_older_than_the_run_are_of_a_deleted_one() -> None:
    """A run that was deleted and created again under its id has the same group. Clocks may differ by a minute."""
    assert done(decided(Attempt(), found("x", "RUNNING", -SKEW - 1))) == (START, [], [])
    assert done(decided(Attempt(), found("x", "RUNNING", -SKEW + 1))) == (KEEP, ["x"], [])
    assert done(decided(recorded(), found("x", "RUNNING", -SKEW - 1))) == (REPEAT, [], [])


def test_a_run_that_was_queued_again_has_jobs_that_are_older_than_its_start() -> None:
    """Its record, which a deletion of the run would have deleted, says since when."""
    assert done(decided(recorded(began_at=RUN_BEGAN_AT - 500), found("x", "RUNNING", -400))) == (KEEP, ["x"], [])


def test_a_job_whose_age_is_unknown_counts() -> None:
    """It is listed, and cannot be described yet."""
    assert done(decided(recorded(), found("x", "SUBMITTED", None))) == (KEEP, ["x"], [])


def test_an_attempt_that_left_no_trace_is_made_again() -> None:
    """Under the same token: should a trace show up late, it is of the same attempt."""
    assert done(decided(recorded())) == (REPEAT, [], [])


def test_without_a_record_and_a_job_it_starts() -> None:
    """An earlier try ended before it came so far."""
    assert done(decided(Attempt())) == (START, [], [])
    assert "no job" in decided(Attempt()).why
    assert "cleared" in decided(recorded(clear_number=0)).why


STATES = st.sampled_from(list(JobState.__members__))
JOBS = st.lists(
    st.builds(
        found,
        st.sampled_from("abcd"),
        STATES,
        st.one_of(st.none(), st.floats(-200, 300)),
        clears=st.sampled_from([None, 0, CLEARS]),
        stopping=st.booleans(),
        part=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda each: each.job.job_id,
)
RECORDS = st.one_of(
    st.just(Attempt()),
    st.builds(
        recorded,
        job_ids=st.lists(st.sampled_from("abcd"), unique=True, max_size=2),
        abandoned=st.booleans(),
        clear_number=st.sampled_from([0, CLEARS]),
        token=st.sampled_from(["", "abcd"]),
    ),
)


def _of_this_run(jobs: Sequence[Found], record: Attempt) -> list[Found]:
    """The jobs that certainly belong to this run: they are recorded, or began after it."""
    since = datetime.fromtimestamp(RUN_BEGAN_AT, tz=UTC)
    return [
        each
        for each in jobs
        if each.job.job_id in record.job_ids
        or not each.job.created_at
        or datetime.fromisoformat(each.job.created_at) >= since
    ]


@given(record=RECORDS, jobs=JOBS, after=st.floats(0, 1000))
def test_never_do_two_jobs_of_one_task_instance_run_on(record: Attempt, jobs: list[Found], after: float) -> None:
    """What runs is kept or stopped, or somebody else is stopping it; never both; nothing starts beside what is kept."""
    recorded_jobs = [each for each in jobs if each.job.job_id in record.job_ids]
    assume(all(each.by is None or each.by.clear_number <= record.clear_number for each in recorded_jobs))
    decision = decided(record, *jobs, after=after)
    assert not set(decision.keep) & set(decision.stop)
    assert bool(decision.keep) == (decision.action is KEEP)
    running = {
        each.job.job_id
        for each in _of_this_run(jobs, record)
        if not each.job.state.ended and not each.job.stopped_by_request
    }
    assert running <= set(decision.keep) | set(decision.stop)
    if len(record.job_ids) < 2:  # the parts of one array are one job
        assert len(decision.keep) <= 1


@given(record=RECORDS, jobs=JOBS, after=st.floats(0, 1000))
def test_a_clear_always_starts_a_new_job(record: Attempt, jobs: list[Found], after: float) -> None:
    """Whatever is found, and whatever is recorded."""
    decision = decided(record, *jobs, after=after, clears=CLEARS + 1)
    assert decision.action is START
    running = {each.job.job_id for each in jobs if not each.job.state.ended}
    assert set(decision.stop) == running


@given(
    job_ids=st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=1),
    abandoned=st.booleans(),
    clears=st.integers(0, CLEARS),
    jobs=JOBS,
    after=st.floats(0, 1000),
)
def test_nothing_that_was_joined_is_ever_stopped(
    job_ids: list[str], abandoned: bool, clears: int, jobs: list[Found], after: float
) -> None:
    """It is somebody else's."""
    record = recorded(joined=True, job_ids=job_ids, abandoned=abandoned, clear_number=clears)
    assert not decided(record, *jobs, after=after).stop


def test_a_record_of_another_version_is_read() -> None:
    """An upgrade between two tries must not start a second job without a word."""
    assert Attempt.from_dict(None) == Attempt()
    assert Attempt.from_dict({"token": "abcd", "job_ids": ["a"], "unknown": 1}) == Attempt("abcd", job_ids=["a"])
    assert Attempt.from_dict(recorded(job_ids=["a"]).to_dict()) == recorded(job_ids=["a"])
