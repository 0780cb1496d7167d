"""What a task that is killed on a worker does about its jobs, because nothing else stops them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.deferrals import call_if_deferral_rejected
from airflow_jobflow.airflow_compat.states import DELETED, is_cancelled
from airflow_jobflow.exceptions import JobStopped
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.ui.failure_report import note_stopped

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.operators.execution import Execution

FINAL_DESCRIBE_TIMEOUT = 1.0
"""Seconds for which a killed worker waits for the last status of its job before it stops the job."""

ABANDONING = 5.0
"""Seconds for which a killed task tries to record that it was killed."""

NOT_OURS = "It was left running, because this task did not start it."


def stop_if_deferral_is_rejected(
    record: AttemptRecord, log: Any, stop: Callable[[], str], note: Callable[[], None] = lambda: None
) -> None:
    """Stop the job if Airflow rejects the next deferral, because a user cancelled the task in the meantime.

    :param record: the attempt.
    :param log: the task's log.
    :param stop: stops the job, and returns a sentence for the log.
    :param note: shows in the "Jobs" tab that it was stopped. Default: nothing.
    """

    def rejected(state: str | None) -> None:
        if not is_cancelled(state):
            return  # the next try continues with the job, or decides about it
        log.warning("The task is %s: it was cancelled before it could be deferred", state)
        if state != DELETED:
            record.abandon()
        log.warning("%s", stop())
        if state != DELETED:
            note()

    call_if_deferral_rejected(record.context["ti"], rejected)


def stop_jobs_if_deferral_is_rejected(
    execution: Execution[Any], job_ids: Sequence[str], seen: Mapping[str, Snapshot]
) -> None:
    """Stop the jobs of an operator that is not a map if Airflow rejects the next deferral.

    :param execution: the execution of the operator.
    :param job_ids: its jobs.
    :param seen: their last snapshots, by id.
    """
    jobs = execution.jobs
    stop_if_deferral_is_rejected(
        execution.record,
        execution.log,
        lambda: f"{jobs.called(job_ids)}: {jobs.try_to_stop(job_ids, KILL_REASON)}",
        lambda: note_stopped(execution.report, execution.record.context, seen),
    )


def killed_while_starting(execution: Execution[Any], job_ids: Sequence[str]) -> JobStopped:
    """Stop the jobs that a killed task was just starting, if they are its own, and return the exception.

    :param execution: the execution of the operator.
    :param job_ids: the jobs.
    """
    what_was_done = NOT_OURS
    if execution.record.is_own:
        execution.record.abandon()
        what_was_done = execution.jobs.try_to_stop(job_ids, KILL_REASON)
    return JobStopped(f"The task was killed while it started {execution.jobs.called(job_ids)}. {what_was_done}")


def stop_jobs(execution: Execution[Any], job_ids: Sequence[str], seen: dict[str, Snapshot]) -> None:
    """Stop the jobs of a worker that is killed while it waits. Called by a signal handler.

    The attempt is recorded as abandoned, so that no later try waits for its jobs. Airflow ends the process five seconds
    later, so only the stop may take long.

    :param execution: the execution of the operator.
    :param job_ids: its jobs.
    :param seen: their last snapshots, by id; updated.
    """
    from airflow_jobflow.aws import ONCE

    def log_last_status() -> None:
        seen.update(execution.jobs.describe_now(job_ids, retry=ONCE))
        for job_id, snapshot in list(seen.items()):
            execution.log.info("%s %s: last seen %s", execution.jobs.display_name, job_id, snapshot.progress())

    recording = execution.record.abandon_in_thread()
    describing = threading.Thread(target=log_last_status, daemon=True)
    describing.start()
    describing.join(FINAL_DESCRIBE_TIMEOUT)
    execution.jobs.try_to_stop(job_ids, KILL_REASON)  # a failure is logged, and the interrupted code goes on
    noting = execution.record.in_thread(lambda context: note_stopped(execution.report, context, seen))
    for thread in (recording, noting):
        thread.join(ABANDONING)
