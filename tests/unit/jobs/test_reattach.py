"""Every row and every note of the table that decides about the jobs of earlier tries."""

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
"""How often a part of the DAG run was cleared before the current try."""


def recorded(**fields: Any) -> Attempt:
    """Return the record of the last try since the last clear."""
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
    """Return a job as AWS describes it.

    :param created: seconds after the start of the run; None if AWS does not say.
    :param clears: the clear number of the try that started it; None if it carries no try.
    :param part: whether it is a part of an array.
    """
    moment = None if created is None else datetime.fromtimestamp(RUN_BEGAN_AT + created, tz=UTC).isoformat()
    job = Snapshot(job_id, JobState[state], state, created_at=moment, stopped_by_request=stopping)
    return Found(job, None if clears is None else Try(1, 2, clears), part)


def decided(record: Attempt, *jobs: Found, after: float = 1000.0, clears: int = CLEARS) -> Decision:
    """Return the decision some seconds after the attempt began."""
    return decide(record, jobs, Now(clears, "here", RUN_BEGAN_AT, BEGAN_AT + after, GRACE))


def done(decision: Decision) -> tuple[Action, list[str], list[str]]:
    """Return the decision without its reason."""
    return decision.action, list(decision.keep), list(decision.stop)


# The first two rows.


def test_a_job_in_another_region_is_left_running_and_logged() -> None:
    """An id of another region or connection has no meaning for this task."""
    decision = decided(recorded(location="eu-west-1", job_ids=["a"]), found("a", "RUNNING"))
    assert done(decision) == (START, [], [])
    assert "elsewhere (eu-west-1: a)" in decision.why
    assert "no id is known" in decided(recorded(location="eu-west-1")).why


@pytest.mark.parametrize("record", [Attempt(), recorded(clear_number=0), recorded(clear_number=0, job_ids=["a"])])
def test_a_clear_stops_running_jobs_and_starts_a_new_one(record: Attempt) -> None:
    """This holds with and without a record: Airflow 3.2 has no task state store."""
    decision = decided(record, found("a", "RUNNING", clears=0), found("b", "SUCCEEDED", clears=0))
    assert done(decision) == (START, [], ["a"])
    assert "cleared" in decision.why


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_a_clear_after_the_end_starts_a_new_job(state: str) -> None:
    """An old success is not the result of a new run, whether or not the clear changed max_tries (D2)."""
    assert done(decided(recorded(clear_number=0), found("a", state, clears=0))) == (START, [], [])
    assert done(decided(Attempt(), found("a", state, clears=0))) == (START, [], [])


def test_a_job_from_before_a_clear_is_stopped_and_a_later_one_kept() -> None:
    """The stop of the cleared try's job may have failed."""
    jobs = found("old", "RUNNING", 50, clears=0), found("new", "RUNNING")
    assert done(decided(recorded(), *jobs)) == (KEEP, ["new"], ["old"])
    assert done(decided(Attempt(), *jobs)) == (KEEP, ["new"], ["old"])


def test_a_job_without_a_try_is_from_before_a_clear_unless_there_was_none() -> None:
    """If the role may not tag, only the record shows that the task was not cleared."""
    assert done(decided(Attempt(), found("a", "RUNNING", clears=None))) == (START, [], ["a"])
    assert done(decided(recorded(clear_number=0), found("a", "RUNNING", clears=None))) == (START, [], ["a"])
    assert done(decided(recorded(), found("a", "RUNNING", clears=None))) == (KEEP, ["a"], [])


def test_a_job_that_was_adopted_by_its_group_is_not_kept_after_a_clear() -> None:
    """It was found by its group, so its token is not recorded."""
    record = recorded(token="", job_ids=["a"], clear_number=0)
    assert done(decided(record, found("a", "RUNNING", clears=0), after=1)) == (START, [], ["a"])


def test_a_job_of_someone_else_is_never_stopped() -> None:
    """A joined crawl is stopped neither by a clear nor by a kill."""
    crawl = found("a", "RUNNING", clears=None)
    assert done(decided(recorded(joined=True, job_ids=["a"], clear_number=0), crawl)) == (START, [], [])
    assert done(decided(recorded(joined=True, job_ids=["a"], abandoned=True), crawl)) == (START, [], [])
    assert done(decided(recorded(joined=True, job_ids=["a"]), crawl)) == (KEEP, ["a"], [])


# abandoned


