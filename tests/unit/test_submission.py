"""What follows from the errors of a submit: what is repeated, what is looked up, and what the task's log says."""

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
    """Answers submits and lookups as it is told; counts what it is asked.

    :param submits: what each submit returns or raises; the last one again and again.
    :param lookups: the same of lookups.
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
        """Run a function once: what is repeated by ``Retry`` has tests of its own."""
        assert retry is None or retry.patience == submission.PATIENCE
        return function(None)

    def submit(self, _: object) -> str:
        """Answer a submit."""
        self.submitted += 1
        return str(self._answer(next(self.submits)))

    def find(self, _: object) -> str | None:
        """Answer a lookup."""
        self.looked_up += 1
        found: str | None = self._answer(next(self.lookups))
        return found

    @staticmethod
    def _answer(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_once(self, **options: Any) -> str:
        """Submit under this AWS, without pauses."""
        return submission.submit_once(
            self.run, self.submit, self.find, "Batch job x", **{"sleep": lambda _: None, **options}
        )


def test_what_is_started_is_returned() -> None:
    """Without a lookup: a first try of a task costs one call."""
    aws = Aws(["id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (1, 0)


def test_a_submit_whose_response_was_lost_is_looked_up_before_it_is_repeated() -> None:
    """It had started the job, which shows up late."""
    aws = Aws([LOST], [None, CallError(Fault.TRANSIENT, "no"), "id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (1, 3)


def test_a_submit_that_has_left_no_trace_is_repeated() -> None:
    """It never arrived."""
    aws = Aws([LOST, "id"])
    assert aws.submit_once() == "id"
    assert (aws.submitted, aws.looked_up) == (2, len(LOOKUPS))


def test_what_cannot_be_looked_up_is_not_repeated() -> None:
    """A second job would be worse than another try."""
    aws = Aws([LOST], [CallError(Fault.DENIED, "ListJobs: no")])
    with pytest.raises(exceptions.SubmissionError, match=r"may have been started: .* could not be looked up"):
        aws.submit_once()
    assert aws.submitted == 1


def test_without_a_way_to_find_it_a_lost_submit_is_not_repeated() -> None:
    """As with durable=False."""
    aws = Aws([LOST])
    with pytest.raises(exceptions.SubmissionError, match=r"may have been started.*a next try starts another one"):
        submission.submit_once(aws.run, aws.submit, None, "Batch job x")
    assert aws.submitted == 1


def test_a_lost_submit_is_not_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try of the task continues."""
    monkeypatch.setattr(submission, "PATIENCE", 0.0)
    with pytest.raises(exceptions.SubmissionError, match="may have been started, because a request got no response"):
        Aws([LOST]).submit_once()


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.DENIED, Fault.CREDENTIALS])
def test_a_refusal_after_a_lost_response_does_not_say_that_nothing_was_started(
    fault: Fault, *, repeatable: bool
) -> None:
    """The first request may have started it; it is not final, so that a retry looks for it."""
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
    """A policy that is being replaced, a metadata service that is slow once (A4)."""
    with pytest.raises(exceptions.SubmissionError, match=f"{words}, and nothing was started") as raised:
        Aws([CallError(fault, "SubmitJob: no", sent=False)]).submit_once()
    assert not isinstance(raised.value, exceptions.SubmissionRejected)


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND])
def test_what_aws_rejects_is_final(fault: Fault) -> None:
    """A retry would be rejected as well."""
    with pytest.raises(exceptions.SubmissionRejected, match="rejected by AWS, and nothing was started"):
        Aws([CallError(fault, "SubmitJob: no", sent=False)]).submit_once()


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND])
def test_what_a_proxy_rejects_is_not_final(fault: Fault) -> None:
    """A 4xx without a code of AWS's, such as a page in HTML: the next request may reach AWS."""
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
def test_what_has_no_capacity_now_waits_for_it(error: Exception) -> None:
    """Nothing was started, and a later start may succeed (A6, A7)."""
    with pytest.raises(exceptions.CapacityUnavailable, match="was not started"):
        Aws([error]).submit_once()


def test_a_response_that_says_that_it_never_will_is_final() -> None:
    """RunTask answers 200 with failures[]."""
    with pytest.raises(exceptions.SubmissionRejected, match="MISSING"):
        Aws([NotStarted("MISSING", Fault.REJECTED)]).submit_once()


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_its_words(fault: Fault) -> None:
    """One that is forgotten would be a KeyError in the task's log."""
    with pytest.raises(exceptions.SubmissionError):
        Aws([CallError(fault, "no", sent=False)]).submit_once(repeatable=True)
