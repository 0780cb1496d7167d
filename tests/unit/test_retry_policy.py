"""What is tried again, and when."""

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
    """A job that has failed so."""
    return exceptions.JobFailed("it failed", diagnosis=why)


def decided(error: BaseException, try_number: int = 1, **policy: Any) -> RetryDecision:
    """What is decided on a try that raised an error."""
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
def test_what_another_try_may_mend_is_tried_again(error: BaseException, action: RetryAction) -> None:
    """A retry of what nobody has corrected costs money; one of lost capacity is all it takes."""
    assert decided(error).action is action


def test_capacity_is_asked_for_again_soon() -> None:
    """However late the task's own retries come."""
    assert decided(failed(causes.SPOT_RECLAIMED), try_number=4, soon=10).retry_delay == timedelta(seconds=10)


def test_a_throttled_start_comes_later_each_time_and_not_too_late() -> None:
    """All at once again would be throttled again."""
    delays = [decided(exceptions.SubmissionError("throttled"), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


ACTIONS = {
    "another try soon": (RETRY, timedelta(seconds=30)),
    "another try with back-off": (RETRY, timedelta(seconds=120)),
    "no other try": (FAIL, None),
    "as the task says": (DEFAULT, None),
}
"""What is decided on a third try, by the words of the corpus."""


@pytest.mark.parametrize("cause", aws_reasons.CAUSES)
def test_what_aws_says_decides(cause: str) -> None:
    """Every line of the corpus: a policy that is worse than none is of no use."""
    entry = aws_reasons.CAUSES[cause]
    for line in entry["lines"]:
        decision = decided(failed(diagnose(aws_reasons.snapshot(line))), try_number=3)
        assert (decision.action, decision.retry_delay) == ACTIONS[entry["policy"]], line


def test_every_blame_is_decided_on() -> None:
    """One that is not would be an error in a worker."""
    assert set(BY_BLAME) == set(causes.Blame)


def test_a_transient_fault_is_retried_later_each_time() -> None:
    """All at once again would be throttled again."""
    delays = [decided(failed(causes.THROTTLED), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


def test_a_deadline_can_be_final() -> None:
    """What was too slow once may be too slow again; the task's owner knows."""
    assert decided(exceptions.JobTimeout("late"), retry_timeouts=False).action is FAIL


def test_a_person_reads_why() -> None:
    """The reason stands in the task's log."""
    assert "ran out of memory" in str(decided(failed(causes.OUT_OF_MEMORY)).reason)


def test_it_survives_serialization() -> None:
    """As Airflow asks of every policy."""
    policy = JobRetryPolicy(soon=timedelta(minutes=2), retry_timeouts=False)
    again = JobRetryPolicy.deserialize(policy.serialize())
    assert (again.soon, again.retry_timeouts) == (policy.soon, policy.retry_timeouts)
