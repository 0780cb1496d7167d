"""Which failures are retried, and when."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.airflow_compat.retry_policy import RetryAction, RetryDecision
from airflow_jobflow.jobs import causes
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.retry_policy import BY_BLAME, JobRetryPolicy
from tests.unit.jobs import aws_reasons

RETRY, FAIL, DEFAULT = RetryAction.RETRY, RetryAction.FAIL, RetryAction.DEFAULT


@pytest.fixture(autouse=True)
def _longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every delay be the longest one that is possible."""
    monkeypatch.setattr("airflow_jobflow.retry_policy.random.random", lambda: 1.0)


def failed(why: causes.Diagnosis | None) -> exceptions.JobFailed:
    """Return the error of a job that failed with a diagnosis."""
    return exceptions.JobFailed("it failed", diagnosis=why)


def changed(why: causes.Diagnosis, cause: str) -> exceptions.JobFailed:
    """Return the error of a job whose next attempt is changed."""
    return exceptions.JobFailed("it failed", diagnosis=why, change={"cause": cause, "text": "more of it"})


def decided(error: BaseException, try_number: int = 1, **policy: Any) -> RetryDecision:
    """Return the decision for a try that raised an error."""
    return JobRetryPolicy(**policy).evaluate(error, try_number, 5)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (failed(causes.SPOT_RECLAIMED), RETRY),
        (failed(causes.HOST_LOST), RETRY),
        (failed(causes.QUEUE_EXPIRED), RETRY),
        (failed(causes.OUT_OF_MEMORY), FAIL),
        (failed(causes.IMAGE_NOT_PULLED), FAIL),
        (failed(causes.MISCONFIGURED), FAIL),
        (failed(causes.COMMAND_FAILED), DEFAULT),
        (failed(causes.CHILDREN_FAILED), DEFAULT),
        (failed(causes.KILLED), DEFAULT),
        (failed(None), DEFAULT),
        (exceptions.JobStopped("somebody ended it", diagnosis=causes.STOPPED), DEFAULT),
        (exceptions.SubmissionError("throttled"), RETRY),
        (exceptions.JobTimeout("late"), DEFAULT),
        (exceptions.QueueTimeout("in the queue"), DEFAULT),
        (exceptions.JobNotFound("gone"), DEFAULT),
        (exceptions.WaitError("no answer"), RETRY),
        (exceptions.AccessDenied("not now"), RETRY),
        (RuntimeError("another operator's"), DEFAULT),
    ],
)
def test_failures_that_another_try_may_fix_are_retried(error: BaseException, action: RetryAction) -> None:
    """Retrying a wrong configuration costs money; after lost capacity, a retry helps."""
    assert decided(error).action is action


def test_lost_capacity_is_retried_soon() -> None:
    """The task's own retry delay does not matter."""
    assert decided(failed(causes.SPOT_RECLAIMED), soon=10).retry_delay == timedelta(seconds=10)


def test_tasks_that_failed_together_do_not_start_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand jobs that lost their hosts would ask for a thousand new ones in the same second."""
    monkeypatch.setattr("airflow_jobflow.retry_policy.random.random", lambda: 0.25)
    assert decided(failed(causes.SPOT_RECLAIMED), try_number=2).retry_delay == timedelta(seconds=15)


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (failed(causes.SPOT_RECLAIMED), 5),
        (failed(causes.HOST_LOST), 60),
        (failed(causes.THROTTLED), 7),
        (exceptions.SubmissionError("throttled"), 7),
        (failed(causes.COMMAND_FAILED), 9),
        (changed(causes.OUT_OF_MEMORY, "out_of_memory"), 0),
        (changed(causes.ATTEMPT_TIMED_OUT, "timeout"), 11),
        (failed(causes.ATTEMPT_TIMED_OUT), 11),
        (failed(causes.KILLED), 0),
    ],
)
def test_delays_differ_by_cause(error: BaseException, delay: float) -> None:
    """A job that gets more memory need not wait; capacity takes longer to come back than a throttled call."""
    delays = {"spot_reclaimed": 5, "capacity": 60, "transient": 7, "command": 9, "out_of_memory": 0, "timeout": 11}
    decision = decided(error, delays=delays)
    assert (decision.action, decision.retry_delay) == (RETRY, timedelta(seconds=delay))


def test_a_delay_does_not_retry_what_somebody_has_to_fix() -> None:
    """Without a rule that changes it, the job runs out of memory again."""
    assert decided(failed(causes.OUT_OF_MEMORY), delays={"out_of_memory": 0}).action is FAIL


def test_a_job_that_is_changed_is_retried() -> None:
    """Out of memory is final only without a rule for it."""
    decision = decided(changed(causes.OUT_OF_MEMORY, "out_of_memory"))
    assert (decision.action, decision.retry_delay) == (RETRY, timedelta(seconds=30))
    assert decision.reason == "The next attempt: more of it"


def test_the_longest_delay_can_be_set() -> None:
    """The delay doubles only up to it."""
    delays = [decided(failed(causes.HOST_LOST), number, max_delay=100).retry_delay for number in (1, 2, 3, 999)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 100, 100)]


def test_an_unknown_cause_is_rejected_in_the_dag_file() -> None:
    """A misspelled name would never have an effect."""
    with pytest.raises(ValueError, match=r"delays\['memory'\]: the name must be one of out_of_memory, "):
        JobRetryPolicy(delays={"memory": 1})


def test_the_delay_after_a_throttled_start_doubles_up_to_a_limit() -> None:
    """Starts that are retried together would be throttled again."""
    delays = [decided(exceptions.SubmissionError("throttled"), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


ACTIONS = {
    "another try": (RETRY, timedelta(seconds=120)),
    "no other try": (FAIL, None),
    "as the task says": (DEFAULT, None),
}
"""The decision on a third try, by the corpus's name for it."""


@pytest.mark.parametrize("cause", aws_reasons.CAUSES)
def test_the_decision_follows_from_the_reason_that_aws_gives(cause: str) -> None:
    """This is checked for every line of the corpus."""
    entry = aws_reasons.CAUSES[cause]
    for line in entry["lines"]:
        decision = decided(failed(diagnose(aws_reasons.snapshot(line))), try_number=3)
        assert (decision.action, decision.retry_delay) == ACTIONS[entry["policy"]], line


def test_every_blame_has_a_decision() -> None:
    """A missing one would raise an error on a worker."""
    assert set(BY_BLAME) == set(causes.Blame)


def test_the_delay_after_a_transient_fault_doubles_up_to_a_limit() -> None:
    """Jobs that are retried together would be throttled again."""
    delays = [decided(failed(causes.THROTTLED), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


def test_a_deadline_can_be_final() -> None:
    """The owner of the task knows whether a slow job would be slow again."""
    assert decided(exceptions.JobTimeout("late"), retry_timeouts=False).action is FAIL


def test_a_decision_has_a_reason() -> None:
    """It is shown in the task's log."""
    assert "ran out of memory" in str(decided(failed(causes.OUT_OF_MEMORY)).reason)


def test_a_policy_survives_serialization() -> None:
    """Airflow requires this of every policy."""
    policy = JobRetryPolicy(soon=timedelta(minutes=2), retry_timeouts=False, delays={"capacity": 60}, max_delay=600)
    again = JobRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert vars(again) == vars(policy)


def test_a_policy_that_an_older_version_serialized_is_read() -> None:
    """DAGs that were serialized before an upgrade still run."""
    old = JobRetryPolicy.deserialize({"soon": 10.0, "retry_timeouts": False})
    assert vars(old) == vars(JobRetryPolicy(soon=10, retry_timeouts=False))
