"""What is tried again, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import RetryAction, RetryDecision

from airflow_jobflow import exceptions
from airflow_jobflow.jobs import diagnosis
from airflow_jobflow.retries import JobRetryPolicy

RETRY, FAIL, DEFAULT = RetryAction.RETRY, RetryAction.FAIL, RetryAction.DEFAULT


def failed(why: diagnosis.Diagnosis | None) -> exceptions.JobFailed:
    """A job that has failed so."""
    return exceptions.JobFailed("it failed", diagnosis=why)


def decided(error: BaseException, try_number: int = 1, **policy: Any) -> RetryDecision:
    """What is decided on a try that raised an error."""
    return JobRetryPolicy(**policy).evaluate(error, try_number, 5)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (failed(diagnosis.SPOT_RECLAIMED), RETRY),
        (failed(diagnosis.HOST_LOST), RETRY),
        (failed(diagnosis.QUEUE_EXPIRED), RETRY),
        (failed(diagnosis.OUT_OF_MEMORY), FAIL),
        (failed(diagnosis.IMAGE_NOT_PULLED), FAIL),
        (failed(diagnosis.MISCONFIGURED), FAIL),
        (failed(diagnosis.COMMAND_FAILED), DEFAULT),
        (failed(diagnosis.CHILDREN_FAILED), DEFAULT),
        (failed(diagnosis.KILLED), DEFAULT),
        (failed(None), DEFAULT),
        (exceptions.JobStopped("somebody ended it", diagnosis=diagnosis.STOPPED), DEFAULT),
        (exceptions.SubmissionError("throttled"), RETRY),
        (exceptions.JobTimedOut("late"), DEFAULT),
        (exceptions.JobStuck("in the queue"), DEFAULT),
        (exceptions.JobVanished("gone"), DEFAULT),
        (exceptions.WaitError("no answer"), RETRY),
        (exceptions.AccessDenied("not now"), RETRY),
        (RuntimeError("another operator's"), DEFAULT),
    ],
)
def test_what_another_try_may_mend_is_tried_again(error: BaseException, action: RetryAction) -> None:
    """A retry of what nobody has mended costs money; one of lost capacity is all it takes."""
    assert decided(error).action is action


def test_capacity_is_asked_for_again_soon() -> None:
    """However late the task's own retries come."""
    assert decided(failed(diagnosis.SPOT_RECLAIMED), try_number=4, soon=10).retry_delay == timedelta(seconds=10)


def test_a_throttled_start_comes_later_each_time_and_not_too_late() -> None:
    """All at once again would be throttled again."""
    delays = [decided(exceptions.SubmissionError("throttled"), number).retry_delay for number in (1, 2, 3, 99)]
    assert delays == [timedelta(seconds=each) for each in (30, 60, 120, 900)]


def test_a_deadline_can_be_final() -> None:
    """What was too slow once may be too slow again; the task's owner knows."""
    assert decided(exceptions.JobTimedOut("late"), retry_timeouts=False).action is FAIL


def test_a_person_reads_why() -> None:
    """The reason stands in the task's log."""
    assert "ran out of memory" in str(decided(failed(diagnosis.OUT_OF_MEMORY)).reason)


def test_it_survives_serialization() -> None:
    """As Airflow asks of every policy."""
    policy = JobRetryPolicy(soon=timedelta(minutes=2), retry_timeouts=False)
    again = JobRetryPolicy.deserialize(policy.serialize())
    assert (again.soon, again.retry_timeouts) == (policy.soon, policy.retry_timeouts)
