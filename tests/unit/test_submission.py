"""The consequences of errors of a submit: what is repeated, what is looked up, and what the task's log says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.aws import Retry
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.starting import LOOKUPS, NotStarted
from airflow_jobflow.operators import submission

LOST = CallError(Fault.TRANSIENT, "SubmitJob: no response", sent=True)
UNREACHABLE = CallError(Fault.TRANSIENT, "SubmitJob: connection refused", sent=False)


class Aws:
    """Responds to submits and lookups as scripted, and counts the calls.

    :param submits: what each submit returns or raises; the last result repeats.
    :param lookups: the same for lookups.
    """

    def __init__(self, submits: Sequence[str | Exception], lookups: Sequence[str | Exception | None] = (None,)) -> None:
        self.submits, self.lookups = self._play(submits), self._play(lookups)
        self.submitted = self.looked_up = 0

    @staticmethod
    def _play(answers: Sequence[Any]) -> Iterator[Any]:
        yield from answers
        while True:
            yield answers[-1]

    @staticmethod
    def run(function: Callable[[Any], Any], *, retry: Retry | None = None) -> Any:
        """Run a function once; ``Retry`` has its own tests."""
        assert retry is None or retry.patience == submission.PATIENCE
        return function(None)

    def submit(self, _: object) -> str:
        """Respond to a submit."""
        self.submitted += 1
        return str(self._answer(next(self.submits)))

    def find(self, _: object) -> str | None:
        """Respond to a lookup."""
        self.looked_up += 1
        found: str | None = self._answer(next(self.lookups))
        return found

    @staticmethod
    def _answer(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_once(self, **options: Any) -> str:
        """Submit with this AWS, without pauses."""
        return submission.submit_once(
            self.run, self.submit, self.find, "Batch job x", **{"sleep": lambda _: None, **options}
        )


def test_a_started_job_is_returned() -> None:
    """There is no lookup: a first try of a task needs one call."""
    aws = Aws(["id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (1, 0)


def test_a_submit_whose_response_was_lost_is_looked_up_before_it_is_repeated() -> None:
    """It had started the job, which appears late."""
    aws = Aws([LOST], [None, CallError(Fault.TRANSIENT, "no"), "id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (1, 3)


def test_a_submit_without_a_job_is_repeated() -> None:
    """The request never arrived."""
    aws = Aws([LOST, "id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (2, len(LOOKUPS))


def test_a_submit_whose_lookup_fails_is_not_repeated() -> None:
    """A second job would be worse than another try."""
    aws = Aws([LOST], [CallError(Fault.DENIED, "ListJobs: no")])
    with pytest.raises(exceptions.SubmissionError, match=r"may have been started: .* could not be looked up"):
        aws.submit_once()
    assert aws.submitted == 1


def test_without_a_lookup_a_lost_submit_is_not_repeated() -> None:
    """For example, with durable=False."""
    aws = Aws([LOST])
    with pytest.raises(exceptions.SubmissionError, match=r"may have been started.*a next try starts another one"):
        submission.submit_once(aws.run, aws.submit, None, "Batch job x")
    assert aws.submitted == 1


def test_a_lost_submit_is_not_repeated_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try of the task continues."""
    monkeypatch.setattr(submission, "PATIENCE", 0.0)
    with pytest.raises(exceptions.SubmissionError, match="may have been started, because a request got no response"):
        Aws([LOST]).submit_once()


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.DENIED, Fault.CREDENTIALS])
def test_a_rejection_after_a_lost_response_does_not_say_that_nothing_was_started(
    fault: Fault, *, repeatable: bool
) -> None:
    """The first request may have started the job; the error is not final, so that a retry looks for it."""
    refused = CallError(fault, "SubmitJob: no", sent=repeatable)  # within one run, ``sent`` covers all requests
    aws = Aws([refused] if repeatable else [LOST, refused])
    with pytest.raises(exceptions.SubmissionError, match="may have been started") as raised:
        aws.submit_once(repeatable=repeatable)
    assert not isinstance(raised.value, exceptions.SubmissionRejected)


def test_a_refused_connection_says_that_nothing_was_started() -> None:
    """Nothing was sent (F2)."""
    with pytest.raises(
        exceptions.SubmissionError, match=r"AWS could not be reached, and nothing was started\. .*refused"
    ):
        Aws([UNREACHABLE]).submit_once()


@pytest.mark.parametrize(
    ("fault", "words"),
    [(Fault.CREDENTIALS, "the AWS connection could not be used"), (Fault.DENIED, "the call is not permitted")],
)
def test_missing_credentials_and_permissions_are_not_final(fault: Fault, words: str) -> None:
    """A policy may be being replaced, and a metadata service may be slow (A4)."""
    with pytest.raises(exceptions.SubmissionError, match=f"{words}, and nothing was started") as raised:
        Aws([CallError(fault, "SubmitJob: no", sent=False)]).submit_once()
    assert not isinstance(raised.value, exceptions.SubmissionRejected)


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND])
def test_a_rejection_by_aws_is_final(fault: Fault) -> None:
    """A retry would be rejected as well."""
    with pytest.raises(exceptions.SubmissionRejected, match="rejected by AWS, and nothing was started"):
        Aws([CallError(fault, "SubmitJob: no", sent=False)]).submit_once()


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND])
def test_a_rejection_by_a_proxy_is_not_final(fault: Fault) -> None:
    """A 4xx without a code of AWS, such as an HTML page: the next request may reach AWS."""
    with pytest.raises(exceptions.SubmissionError, match=r"such as a proxy.*, and nothing was started") as raised:
        Aws([CallError(fault, "SubmitJob: Bad Request", "400", sent=False)]).submit_once()
    assert not isinstance(raised.value, exceptions.SubmissionRejected)


@pytest.mark.parametrize(
    "error",
    [
        CallError(Fault.THROTTLED, "RunTask: Rate exceeded", sent=False),
        CallError(Fault.NO_CAPACITY, "StartJobRun: Concurrent runs exceeded", sent=False),
        NotStarted("RESOURCE:CPU", Fault.NO_CAPACITY),
        NotStarted("Rate exceeded", Fault.THROTTLED),
        NotStarted("RunTask returned neither a task nor a reason", Fault.TRANSIENT),
    ],
)
def test_a_start_without_capacity_is_repeated(error: Exception) -> None:
    """No job was started, and a later start may succeed (A6, A7)."""
    with pytest.raises(exceptions.CapacityUnavailable, match="was not started"):
        Aws([error]).submit_once()


def test_a_permanent_failure_of_run_task_is_final() -> None:
    """RunTask responds with status 200 and failures[]."""
    with pytest.raises(exceptions.SubmissionRejected, match="MISSING"):
        Aws([NotStarted("MISSING", Fault.REJECTED)]).submit_once()


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_a_message(fault: Fault) -> None:
    """A missing one would be a KeyError in the task's log."""
    with pytest.raises(exceptions.SubmissionError):
        Aws([CallError(fault, "no", sent=False)]).submit_once(repeatable=True)
