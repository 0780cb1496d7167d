"""Which exit codes skip a task or fail it for good, as plain decisions; ``tests/local`` runs such jobs."""

from __future__ import annotations

from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_jobflow import params
from airflow_jobflow.exceptions import InvalidParameter, JobFailed, JobFailedFinally, JobflowError, JobStopped
from airflow_jobflow.jobs import causes
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.exit_codes import decided
from tests.unit.scripted_aws import context

GIVEN = {"skip_on_exit_code": [3, 99], "fail_on_exit_code": [64]}


def failed(code: int | None, why: causes.Diagnosis | None = causes.COMMAND_FAILED, kind: Any = JobFailed) -> Any:
    """Return the failure of a job that ended with an exit code."""
    return kind("Batch job j failed", outcome={"exit_code": code}, diagnosis=why)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (failed(99), AirflowSkipException),
        (failed(64), JobFailedFinally),
        (failed(64, causes.OUT_OF_MEMORY), JobFailedFinally),
        (failed(1), type(None)),
        (failed(None), type(None)),
        (failed(99, causes.SPOT_RECLAIMED), type(None)),
        (failed(64, causes.HOST_LOST), type(None)),
        (failed(99, causes.STOPPED, JobStopped), type(None)),
        (failed(99, causes.ATTEMPT_TIMED_OUT.on("batch")), type(None)),
        (JobFailed("never described"), type(None)),
        (JobFailed("several jobs", outcome=[{"exit_code": 99}]), type(None)),
    ],
)
def test_an_exit_code_counts_only_if_the_job_ended_by_itself(failure: JobflowError, kind: type) -> None:
    """A job that was stopped, or lost its capacity, may end with any exit code."""
    assert type(decided(GIVEN, failure)) is kind


def test_a_final_failure_keeps_what_is_known_of_the_job() -> None:
    """Callbacks read the outcome and the diagnosis; the message has the whole failure and why it is final."""
    final = decided(GIVEN, failed(64))
    assert isinstance(final, JobFailedFinally)
    assert (final.outcome, final.diagnosis) == ({"exit_code": 64}, causes.COMMAND_FAILED)
    assert str(final) == "Batch job j failed\nThe task is not retried: exit code 64 is in fail_on_exit_code."


@pytest.mark.parametrize(
    ("value", "codes"),
    [(99, [99]), ("99", [99]), ([3, "2"], [2, 3]), ("[2, 3]", [2, 3]), ({5, 4}, [4, 5]), (range(1, 3), [1, 2])],
)
def test_exit_codes_are_given_as_for_other_operators(value: Any, codes: list[int]) -> None:
    """BashOperator and EcsRunTaskOperator take an int or a container of ints; templates render text."""
    assert params.exit_codes("skip_on_exit_code", value) == codes


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"skip_on_exit_code": 0}, "a job with exit code 0 has succeeded"),
        ({"skip_on_exit_code": "no"}, "must be a number"),
        ({"skip_on_exit_code": [1.5]}, "must be a whole number"),
        ({"skip_on_exit_code": True}, "must be a number"),
        ({"skip_on_exit_code": [1, 2], "fail_on_exit_code": [2, 3]}, "contains 2, and so does fail_on_exit_code"),
        ({"skip_on_exit_code": 1, "wait_for_completion": False}, "needs wait_for_completion=True"),
        ({"fail_on_exit_code": 1, "wait_for_completion": False}, "needs wait_for_completion=True"),
        ({"fail_on_exit_code": 1, "raise_on_failure": False}, "has no effect with raise_on_failure=False"),
        ({"skip_on_exit_code": 1, "array_size": 2}, "each child of an array has an exit code of its own"),
        ({"fail_on_exit_code": [1], "array_size": 1}, "each child of an array has an exit code of its own"),
    ],
)
def test_exit_codes_that_cannot_be_honoured_are_rejected(given: dict[str, Any], why: str) -> None:
    """Nothing is started."""
    task = BatchJobOperator(task_id="t", job_name="n", job_queue="q", job_definition="d", **given)
    with pytest.raises(InvalidParameter, match=why) as error:
        task.execute(cast("Any", context()))
    assert str(error.value).startswith(("skip_on_exit_code=", "fail_on_exit_code="))
