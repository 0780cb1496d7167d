"""The exceptions of tasks whose time is up: what did not end or start within which limit, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout

from airflow_jobflow.exceptions import JobTimeout, QueueTimeout
from airflow_jobflow.waiting.wait import snapshots

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs


def job_timeout(jobs: RemoteJobs, event: Mapping[str, Any], limit: str, stopped: str) -> JobTimeout:
    """Return the exception for jobs that did not end in time.

    :param jobs: the jobs of the task.
    :param event: the event of the trigger.
    :param limit: the limit that has passed, with its parameter.
    :param stopped: a sentence that says whether the jobs were stopped.
    """
    first = f"{_called(jobs, event)}, did not end within {limit}. {stopped} Raise the limit, or make the job faster."
    return JobTimeout("\n".join([first, *_evidence(jobs, event)]), outcome=_outcome(jobs, event))


def queue_timeout(
    jobs: RemoteJobs, event: Mapping[str, Any], limit: str, stopped: str, *, position: str, advice: str
) -> QueueTimeout:
    """Return the exception for jobs that did not leave the queue in time.

    :param jobs: the jobs of the task.
    :param event: the event of the trigger.
    :param limit: the limit that has passed, with its parameter.
    :param stopped: a sentence that says whether the jobs were stopped.
    :param position: a sentence about the jobs' position in the queue, with a blank at its end; empty if not known.
    :param advice: what to do about it.
    """
    first = f"{_called(jobs, event)}, did not leave the queue within {limit}. {position}{stopped} {advice}"
    shown = _evidence(jobs, event, with_log=False)  # a job that never ran wrote nothing
    return QueueTimeout("\n".join([first, *shown]), outcome=_outcome(jobs, event))


def no_job_found(jobs: RemoteJobs, limit: str) -> JobTimeout:
    """Return the exception for a deferral that Airflow timed out, if no job of the try was found.

    :param jobs: the jobs of the task.
    :param limit: the limit that has passed, with its parameter.
    """
    return JobTimeout(
        f"The task timed out after {limit}, and no {jobs.display_name} of this try was found (connection: "
        f"{jobs.origin}). Nothing was stopped. Look for it in the AWS console before you start it again."
    )


def never_started(attempt: Attempt, why: str, limit: str) -> str:
    """Return the message of a task that could not start its job before a deadline.

    :param attempt: the attempt.
    :param why: why AWS started nothing.
    :param limit: the limit that has passed, with its parameter.
    """
    times = "once" if attempt.starts == 1 else f"{attempt.starts} times"
    return f"{why} It was tried {times} within {limit}, and nothing was started. Raise the limit."


def map_timeout(
    jobs: RemoteJobs, name: str, limit: str, stopped: str, *, progress: str, unfinished: tuple[str, str] | None
) -> JobTimeout:
    """Return the exception for a map that did not end in time, with the log of one job that had not ended.

    :param jobs: the jobs of the map.
    :param name: the map's name.
    :param limit: the limit that has passed, with its parameter.
    :param stopped: a sentence that says whether the jobs were stopped.
    :param progress: how many items ended.
    :param unfinished: the id of a job that had not ended, and its name in messages; None if there is none.
    """
    from airflow_jobflow.aws import ONCE

    advice = "Raise the limit, or max_concurrency."
    lines = [f"Map {name} of {jobs.display_name}s did not end within {limit}: {progress}. {stopped} {advice}"]
    if unfinished is not None:
        job_id, called = unfinished
        seen = jobs.describe_now([job_id], retry=ONCE)
        if job_id in seen:
            lines += jobs.outcome_builder.evidence(seen[job_id], of=f" of {called}")
    return JobTimeout("\n".join(lines))


def sensor_timeout(jobs: RemoteJobs, event: Mapping[str, Any], deadlines: Deadlines) -> AirflowException:
    """Return the exception for a sensor: one that is not retried, if ``timeout`` has passed, as with every sensor.

    :param jobs: the jobs that the sensor waits for.
    :param event: the event of the trigger.
    :param deadlines: the limits of the sensor.
    """
    builder, seen, job_ids = jobs.outcome_builder, snapshots(event), event["job_ids"]
    left = [job_id for job_id in job_ids if job_id not in seen or not seen[job_id].state.ended]
    called = builder.called(left, seen, unseen=f"never described (connection: {jobs.origin})", of=len(job_ids))
    lines = [f"Timed out after {deadlines} while waiting for {called}. A sensor stops nothing."]
    if len(left) == len(seen) == 1:
        lines += builder.evidence(seen[left[0]])
    name, _ = deadlines.first or ("timeout", 0)
    return (AirflowSensorTimeout if name == "timeout" else JobTimeout)("\n".join(lines))


def _called(jobs: RemoteJobs, event: Mapping[str, Any]) -> str:
    unseen = f"not described since it was started (connection: {jobs.origin})"
    return jobs.outcome_builder.called(event["job_ids"], snapshots(event), unseen=unseen)


def _outcome(jobs: RemoteJobs, event: Mapping[str, Any]) -> Any:
    """Return the outcome of the one job, or a list of outcomes, as far as they were described."""
    outcomes = [jobs.outcome_builder.outcome(each).to_dict() for each in snapshots(event).values()]
    return next(iter(outcomes), None) if len(event["job_ids"]) == 1 else outcomes


def _evidence(jobs: RemoteJobs, event: Mapping[str, Any], *, with_log: bool = True) -> Sequence[str]:
    """Return the lines that show what the one job wrote last."""
    seen = snapshots(event)
    if not len(seen) == len(event["job_ids"]) == 1:
        return []
    builder = jobs.outcome_builder if with_log else replace(jobs.outcome_builder, log_lines=0)
    return builder.evidence(next(iter(seen.values())))
