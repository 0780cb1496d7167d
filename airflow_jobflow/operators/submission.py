"""One submit starts one job, even if its response is lost.

AWS Batch and Glue have no client token: a submit that is repeated starts a second job. So every job carries a name or
an argument that nobody else uses. A submit whose response was lost is looked up by that before it is repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_jobflow.aws import Retry
from airflow_jobflow.exceptions import CapacityUnavailable, SubmissionError, SubmissionRejected
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.starting import LOOKUPS, NotStarted
from airflow_jobflow.jobs.wording import sentence

if TYPE_CHECKING:
    from airflow_jobflow.jobs.calls import Call

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds for which a submit that gets no response is repeated within one try of the task."""

STARTED_NOTHING = (Fault.NO_CAPACITY, Fault.THROTTLED)
"""Faults of a submit that may pass, and that AWS did not execute: the task waits for its turn."""

FINAL = (Fault.REJECTED, Fault.SCOPE_NOT_FOUND)
"""Faults that a retry of the task meets again."""

REASONS = {
    Fault.CREDENTIALS: (
        "the AWS connection could not be used",
        "Check its credentials and region (aws_conn_id, region_name), or the role of the worker.",
    ),
    Fault.DENIED: ("the call is not permitted", "Allow the role of the worker to make this call."),
    Fault.TRANSIENT: ("AWS could not be reached", "Check the network from the worker to AWS."),
    **dict.fromkeys(
        FINAL, ("something other than AWS, such as a proxy, rejected it", "Check the network from the worker to AWS.")
    ),
}
"""Why nothing was submitted, by what the last error means, and what to do."""

NO_CAPACITY = {
    Fault.NO_CAPACITY: "AWS has no capacity for it now",
    Fault.THROTTLED: "AWS throttled the call",
    Fault.TRANSIENT: "AWS started nothing and did not say why",
}
"""Why nothing was started that may be started later, by what the error means."""

NEXT_TRY = "The next try looks for it before it starts another one."
"""What is done about a job that carries a token, and may have been started."""


def submit_once(
    run: Callable[..., Any],
    submit: Callable[[Call], str],
    find: Callable[[Call], str | None] | None,
    what: str,
    *,
    repeatable: bool = False,
    origin: Callable[[], str] = lambda: "",
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Submit a job, and return its id.

    :param run: runs a function that makes API calls, with ``retry``; see ``RemoteJobs.call``.
    :param submit: makes the call and returns the job's id.
    :param find: returns the id of the job that this submit may have started, or None; None where it cannot be found.
    :param what: names the job in messages.
    :param repeatable: whether the call carries a token with which it starts nothing twice. Default False.
    :param origin: returns the connection and the region, for messages. Default: they are left out.
    :param sleep: waits for the given seconds.
    :raises SubmissionRejected: AWS rejects the request. Nothing was started.
    :raises CapacityUnavailable: AWS has no capacity for the job now. Nothing was started.
    :raises SubmissionError: it could not be submitted; the message says whether it may have been started.
    """
    give_up_at = time.monotonic() + PATIENCE
    then = NEXT_TRY if find or repeatable else "It carries no token (durable=False), so a next try starts another one."

    def failed(error: CallError, *, maybe_started: bool) -> SubmissionError:
        return _not_submitted(what, error, origin, maybe_started=maybe_started, then=then)

    lost: CallError | None = None
    """The last error after which the job may have been started."""
    while True:
        try:
            return str(run(submit, retry=Retry(PATIENCE, repeatable=repeatable)))
        except NotStarted as error:
            if error.may_pass:
                raise CapacityUnavailable(_no_capacity(what, error)) from error
            raise SubmissionRejected(_rejected(what, error, origin)) from error
        except CallError as error:
            was_lost = error.fault is Fault.TRANSIENT and error.sent
            if not was_lost or repeatable:
                maybe_started = error.sent or lost is not None
                raise failed(error, maybe_started=maybe_started) from error
            lost = error
            log.warning("The response to the submit of %s was lost (%s); checking whether it was started", what, error)
            if not find:
                raise failed(error, maybe_started=True) from error
            if found := _look_up(run, find, f"{what}{_with(origin)}", error, sleep):
                return found
            if time.monotonic() > give_up_at:
                raise failed(error, maybe_started=True) from error


def _not_submitted(
    what: str, error: CallError, origin: Callable[[], str], *, maybe_started: bool, then: str
) -> SubmissionError:
    """Return the exception for a submit that failed.

    :param maybe_started: whether one of its requests may have been executed.
    :param then: what is done about that.
    """
    if error.fault in STARTED_NOTHING:  # the job is looked up before it is submitted again
        return CapacityUnavailable(_no_capacity(what, error))
    if maybe_started:
        return SubmissionError(
            f"{what}{_with(origin)} may have been started, because a request got no response. {then} The last error: "
            f"{error}"
        )
    if error.fault in FINAL and not error.is_from_proxy:
        return SubmissionRejected(_rejected(what, error, origin))
    why, advice = REASONS[error.fault]
    return SubmissionError(
        f"{what}{_with(origin)} was not submitted: {why}, and nothing was started. {advice} The last error: {error}"
    )


def _rejected(what: str, error: Exception, origin: Callable[[], str]) -> str:
    return f"{what}{_with(origin)} was rejected by AWS, and nothing was started: {error}"


def _no_capacity(what: str, error: CallError | NotStarted) -> str:
    return f"{what} was not started, because {NO_CAPACITY[error.fault]}: {sentence(str(error))}"


def _with(origin: Callable[[], str]) -> str:
    where = origin()
    return f" (connection: {where})" if where else ""


def _look_up(
    run: Callable[..., Any],
    find: Callable[[Call], str | None],
    what: str,
    lost: CallError,
    sleep: Callable[[float], object],
) -> str | None:
    """Look for a job whose submit got no response.

    :raises SubmissionError: it is not known whether it was started.
    """
    doubt: Exception | None = lost
    for seconds in LOOKUPS:
        sleep(seconds)
        try:
            if found := run(find):
                log.info("The submit of %s had started %s", what, found)
                return str(found)
            doubt = None
        except CallError as error:
            doubt = error
    if doubt:
        raise SubmissionError(
            f"{what} may have been started: the submit got no response ({lost}), and it could not be looked up "
            f"({doubt}). {NEXT_TRY}"
        ) from doubt
    return None
