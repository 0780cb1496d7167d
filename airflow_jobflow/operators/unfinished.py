"""Jobs whose task stops waiting before they have ended: at a deadline, after a failure of its trigger.

Invariant: a job is stopped only if no later try continues with it, and only if this task started it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.exceptions import JobflowError, SubmissionError
from airflow_jobflow.operators.earlier_tries import EarlierTries
from airflow_jobflow.operators.kills import NOT_OURS
from airflow_jobflow.waiting import timeouts

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec

LEFT_RUNNING = "It was left running, as cancel_on_timeout=False says."


def timed_out(this: Execution[JobSpec], event: Mapping[str, Any], seen: Mapping[str, Snapshot]) -> JobflowError:
    """Stop jobs whose deadline has passed, unless the trigger has done so, and return the exception.

    :param this: the execution of the operator.
    :param event: the event of the trigger.
    :param seen: the last snapshots of the jobs, by id.
    """
    job_ids, is_stuck = event["job_ids"], event["limit"] == "queue_deadline"
    if not job_ids:  # Airflow ended the deferral, and no job of this try was found
        return timeouts.no_job_found(this.jobs, str(this.deadlines))
    stopped, position = _stopped_by_trigger(this, event), ""
    if stopped is None:
        if is_stuck:
            position = this.spec.queue_position(this.jobs, seen)  # a stopped job has none
        limit = event["limit"].replace("_", " ")
        stopped = _stop(this, job_ids, f"Airflow: the {limit} of the task has passed")
    if len(seen) == 1:
        this.report.keep_links(seen.values())
    if not is_stuck:
        return timeouts.job_timeout(this.jobs, event, str(this.deadlines), stopped)
    limit, advice = f"{this.given.get('queued_timeout', 0):g} s (queued_timeout)", this.spec.when_stuck
    return timeouts.queue_timeout(this.jobs, event, limit, stopped, position=position, advice=advice)


def _stopped_by_trigger(this: Execution[JobSpec], event: Mapping[str, Any]) -> str | None:
    """Return what the trigger did to the jobs when the deadline passed; None if it did nothing."""
    left = event.get("unstopped")
    if not left and not event.get("stopped"):
        return None
    this.record.abandon()
    if not left:
        return "It was stopped."
    why = "; ".join(f"{job_id}: {message}" for job_id, message in left.items())
    then = "The triggerer keeps trying for ten minutes" if this.wait.parameters.defers else "Stop it in the console"
    reaper = "; the orphan reaper stops what is left" if this.record.may_be_reaped else ""
    return f"It could not be stopped yet ({why}). {then}{reaper}."


def _stop(this: Execution[JobSpec], job_ids: Sequence[str], reason: str) -> str:
    """Stop jobs that no try will wait for, if the task may stop them. Return a sentence that says what was done."""
    if not this.record.is_own:
        return NOT_OURS
    if not this.given["cancel_on_timeout"]:
        return LEFT_RUNNING
    stopped = this.jobs.try_to_stop(job_ids, reason)
    this.record.abandon()
    return stopped


def not_described(this: Execution[JobSpec], error: JobflowError) -> JobflowError:
    """Return the exception for a job that cannot be described. It is not stopped, because it may be running well.

    :param this: the execution of the operator.
    :param error: what describing it raised.
    """
    then = "No try is left to wait for it: look it up in the AWS console before you start it again."
    if this.record.next_try_continues:
        then = "The next try continues with it, if it can be described then."
    return type(error)(f"{error} {then}")


def trigger_failed(this: Execution[JobSpec], context: Context) -> None:
    """Stop the jobs whose trigger failed if no other try follows, and log what happens to them.

    :param this: the execution of the operator.
    :param context: Airflow's context.
    """

    def decide() -> str:
        if not (job_ids := EarlierTries(this).jobs_of_this_try()):
            return ""
        said = "The next try continues with it."
        if not this.record.next_try_continues:
            said = _stop(this, job_ids, "Airflow: the task's trigger has failed")
        return f"The trigger that waited for {this.jobs.called(job_ids)} has failed. {said}"

    log_trigger_failure(this, context, decide)


def log_trigger_failure(this: Execution[Any], context: Context, decide: Callable[[], str]) -> None:
    """Decide about the jobs of a task whose trigger failed, and log that. Airflow drops what the deferral carried.

    :param this: the execution of the operator.
    :param context: Airflow's context.
    :param decide: decides, and returns what to log; empty for nothing.
    """
    try:
        this.record.resume_from_store(context)
        said = decide()
    except SubmissionError as error:
        said = str(error)
    if said:
        this.log.warning("%s", said)
