"""One submit starts one job, also where its answer is lost.

AWS Batch has no client token: a SubmitJob made again is a second job. So every job gets a name that nobody else
uses, and a submit whose answer was lost (a time-out, a dropped connection, a 5xx) is looked up by that name before
it is made again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from airflow_jobflow.aws import fault_of, no_answer
from airflow_jobflow.exceptions import SubmissionError, SubmissionRefused
from airflow_jobflow.jobs.starting import FULL, LOOKUPS
from airflow_jobflow.watch.errors import Fault
from airflow_jobflow.watch.pacing import pause

log = logging.getLogger(__name__)

SUBMITS = 6
"""How often a submit that was throttled, or that no trace can be found of, is made in one try of the task."""

FINAL = (Fault.REJECTED, Fault.DENIED, Fault.NOWHERE)
"""What a retry cannot mend."""


def submit_once(
    submit: Callable[[], str],
    find: Callable[[], str | None] | None,
    what: str,
    *,
    repeatable: bool = False,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Submit a job, and return its id.

    :param submit: makes the call and returns the job's id.
    :param find: returns the id of the job this submit may have started, or None; None where it cannot be found.
    :param what: the job in words, for messages.
    :param repeatable: whether the call carries a token with which it starts nothing twice.
    :param sleep: waits for the given seconds.
    :raises SubmissionRefused: AWS refused it, or cannot be asked with this configuration.
    :raises SubmissionError: it could not be submitted; the message says if it may have been started nevertheless.
    """
    maybe_started = False
    for turn in range(1, SUBMITS + 1):
        try:
            return submit()
        except no_answer() as lost:
            error, fault = lost, fault_of(lost)
        except (KeyError, ValueError) as lost:
            error, fault = lost, Fault.PASSING  # an answer, but none that can be read
        maybe_started |= repeatable and fault is Fault.PASSING
        if fault in FINAL and not maybe_started and not FULL.search(str(error)):
            raise SubmissionRefused(f"{what} was refused and nothing was started: {error}") from error
        if turn == SUBMITS or fault not in (Fault.THROTTLED, Fault.PASSING):
            break
        if fault is Fault.PASSING and not repeatable:
            log.warning("The submit of %s got no answer (%s); looking whether it was started", what, error)
            if found := _look_up(find, what, error, sleep):
                return found
        else:
            log.warning("The submit of %s failed (%s); it is made again in %.0f s", what, error, pause(turn))
            sleep(pause(turn))
    doubt = "whether it was started is not known" if maybe_started or fault is Fault.PASSING else "nothing was started"
    raise SubmissionError(f"{what} could not be submitted, and {doubt}: {error}") from error


def _look_up(
    find: Callable[[], str | None] | None, what: str, lost: Exception, sleep: Callable[[float], object]
) -> str | None:
    """Look for a job whose submit got no answer.

    :raises SubmissionError: it cannot be known whether it was started.
    """
    doubt: Exception | None = lost
    for seconds in LOOKUPS if find else ():
        sleep(seconds)
        try:
            if found := find and find():
                log.info("The lost submit of %s had started %s", what, found)
                return found
            doubt = None
        except no_answer() as error:
            doubt = error
    if doubt:
        raise SubmissionError(
            f"{what} may have been started: the submit got no answer ({lost}), and it could not be looked up "
            f"({doubt}). Look for it in the console before it is started again."
        ) from doubt
    return None
