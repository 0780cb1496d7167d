"""Which failures are retried, and when."""

from __future__ import annotations

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


def failed(why: causes.Diagnosis | None) -> exceptions.JobFailed:
    """Return the error of a job that failed with a diagnosis."""
    return exceptions.JobFailed("it failed", diagnosis=why)


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
    assert decided(failed(causes.SPOT_RECLAIMED), try_number=4, soon=10).retry_delay == timedelta(seconds=10)


def test_the_delay_after_a_throttled_start_doubles_up_to_a_limit() -> None:
    """Starts that are retried together would be throttled again."""
    delays = [decided(exceptions.SubmissionError("throttled"), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


ACTIONS = {
    "another try soon": (RETRY, timedelta(seconds=30)),
    "another try with back-off": (RETRY, timedelta(seconds=120)),
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
    policy = JobRetryPolicy(soon=timedelta(minutes=2), retry_timeouts=False)
    again = JobRetryPolicy.deserialize(policy.serialize())
    assert (again.soon, again.retry_timeouts) == (policy.soon, policy.retry_timeouts)
