"""What is said, and done, about a submit that came to nothing."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from airflow_jobflow import exceptions
from airflow_jobflow.operators.submission import submit_once


def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_was_started() -> None:
    """The first call, whose answer was lost, may have started it; a retry is to look for it."""
    answers = iter(
        [
            ReadTimeoutError(endpoint_url="https://ecs"),
            ClientError({"Error": {"Code": "InvalidParameterException", "Message": "no"}}, "RunTask"),
        ]
    )

    def submit() -> str:
        raise next(answers)

    with pytest.raises(exceptions.SubmissionError, match="whether it was started is not known") as raised:
        submit_once(submit, None, "Fargate task", repeatable=True, sleep=lambda _: None)
    assert not isinstance(raised.value, exceptions.SubmissionRefused)