def test_a_running_job_of_a_killed_task_is_stopped() -> None:
    """The stop at the kill may have failed."""
    assert done(decided(recorded(abandoned=True), found("a", "RUNNING"))) == (START, [], ["a"])
    assert done(decided(recorded(abandoned=True, job_ids=["a"]), found("a", "RUNNING"))) == (START, [], ["a"])


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_the_result_of_a_killed_task_is_not_used(state: str) -> None:
    """The next try starts a new job."""
    assert done(decided(recorded(abandoned=True), found("a", state))) == (START, [], [])


# ids


def test_a_job_that_was_just_started_may_be_missing() -> None:
    """A second job must not be started beside it."""
    assert done(decided(recorded(job_ids=["a"]), after=GRACE)) == (KEEP, ["a"], [])


def test_a_job_that_no_longer_exists_is_replaced() -> None:
    """Its result is unknown."""
    decision = decided(recorded(job_ids=["a"]), after=GRACE + 1)
    assert done(decision) == (START, [], [])
    assert "no longer" in decision.why


@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_a_retry_keeps_a_recorded_job_that_runs_or_has_succeeded(state: str) -> None:
    """One attempt starts one job. A recorded job counts at any age."""
    assert done(decided(recorded(job_ids=["a"]), found("a", state, -1000))) == (KEEP, ["a"], [])


def test_a_retry_after_a_recorded_failure_starts_a_new_job() -> None:
    """This is the purpose of retries."""
    assert done(decided(recorded(job_ids=["a"]), found("a", "FAILED"))) == (START, [], [])
    assert done(decided(recorded(job_ids=["a"]), found("a", "RUNNING", stopping=True))) == (START, [], [])


def test_parts_are_kept_while_one_of_them_runs() -> None:
    """The outcome follows when the last part ends."""
    record = recorded(job_ids=["a", "b"], parts=["0-3", "7"])
    assert done(decided(record, found("a", "FAILED"), found("b", "RUNNING"))) == (KEEP, ["a", "b"], [])
    assert done(decided(record, found("a", "FAILED"), found("b", "SUCCEEDED"))) == (START, [], [])
    assert done(decided(record, found("a", "SUCCEEDED"), found("b", "SUCCEEDED"))) == (KEEP, ["a", "b"], [])


def test_a_job_beside_the_recorded_one_is_stopped() -> None:
    """For example, someone has cloned it in the console."""
    jobs = found("a", "RUNNING"), found("clone", "RUNNING")
    assert done(decided(recorded(job_ids=["a"]), *jobs)) == (KEEP, ["a"], ["clone"])


def test_a_job_that_runs_after_the_recorded_one_failed_is_kept() -> None:
    """Two jobs of one task instance must not run at the same time."""
    jobs = found("a", "FAILED"), found("b", "RUNNING")
    assert done(decided(recorded(job_ids=["a"]), *jobs)) == (KEEP, ["b"], [])


# Several parts, no ids.


def test_missing_parts_are_started() -> None:
    """The repeated attempt finds the existing parts by their names, and starts the others."""
    record = recorded(parts=["0-3", "7"])
    assert done(decided(record, found("x", "RUNNING"))) == (REPEAT, [], [])
    assert done(decided(recorded(parts=["0-3", "7"], clear_number=0), found("x", "RUNNING", clears=0))) == (
        START,
        [],
        ["x"],
    )


@pytest.mark.parametrize("record", [recorded(job_ids=["whole"], size=9), Attempt()])
def test_a_part_is_not_the_array(record: Attempt) -> None:
    """Another part could not be submitted, so the record is that of the previous array."""
    whole, done_part = found("whole", "FAILED", 100), found("x", "SUCCEEDED", part=True)
    decision = decided(record, whole, done_part, found("y", "RUNNING", part=True))
    assert done(decision) == (START, [], ["y"])
    assert decision.failed == ([] if record.job_ids else ["whole"])
    assert done(decided(record, found("x", "RUNNING", part=True))) == (START, [], ["x"])


def test_recorded_parts_count_as_the_array() -> None:
    """The parts together have the result."""
    jobs = [found(each, "SUCCEEDED", part=True) for each in "ab"]
    assert done(decided(recorded(job_ids=["a", "b"], parts=["0-3", "7"]), *jobs)) == (KEEP, ["a", "b"], [])


# Anything else.


