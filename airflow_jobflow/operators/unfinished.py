"""Jobs whose task stops waiting before they have ended: at a deadline, after a failure of its trigger.

Invariant: a job is stopped only if no later try continues with it, and only if this task started it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import JobflowError, SubmissionError
from airflow_jobflow.operators import changes
from airflow_jobflow.operators.earlier_tries import EarlierTries
from airflow_jobflow.operators.kills import NOT_OURS
from airflow_jobflow.waiting import timeouts

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec
    from airflow_jobflow.waiting.resume import Method

LEFT_RUNNING = "It was left running, because cancel_on_timeout is False."


def timed_out(execution: Execution[JobSpec], event: Mapping[str, Any], seen: Mapping[str, Snapshot]) -> JobflowError:
    """Stop jobs whose deadline has passed, unless the trigger has done so, and return the exception.

    :param execution: the execution of the operator.
    :param event: the event of the trigger.
    :param seen: the last snapshots of the jobs, by id.
    """
    job_ids, is_stuck = event["job_ids"], event["limit"] == "queue_deadline"
    if not job_ids:  # Airflow ended the deferral, and no job of this try was found
        return timeouts.no_job_found(execution.jobs, str(execution.deadlines))
    stopped, position = _stopped_by_trigger(execution, event), ""
    if stopped is None:
        if is_stuck:
            position = execution.spec.queue_position(execution.jobs, seen)  # a stopped job has none
        limit = event["limit"].replace("_", " ")
        stopped = _stop(execution, job_ids, f"Airflow: the {limit} of the task has passed")
    if len(seen) == 1:
        execution.report.keep_links(seen.values())
    if not is_stuck:
        return timeouts.job_timeout(execution.jobs, event, str(execution.deadlines), stopped)
    limit, advice = f"{execution.given.get('queued_timeout', 0):g} s (queued_timeout)", execution.spec.when_stuck
    error = timeouts.queue_timeout(execution.jobs, event, limit, stopped, position=position, advice=advice)
    return changes.after_queue_timeout(execution, error)


def _stopped_by_trigger(execution: Execution[JobSpec], event: Mapping[str, Any]) -> str | None:
    """Return what the trigger did to the jobs when the deadline passed; None if it did nothing."""
    left = event.get("unstopped")
    if not left and not event.get("stopped"):
        return None
    execution.record.abandon()
    if not left:
        return "It was stopped."
    why = "; ".join(f"{job_id}: {message}" for job_id, message in left.items())
    then = (
        "The triggerer keeps trying for ten minutes" if execution.wait.parameters.defers else "Stop it in the console"
    )
    reaper = "; the orphan reaper stops what is left" if execution.record.may_be_reaped else ""
    return f"It could not be stopped yet ({why}). {then}{reaper}."


def _stop(execution: Execution[JobSpec], job_ids: Sequence[str], reason: str) -> str:
    """Stop jobs that no try will wait for, if the task may stop them. Return a sentence that says what was done."""
    if not execution.record.is_own:
        return NOT_OURS
    if not execution.given.get("cancel_on_timeout"):
        return LEFT_RUNNING
    stopped = execution.jobs.try_to_stop(job_ids, reason)
    execution.record.abandon()
    return stopped


def not_described(execution: Execution[JobSpec], error: JobflowError) -> JobflowError:
    """Return the exception for a job that cannot be described. It is not stopped, because it may be running normally.

    :param execution: the execution of the operator.
    :param error: what describing it raised.
    """
    then = "No retry will continue with it: check the job in the AWS console before you run the task again."
    if execution.record.next_try_continues:
        then = "The next try continues with it, if it can be described then."
    return type(error)(f"{error} {then}")


def deferral_timed_out(execution: Execution[JobSpec], context: Context) -> Method:
    """Return the method with which a task continues after Airflow has timed out its deferral.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    """
    execution.record.resume_from_store(context)
    job_ids = EarlierTries(execution).jobs_of_this_try()
    # If it has no job yet, it was waiting for capacity, and may try to start once more.
    waited = execution.record.attempt.waits_since and not job_ids
    event = {"job_ids": job_ids, "jobs": {}, "errors": {}, "limit": "deadline"}
    return ("start" if waited else "execute_complete"), {"event": event}


def trigger_failed(execution: Execution[JobSpec], context: Context) -> None:
    """Stop the jobs whose trigger failed if no other try follows, and log what happens to them.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    """

    def decide() -> str:
        if not (job_ids := EarlierTries(execution).jobs_of_this_try()):
            return ""
        message = "The next try continues with it."
        if not execution.record.next_try_continues:
            message = _stop(execution, job_ids, "Airflow: the task's trigger has failed")
        return f"The trigger that waited for {execution.jobs.called(job_ids)} has failed. {message}"

    log_trigger_failure(execution, context, decide)


def log_trigger_failure(execution: Execution[Any], context: Context, decide: Callable[[], str]) -> None:
    """Decide about the jobs of a task whose trigger failed, and log that. Airflow drops what the deferral carried.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    :param decide: decides, and returns what to log; empty for nothing.
    """
    try:
        execution.record.resume_from_store(context)
        message = decide()
    except SubmissionError as error:
        message = str(error)
    if message:
        execution.log.warning("%s", message)
