"""The jobs of a map whose task stops waiting before they have ended: at a deadline, after an error, when it is killed.

Invariant: what the next try continues with is not stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import JobflowError, JobTimeout
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.maps import result as map_result
from airflow_jobflow.maps.previous_results import NO_TIMES
from airflow_jobflow.operators.map_record import STOPPED, MapAttempt
from airflow_jobflow.operators.unfinished import log_trigger_failure
from airflow_jobflow.waiting import timeouts

if TYPE_CHECKING:
    from airflow.sdk import Context


STOP_PATIENCE = 60.0
"""Seconds for which a worker tries to stop jobs while AWS does not respond."""

MAY_RUN = ("denied", "credentials", "unanswerable", "failed")
"""Reasons for which a trigger ends a map and leaves its jobs running."""

EVENT_OF_NO_TRIGGER: dict[str, Any] = {
    "statuses": "",
    "lines": pack(()),
    "running": pack(()),
    "limit": "deadline",
    "error": None,
    "unstopped": None,
    "times": NO_TIMES,
}
"""The event for a map whose trigger did not fire before Airflow ended the deferral."""

LEFT_RUNNING = "Running jobs were not stopped, because cancel_on_timeout is False."


def timed_out(attempt: MapAttempt, event: Mapping[str, Any]) -> JobTimeout:
    """Stop running jobs, unless the trigger has done so, and return the exception.

    :param attempt: the map that this try runs.
    :param event: the event of the trigger.
    """
    stopped = LEFT_RUNNING
    if attempt.execution.given.get("cancel_on_timeout"):
        stopped = stopped_by_trigger(event)
        if event.get("unstopped") is None:  # no triggerer was running to do it
            stopped = stop_all(attempt, "Airflow: the deadline of the task has passed", unpack(event["running"]))
        attempt.record_end()
    progress, unfinished = map_result.progress(event), map_result.first_unfinished(event)
    limit = str(attempt.execution.deadlines)
    return timeouts.map_timeout(
        attempt.execution.jobs, attempt.name, limit, stopped, progress=progress, unfinished=unfinished
    )


def could_not_continue(attempt: MapAttempt, event: Mapping[str, Any]) -> JobflowError:
    """Decide what happens to running jobs, and return the exception of a map that could not continue.

    :param attempt: the map that this try runs.
    :param event: the event of the trigger.
    """
    kind, running = event["error"]["kind"], unpack(event["running"])
    if kind == "failed":
        what_was_done = _stop_unless_retried(attempt, running)
    elif kind in MAY_RUN:
        what_was_done = f"Running jobs were not stopped. {_next_try(attempt)}" if running else ""
    else:
        attempt.record_end()
        what_was_done = stopped_by_trigger(event) if event["statuses"].strip(map_statuses.NOT_STARTED) else ""
    return map_result.could_not_continue(attempt.execution.jobs.outcome_builder, attempt.name, event, what_was_done)


def trigger_failed(attempt: MapAttempt, context: Context) -> None:
    """Stop the jobs of a map whose trigger failed if no other try follows, and log what happens to them.

    :param attempt: the map that this try runs.
    :param context: Airflow's context.
    """

    def decide() -> str:
        if not (attempt.may_run or attempt.is_unknown):
            return ""
        return f"The trigger of map {attempt.name} has failed. {_stop_unless_retried(attempt, ())}"

    log_trigger_failure(attempt.execution, context, decide)


def _stop_unless_retried(attempt: MapAttempt, running: Sequence[str]) -> str:
    """Stop what the map runs, unless the task's next try continues with it; return what was done."""
    if attempt.execution.record.next_try_continues:
        return _next_try(attempt)
    if not attempt.execution.given.get("cancel_on_timeout"):
        return LEFT_RUNNING
    what_was_done = stop_all(attempt, "Airflow: the task can no longer wait for the map", running)
    attempt.record_end()
    return what_was_done


def _next_try(attempt: MapAttempt) -> str:
    """A sentence that says what the task's next try does with running jobs."""
    if not attempt.execution.record.next_try_continues:
        return "No retry will continue with them: check the jobs in the AWS console before you run the map again."
    if attempt.is_unknown or attempt.execution.record.store is None:
        return "The next try stops the running jobs, and starts over."
    return "The next try continues with the running jobs."


def stop_all(attempt: MapAttempt, reason: str, known: Sequence[str]) -> str:
    """Stop all jobs of the map, and return a sentence that says whether that succeeded.

    :param attempt: the map that this try runs.
    :param reason: for AWS and for the log.
    :param known: the ids of running jobs, as far as they are known.
    """
    left: object
    if attempt.is_unknown:
        left = attempt.try_to_stop_unrecorded(reason)
    else:
        left = asyncio.run(attempt.trigger(0, (), ()).stop_all(reason, known, retry_timeout=STOP_PATIENCE))
    if not left:
        return STOPPED
    attempt.execution.log.warning("Map %s: %s", attempt.name, left)
    return f"Stop these jobs in the console, if they are still running: {sentence(str(left))}"


def stopped_by_trigger(event: Mapping[str, Any]) -> str:
    """Return a sentence that says whether the trigger could stop the running jobs.

    :param event: the event of the trigger.
    """
    left = event.get("unstopped") or {}
    if not left.get("message"):
        return STOPPED
    return f"Stop these jobs in the console, if they are still running: {sentence(left['message'])}"
