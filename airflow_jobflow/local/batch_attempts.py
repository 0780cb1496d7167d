"""Attempts of Batch jobs, from a free slot to their end.

What always holds: a job has an `attempt` exactly while it is starting or running; whatever ends an attempt
from outside says why first, and the first to say so is the one that is reported.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local import batch_model as model
from airflow_jobflow.local.batch_jobs import Jobs, now
from airflow_jobflow.local.job import Attempt, Ending, Job
from airflow_jobflow.local.processes import Command, Exit, Process, Processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_jobflow.local.batch_model import Json
    from airflow_jobflow.local.moto_backends import Resources
    from airflow_jobflow.local.settings import Settings

MISSING_IMAGES: Final = "missing/"
"""Images whose repository begins so cannot be pulled."""


class Attempts:
    """Runs the jobs of one region."""

    def __init__(self, resources: Resources, processes: Processes, settings: Settings) -> None:
        self._resources = resources
        self._processes = processes
        self._settings = settings
        self._parked: list[Job] = []
        """Runnable jobs that no compute environment takes."""
        self.jobs = Jobs(resources, self.run, self.end)

    def run(self, job: Job) -> None:
        """Queue a runnable job for a slot."""
        self._processes.put(_Run(self, job))

    def reconsider(self) -> None:
        """A queue or compute environment changed: jobs that no environment took may run now."""
        with self.jobs.lock:
            parked, self._parked = self._parked, []
        for job in parked:
            self.run(job)

    def end(self, job: Job, ending: Ending) -> bool:
        """End the attempt of a job, or have it end as it starts; False if it has none."""
        with self.jobs.lock:
            attempt = job.attempt
            if attempt is None:
                return False
            if attempt.ending is None:
                attempt.ending = ending
                if attempt.process is not None:
                    attempt.process.stop(self._grace(ending))
            return True

    def environment_of(self, job: Job) -> str | None:
        """The compute environment that takes a job; None if there is none."""
        queue = self._resources.queue(job.submission.queue_arn)
        return self._resources.enabled_environment(queue) if queue is not None else None

    def is_stuck(self, job: Job) -> bool:
        """Whether a job has been runnable for long with no compute environment to take it."""
        if job.status != model.RUNNABLE or job.runnable_at is None:
            return False
        patience = self._settings.stuck_after * self._settings.time_scale * 1000
        return now() - job.runnable_at >= patience and self.environment_of(job) is None

    def begin(self, job: Job) -> Command | None:
        """A slot is free for a job: the command to run in it, unless the job is no longer to run."""
        with self.jobs.changing():
            if job.status != model.RUNNABLE:
                return None
            environment = self.environment_of(job)
            if environment is None:
                self._parked.append(job)
                return None
            if model.overrides_length(job.submission.container) > model.MAX_OVERRIDES:
                self.jobs.move(job, model.FAILED, model.OVERRIDES_TOO_LONG)
                return None
            job.attempt = Attempt()
            job.ran = self._place(job, job.attempt)
            self.jobs.move(job, model.STARTING)
            image = job.submission.container["image"]
            if image.startswith(MISSING_IMAGES):
                reason = (
                    "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
                    f"failed to resolve ref {image}: not found"
                )
                self._attempt_over(job, job.attempt, None, reason, model.FAILED_TO_START)
                return None
            return Command(job.submission.container["command"], self._variables(job, environment))

    def started(self, job: Job, process: Process) -> None:
        """The process of a job runs."""
        options = job.submission.container.get("logConfiguration", {}).get("options", {})
        prefix = options.get("awslogs-stream-prefix") or job.submission.definition["jobDefinitionName"]
        with self.jobs.lock:
            attempt = job.attempt
            assert attempt is not None
            attempt.started_at = now()
            attempt.log_group = options.get("awslogs-group", "/aws/batch/job")
            attempt.log_stream = f"{prefix}/default/{attempt.task_id}"
            self._resources.open_log(attempt.log_group, attempt.log_stream)
            job.ran["logStreamName"] = attempt.log_stream
            attempt.process = process
            self.jobs.move(job, model.RUNNING)
            if attempt.ending is not None:
                process.stop(self._grace(attempt.ending))
            elif seconds := job.submission.timeout:
                delay = seconds * self._settings.time_scale
                attempt.timer = threading.Timer(delay, self._timed_out, (job, attempt))
                attempt.timer.daemon = True
                attempt.timer.start()

    def _timed_out(self, job: Job, attempt: Attempt) -> None:
        with self.jobs.lock:
            if job.attempt is attempt:  # else it has just ended, and another may have begun
                self.end(job, Ending(model.TIMED_OUT))

    def _grace(self, ending: Ending) -> float:
        """Seconds to react to SIGTERM; what AWS ends by force gets none."""
        return 0 if ending.retried else self._settings.stop_grace

    def lines(self, job: Job, lines: Sequence[str]) -> None:
        """Lines of a job for its log."""
        attempt = job.attempt
        if attempt is not None and attempt.log_stream is not None:
            self._resources.write_log(attempt.log_group, attempt.log_stream, lines)

    def ended(self, job: Job, exit: Exit) -> None:
        """The process of a job ended, or could not be started."""
        with self.jobs.changing():
            attempt = job.attempt
            assert attempt is not None
            if attempt.timer is not None:
                attempt.timer.cancel()
            ending = attempt.ending
            if ending is not None:
                code = ending.exit_code if ending.retried else exit.code
                self._attempt_over(job, attempt, code, ending.reason, ending.status_reason)
            elif exit.error is not None:
                reason = (
                    "CannotStartContainerError: Error response from daemon: failed to create task for "
                    "container: OCI runtime create failed: unable to start container process: "
                    f"{exit.error}: unknown"
                )
                self._attempt_over(job, attempt, None, reason, model.FAILED_TO_START)
            else:
                self._attempt_over(job, attempt, exit.code, None, model.CONTAINER_EXITED)

    def _attempt_over(
        self, job: Job, attempt: Attempt, code: int | None, reason: str | None, status_reason: str
    ) -> None:
        """Record an attempt, and decide whether the job succeeded, is tried again or failed."""
        job.attempt = None
        if code is not None:
            job.ran["exitCode"] = code
        if reason is not None:
            job.ran["reason"] = reason
        record: Json = {"container": dict(job.ran), "stoppedAt": now(), "statusReason": status_reason}
        if attempt.started_at is not None:
            record["startedAt"] = attempt.started_at
        job.attempts.append(record)
        strategy = job.submission.retry_strategy
        tried_again = len(job.attempts) < strategy["attempts"] and model.retries(
            strategy["evaluateOnExit"], status_reason=status_reason, reason=reason, exit_code=code
        )
        final = attempt.ending is not None and not attempt.ending.retried
        if code == 0 and attempt.ending is None:
            self.jobs.move(job, model.SUCCEEDED, status_reason)
        elif final or not tried_again:
            self.jobs.move(job, model.FAILED, status_reason)
        else:
            self.jobs.make_runnable(job)

    def _place(self, job: Job, attempt: Attempt) -> Json:
        """Where an attempt runs, as `container` shows it."""
        place = f"arn:aws:ecs:{self._resources.region}:{self._resources.account}"
        environment = self.environment_of(job)
        placed: Json = {
            "taskArn": f"{place}:task/{environment}_Batch/{attempt.task_id}",
            "networkInterfaces": [],
        }
        if job.submission.on_fargate:
            self._resources.register_task(job.submission.definition["jobDefinitionName"], job.submission.container)
        else:
            instance = uuid.uuid5(uuid.NAMESPACE_DNS, str(environment)).hex
            placed["containerInstanceArn"] = f"{place}:container-instance/{environment}_Batch/{instance}"
        return placed

    def _variables(self, job: Job, environment: str) -> dict[str, str]:
        variables = {
            each["name"]: each.get("value", "") for each in job.submission.container["environment"] if "name" in each
        }
        variables |= {
            "AWS_BATCH_JOB_ID": job.job_id,
            "AWS_BATCH_JOB_ATTEMPT": str(len(job.attempts) + 1),
            "AWS_BATCH_JQ_NAME": job.submission.queue_arn.rsplit("/", 1)[-1],
            "AWS_BATCH_CE_NAME": environment,
        }
        if job.index is not None:
            variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
            variables["AWS_BATCH_JOB_ARRAY_SIZE"] = str(job.submission.size)
        return variables


class _Run:
    """A job in the queue for a slot."""

    def __init__(self, attempts: Attempts, job: Job) -> None:
        self._attempts = attempts
        self._job = job

    def begin(self) -> Command | None:
        return self._attempts.begin(self._job)

    def started(self, process: Process) -> None:
        self._attempts.started(self._job, process)

    def lines(self, lines: Sequence[str]) -> None:
        self._attempts.lines(self._job, lines)

    def ended(self, exit: Exit) -> None:
        self._attempts.ended(self._job, exit)