@pytest.mark.parametrize("record", [recorded(), Attempt()])
@pytest.mark.parametrize("state", ["SUBMITTED", "RUNNING", "SUCCEEDED"])
def test_a_job_without_a_record_is_kept(record: Attempt, state: str) -> None:
    """The worker died between the response and the record, or there is no store."""
    assert done(decided(record, found("x", state))) == (KEEP, ["x"], [])


@pytest.mark.parametrize("record", [recorded(), Attempt()])
def test_a_failed_job_without_a_record_is_replaced(record: Attempt) -> None:
    """It is treated like a recorded one."""
    decision = decided(record, found("x", "FAILED"), found("old", "FAILED", clears=0))
    assert done(decision) == (START, [], [])
    assert decision.failed == ["x"]  # not the failure from before the clear


def test_a_job_that_is_being_stopped_is_not_waited_for() -> None:
    """Its attempt is not repeated either: with the same token, ECS would return the same task."""
    assert done(decided(recorded(), found("x", "RUNNING", stopping=True))) == (START, [], [])


def test_of_two_running_jobs_the_first_is_kept_and_the_other_stopped() -> None:
    """The job of a lost submit has appeared late."""
    jobs = found("later", "RUNNING", 120), found("first", "RUNNING", 110)
    assert done(decided(recorded(), *jobs)) == (KEEP, ["first"], ["later"])


def test_of_two_jobs_the_one_that_did_not_fail_is_kept() -> None:
    """The failed one is not the result."""
    jobs = found("good", "SUCCEEDED", 120), found("bad", "FAILED", 110), found("late", "SUCCEEDED", 130)
    assert done(decided(recorded(), *jobs)) == (KEEP, ["good"], [])


def test_jobs_that_are_older_than_the_run_belong_to_a_deleted_run() -> None:
    """A run that was deleted and created again with the same id has the same group. Clocks may differ by a minute."""
    assert done(decided(Attempt(), found("x", "RUNNING", -SKEW - 1))) == (START, [], [])
    assert done(decided(Attempt(), found("x", "RUNNING", -SKEW + 1))) == (KEEP, ["x"], [])
    assert done(decided(recorded(), found("x", "RUNNING", -SKEW - 1))) == (REPEAT, [], [])


def test_jobs_of_a_run_that_was_queued_again_may_be_older_than_its_start() -> None:
    """The record has the earlier time; deleting the run would also have deleted the record."""
    assert done(decided(recorded(began_at=RUN_BEGAN_AT - 500), found("x", "RUNNING", -400))) == (KEEP, ["x"], [])


def test_a_job_of_unknown_age_counts() -> None:
    """A job that is listed may not be described yet."""
    assert done(decided(recorded(), found("x", "SUBMITTED", None))) == (KEEP, ["x"], [])


def test_an_attempt_without_a_job_is_repeated() -> None:
    """It uses the same token, so that a job that appears late belongs to the same attempt."""
    assert done(decided(recorded())) == (REPEAT, [], [])


def test_without_a_record_and_a_job_it_starts() -> None:
    """An earlier try may have ended before it started a job."""
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
    """Return the jobs that certainly belong to this run: they are recorded, or started after it."""
    since = datetime.fromtimestamp(RUN_BEGAN_AT, tz=UTC)
    return [
        each
        for each in jobs
        if each.job.job_id in record.job_ids
        or not each.job.created_at
        or datetime.fromisoformat(each.job.created_at) >= since
    ]


@given(record=RECORDS, jobs=JOBS, after=st.floats(0, 1000))
def test_two_jobs_of_one_task_instance_never_keep_running(record: Attempt, jobs: list[Found], after: float) -> None:
    """A running job is either kept or stopped, and no job is started beside a kept one."""
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
    """This holds for all jobs and records."""
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
def test_a_joined_job_is_never_stopped(
    job_ids: list[str], abandoned: bool, clears: int, jobs: list[Found], after: float
) -> None:
    """It belongs to someone else."""
    record = recorded(joined=True, job_ids=job_ids, abandoned=abandoned, clear_number=clears)
    assert not decided(record, *jobs, after=after).stop


def test_a_record_of_another_version_is_read() -> None:
    """After an upgrade between two tries, a second job must not be started silently."""
    assert Attempt.from_dict(None) == Attempt()
    assert Attempt.from_dict({"token": "abcd", "job_ids": ["a"], "unknown": 1}) == Attempt("abcd", job_ids=["a"])
    assert Attempt.from_dict(recorded(job_ids=["a"]).to_dict()) == recorded(job_ids=["a"])
