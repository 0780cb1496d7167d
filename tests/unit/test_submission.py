"""What is said, and done, about a submit that came to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.aws import Retry
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.operators.submission import submit_once


def refusing(fault: Fault, *, sent: bool) -> Callable[..., Any]:
    """Return what runs a submit that fails."""

    def run(function: Callable[..., Any], *, retry: Retry | None = None) -> Any:
        raise CallError(fault, "RunTask: no", sent=sent)

    return run


def submit(run: Callable[..., Any]) -> None:
    """Submit a Fargate task, which carries a token."""
    submit_once(run, lambda call: "", None, "Fargate task", repeatable=True, sleep=lambda _: None)  # noqa: ARG005


def test_a_refusal_after_a_lost_response_does_not_say_that_nothing_was_started() -> None:
    """The first call, whose response was lost, may have started it; a retry looks for it."""
    with pytest.raises(exceptions.SubmissionError, match="it may have been started") as raised:
        submit(refusing(Fault.REJECTED, sent=True))
    assert not isinstance(raised.value, exceptions.SubmissionRefused)


@pytest.mark.parametrize("fault", [Fault.CREDENTIALS, Fault.DENIED, Fault.THROTTLED, Fault.TRANSIENT])
def test_a_submit_that_meets_a_hiccup_can_be_retried(fault: Fault) -> None:
    """A role, the metadata service, a policy: by the next try it may be there. Nothing was started."""
    with pytest.raises(exceptions.SubmissionError, match="nothing was started") as raised:
        submit(refusing(fault, sent=False))
    assert not isinstance(raised.value, exceptions.SubmissionRefused)


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND])
def test_a_submit_that_aws_rejects_is_final(fault: Fault) -> None:
    """A retry would be rejected as well."""
    with pytest.raises(exceptions.SubmissionRefused, match="rejected by AWS and not started"):
        submit(refusing(fault, sent=False))
