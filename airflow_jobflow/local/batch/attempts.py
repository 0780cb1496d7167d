"""The attempts of Batch jobs.

Invariants:

- A job has an `attempt` exactly while it is starting or running.
- An attempt that is ended from outside has an `ending`. The first one is reported.
- A job uses one slot, which its first container holds. Its other containers run without a slot.
- The end of an essential container ends the attempt: the other containers are stopped.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

from airflow_jobflow.local.batch import model
from airflow_jobflow.local.batch.job import Attempt, Container, Ending, Job
from airflow_jobflow.local.batch.jobs import Jobs, now
from airflow_jobflow.local.command import Command, Exit
from airflow_jobflow.local.containers import may_start, pull_error, start_error
from airflow_jobflow.local.job_environment import ON_EC2, ON_FARGATE, job_environment
from airflow_jobflow.local.processes import Process, Processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_jobflow.local.batch.model import Json
    from airflow_jobflow.local.fault_box import FaultBox
    from airflow_jobflow.local.moto_backends import Resources
    from airflow_jobflow.local.settings import Settings


class Attempts:
    """Runs the jobs of one region.

    :param resources: the resources of the region in moto.
    :param processes: runs commands.
    :param settings: durations.
    :param faults: the active faults.
    """

    def __init__(self, resources: Resources, processes: Processes, settings: Settings, faults: FaultBox) -> None:
        self._resources = resources
        self._faults = faults
        self._processes = processes
        self._settings = settings
        self._parked: list[Job] = []
        """Runnable jobs without an enabled compute environment."""
        self.jobs = Jobs(resources, self.run, self.end)

    def run(self, job: Job) -> None:
        """Queue a runnable job for a slot.

        :param job: the job.
        """
        self._processes.put(_Run(self, job))

    def reconsider(self) -> None:
        """Run jobs that waited for a compute environment, after a queue or compute environment has changed."""
        with self.jobs.lock:
            parked, self._parked = self._parked, []
        for job in parked:
            self.run(job)

    def end(self, job: Job, ending: Ending) -> bool:
        """End the attempt of a job, and return whether it has one. An attempt that is starting ends as soon as it has.

        :param job: the job.
        :param ending: how to end it.
        """
        with self.jobs.changing():
            attempt = job.attempt
            if attempt is None:
                return False
            if attempt.ending is None and attempt.end_reason is None:
                attempt.ending = ending
                self._stop(job, attempt)
            return True

    def environment_of(self, job: Job) -> str | None:
        """Return the name of the enabled compute environment for a job, or None.

        :param job: the job.
        """
        queue = self._resources.queue(job.submission.queue_arn)
        return self._resources.enabled_environment(queue) if queue is not None else None

    def is_stuck(self, job: Job) -> bool:
        """Return whether a job has waited for a compute environment for too long.

        :param job: the job.
        """
        if job.status != model.RUNNABLE or job.runnable_at is None:
            return False
        allowed = self._settings.stuck_after * self._settings.time_scale * 1000
        return now() - job.runnable_at >= allowed and self.environment_of(job) is None

    def begin(self, job: Job) -> tuple[Attempt, Container] | None:
        """Start an attempt of a job, as a slot is free; return the attempt and its first container.

        :param job: the job.
        :return: None if it must not run now.
        """
        with self.jobs.changing():
            if job.status != model.RUNNABLE:
                return None
            environment = self.environment_of(job)
            if environment is None:
                self._parked.append(job)
                return None
            if model.overrides_length(job.submission.containers) > model.MAX_OVERRIDES:
                self.jobs.move(job, model.FAILED, model.OVERRIDES_TOO_LONG)
                return None
            attempt = Attempt([Container(each) for each in job.submission.containers])
            attempt.place = self._place(job, attempt, environment)
            job.attempt = job.newest = attempt
            self.jobs.move(job, model.STARTING)
            if self._fails_to_start(job, attempt):
                self._end_attempt(job, attempt)
                return None
            first, *others = (each for each in attempt.containers if not each.definition.get("dependsOn"))
            for each in (first, *others):
                each.begun = True
            for each in others:
                self._processes.run_without_slot(_Run(self, job, attempt, each))
            return attempt, first

    def _fails_to_start(self, job: Job, attempt: Attempt) -> bool:
        """Return whether an attempt fails to start; if so, set its reasons."""
        if failure := self._faults.fails_start(*job.names()):
            attempt.deciding = attempt.containers[0]
            if failure.concerns_container:
                attempt.end_reason, attempt.deciding.reason = model.FAILED_TO_START, failure.reason
            else:
                attempt.end_reason = failure.reason
            return True
        for container in attempt.containers:
            container.reason = pull_error(container.definition["image"])
            if container.reason is not None:
                attempt.end_reason, attempt.deciding = model.FAILED_TO_START, container
                return True
        return False

    def command(self, job: Job, container: Container) -> Command:
        """Return the command of a container.

        :param job: the job.
        :param container: the container.
        """
        return Command(container.definition["command"], self._variables(job, container))

    def started(self, job: Job, attempt: Attempt, container: Container, process: Process) -> None:
        """Record that the process of a container has started.

        :param job: the job.
        :param attempt: its attempt.
        :param container: the container.
        :param process: the process.
        """
        options = container.definition.get("logConfiguration", {}).get("options", {})
        prefix = options.get("awslogs-stream-prefix") or job.submission.definition["jobDefinitionName"]
        with self.jobs.changing():
            container.process, container.started = process, True
            stream = f"{prefix}/{container.name or 'default'}/{attempt.task_id}"
            container.log = (options.get("awslogs-group", "/aws/batch/job"), stream)
            self._resources.open_log(*container.log)
            if attempt.started_at is None:
                attempt.started_at = now()
                self.jobs.move(job, model.RUNNING)
                self._limit(job, attempt)
            if attempt.ending is not None or attempt.end_reason is not None:
                process.stop(self._grace(attempt))
            self._advance(job, attempt)

    def _limit(self, job: Job, attempt: Attempt) -> None:
        """Start the timer for the timeout of an attempt."""
        if seconds := job.submission.timeout:
            delay = seconds * self._settings.time_scale
            attempt.timer = threading.Timer(delay, self._timed_out, (job, attempt))
            attempt.timer.daemon = True
            attempt.timer.start()

    def _timed_out(self, job: Job, attempt: Attempt) -> None:
        with self.jobs.lock:
            if job.attempt is attempt:  # otherwise it has just ended
                self.end(job, Ending(model.TIMED_OUT))

    def _grace(self, attempt: Attempt) -> float:
        """Return the seconds between SIGTERM and SIGKILL; none if AWS takes away the capacity."""
        by_force = attempt.ending is not None and attempt.ending.retried
        return 0 if by_force else self._settings.stop_grace

    def lines(self, container: Container, lines: Sequence[str]) -> None:
        """Write lines to the log of a container.

        :param container: the container.
        :param lines: the lines.
        """
        if container.log is not None:
            self._resources.write_log(*container.log, lines)

    def ended(self, job: Job, attempt: Attempt, container: Container, exit: Exit) -> None:
        """Record that the process of a container has ended, or could not be started.

        :param job: the job.
        :param attempt: its attempt.
        :param container: the container.
        :param exit: how it ended.
        """
        with self.jobs.changing():
            container.process, container.stopped = None, True
            ending = attempt.ending
            if ending is not None:
                container.exit_code = ending.exit_code if ending.retried else exit.code
                container.reason = ending.reason
            elif exit.error is not None:
                container.reason = start_error(exit.error)
            else:
                container.exit_code = exit.code
            if container.essential and attempt.end_reason is None:
                attempt.deciding = attempt.deciding or container
                if ending is None:
                    attempt.end_reason = model.FAILED_TO_START if exit.error is not None else model.CONTAINER_EXITED
                    self._stop(job, attempt)
            self._advance(job, attempt)

    def _advance(self, job: Job, attempt: Attempt) -> None:
        """Start the containers whose dependencies are met, and stop those whose dependencies can no longer be met."""
        others = {each.name: each.progress for each in attempt.containers}
        for each in attempt.containers:
            if each.begun or each.stopped:
                continue
            may = may_start(each.definition.get("dependsOn", ()), others)
            if may:
                each.begun = True
                self._processes.run_without_slot(_Run(self, job, attempt, each))
            elif may is False:
                each.stopped = True
                if each.essential and attempt.end_reason is None and attempt.ending is None:
                    attempt.end_reason, attempt.deciding = model.FAILED_TO_START, each
                    self._stop(job, attempt)
                self._advance(job, attempt)
                return
        self._settle(job, attempt)

    def _stop(self, job: Job, attempt: Attempt) -> None:
        """Stop the running containers of an attempt, and start no others."""
        for each in attempt.containers:
            if each.process is not None:
                each.process.stop(self._grace(attempt))
            elif not each.begun:
                each.stopped = True
        self._settle(job, attempt)

    def _settle(self, job: Job, attempt: Attempt) -> None:
        """End an attempt when all of its containers have stopped."""
        if job.attempt is attempt and all(each.stopped for each in attempt.containers):
            self._end_attempt(job, attempt)

    def _end_attempt(self, job: Job, attempt: Attempt) -> None:
        """Record an ended attempt, and decide whether the job succeeded, failed or is retried."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        job.attempt = None
        ending = attempt.ending
        status_reason = ending.status_reason if ending is not None else attempt.end_reason
        record: Json = {**attempt.shown(job.submission), "stoppedAt": now(), "statusReason": status_reason}
        if attempt.started_at is not None:
            record["startedAt"] = attempt.started_at
        job.attempts.append(record)
        deciding = attempt.deciding or attempt.containers[0]
        strategy = job.submission.retry_strategy
        is_retried = len(job.attempts) < strategy["attempts"] and model.retries(
            strategy["evaluateOnExit"],
            status_reason=status_reason,
            reason=deciding.reason,
            exit_code=deciding.exit_code,
        )
        final = ending is not None and not ending.retried
        if ending is None and deciding.exit_code == 0:
            self.jobs.move(job, model.SUCCEEDED, status_reason)
        elif final or not is_retried:
            self.jobs.move(job, model.FAILED, status_reason)
        else:
            self.jobs.make_runnable(job)

    def _place(self, job: Job, attempt: Attempt, environment: str) -> Json:
        """Return where an attempt runs, as in DescribeJobs."""
        place = f"arn:aws:ecs:{self._resources.region}:{self._resources.account}"
        placed: Json = {"taskArn": f"{place}:task/{environment}_Batch/{attempt.task_id}"}
        definition = job.submission.definition
        is_single = "containerProperties" in definition
        if is_single:
            placed["networkInterfaces"] = []
        if job.submission.on_fargate:
            if is_single:
                self._resources.register_task(definition["jobDefinitionName"], job.submission.containers[0])
        else:
            instance = uuid.uuid5(uuid.NAMESPACE_DNS, environment).hex
            placed["containerInstanceArn"] = f"{place}:container-instance/{environment}_Batch/{instance}"
        return placed

    def _variables(self, job: Job, container: Container) -> dict[str, str]:
        own = {each["name"]: each.get("value", "") for each in container.definition["environment"]}
        where = ON_FARGATE if job.submission.on_fargate else ON_EC2
        variables = job_environment(self._resources.region, execution_env=where, own=own)
        variables |= {
            "AWS_BATCH_JOB_ID": job.job_id,
            "AWS_BATCH_JOB_ATTEMPT": str(len(job.attempts) + 1),
            "AWS_BATCH_JQ_NAME": job.submission.queue_arn.rsplit("/", 1)[-1],
            "AWS_BATCH_CE_NAME": self.environment_of(job) or "",
        }
        if job.index is not None:
            variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
            variables["AWS_BATCH_JOB_ARRAY_SIZE"] = str(job.submission.size)
        return variables


class _Run:
    """A container of an attempt: the first one waits for a slot, the others start immediately."""

    def __init__(
        self, attempts: Attempts, job: Job, attempt: Attempt | None = None, container: Container | None = None
    ) -> None:
        self._attempts = attempts
        self._job = job
        self._begun = None if attempt is None or container is None else (attempt, container)

    def begin(self) -> Command | None:
        self._begun = self._begun or self._attempts.begin(self._job)
        return self._attempts.command(self._job, self._begun[1]) if self._begun else None

    def started(self, process: Process) -> None:
        assert self._begun is not None
        self._attempts.started(self._job, *self._begun, process)

    def lines(self, lines: Sequence[str]) -> None:
        assert self._begun is not None
        self._attempts.lines(self._begun[1], lines)

    def ended(self, exit: Exit) -> None:
        assert self._begun is not None
        self._attempts.ended(self._job, *self._begun, exit)
