"""The orphan reaper: stops jobs in AWS that still run though their task has ended.

Operators and triggers stop their jobs themselves where a process of ours learns of a kill. Nothing of ours learns of it
while no triggerer is alive, between two tries, or before a triggerer has picked up a new wait. Those jobs are found
here, by the owner that every job carries: ``airflow_jobflow.jobs.owner``.

Invariants:

- All jobs are listed before Airflow is asked for states, and nothing is stopped before Airflow has answered everything.
- Nothing is stopped in a dry run, and every run is dry where the deployment has no ``[jobflow] deployment_id``.
- One queue, cluster or job that cannot be listed, and one job that cannot be stopped, keeps no other from it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_jobflow.aws import Access, no_answer
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.listing import SERVICES, Call, NotStopped
from airflow_jobflow.jobs.orphans import (
    NO_STATE,
    NOTEWORTHY,
    ORPHANS,
    REASONS,
    Finding,
    ListedJob,
    States,
    finding_by_state,
    finding_without_state,
    read_states,
)

log = logging.getLogger(__name__)

ACTIONS: Final = ("stopped", "would_stop", "stop_failed", "left_alone")
"""What is done with a job."""


def stop_orphans(
    *,
    job_queues: Sequence[str] = (),
    clusters: Sequence[str] = (),
    glue_jobs: Sequence[str] = (),
    dry_run: bool = True,
    reap_deleted_runs: bool = False,
    access: Access | None = None,
    deployment_id: str | None = None,
    states: States | None = None,
    call_of: Callable[[str], Call] | None = None,
    now: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Find jobs whose task has ended, and stop them. Call it in a task: it asks Airflow through the task's supervisor.

    :param job_queues: Batch queues whose jobs are listed, by name or ARN. Default none.
    :param clusters: ECS clusters whose tasks are listed, by name or ARN. Default none.
    :param glue_jobs: Glue jobs whose runs are listed, by name. Default none.
    :param dry_run: only report what would be stopped. Default True.
    :param reap_deleted_runs: also stop jobs whose task instance Airflow does not know, for its run was deleted.
        Default False.
    :param access: the AWS connection, region and client configuration to use. Default: connection ``aws_default``.
    :param deployment_id: which deployment's jobs may be stopped. Default: ``[jobflow] deployment_id``.
    :param states: returns the states of tasks. Default: as Airflow's API has them.
    :param call_of: returns what makes the calls of a service, by boto3's name of it. Default: this package's path to
        AWS, within its rate limit.
    :param now: returns the time in seconds since the epoch.
    :returns: ``dry_run``; ``jobs``, one dict each for orphans and for jobs that a person should look at, with
        ``service``, ``location``, ``job_id``, ``status``, ``owner``, ``state``, ``action`` (``stopped``,
        ``would_stop``, ``stop_failed`` or ``left_alone``), ``reason``; ``counts`` of all that was listed, by finding
        and by action; ``problems``, one dict for each location that could not be listed.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow did not return the states of tasks. Nothing was stopped.
    """
    deployment = _deployment_id() if deployment_id is None else deployment_id
    if not deployment and not dry_run:
        log.warning("Dry run: [jobflow] deployment_id is not set, so the jobs of other deployments are not recognized.")
    report = Report(dry_run or not deployment)
    call_of = call_of or _path_to_aws(access or Access())
    locations = {"batch": job_queues, "ecs": clusters, "glue_run": glue_jobs}
    jobs = report.listed(call_of, locations, now())
    findings = {job: finding_without_state(job, deployment, now()) for job in jobs}
    state_of = read_states([job.owner for job in jobs if job.owner and findings[job] is None], states or task_states)
    for job in jobs:
        state = state_of[job.owner.task_instance] if job.owner and findings[job] is None else None
        finding = findings[job] or finding_by_state(state or NO_STATE, reap_deleted_runs=reap_deleted_runs)
        report.act(call_of, job, finding, state)
    return report.to_dict()


class Report:
    """What a run of the reaper lists and does, logged as it happens.

    :param dry_run: whether nothing is stopped.
    """

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._counts: Counter[str] = Counter(dict.fromkeys(("listed", *Finding, *ACTIONS), 0))
        self._jobs: list[dict[str, Any]] = []
        self._problems: list[dict[str, str]] = []

    def listed(
        self, call_of: Callable[[str], Call], locations: Mapping[str, Iterable[str]], now: float
    ) -> list[ListedJob]:
        """List all jobs of all locations, each once. A location that cannot be listed is a problem in the report."""
        found: dict[tuple[str, str], ListedJob] = {}
        for name, of_service in locations.items():
            service = SERVICES[name]
            for location in dict.fromkeys(of_service):
                try:
                    jobs = service.list_jobs(call_of(service.client), location, now)
                except CallError as error:
                    log.warning("Could not list %s %s: %s", service.location_name, location, error)
                    self._problems.append({"service": name, "location": location, "error": str(error)})
                else:
                    found |= {(name, job.job_id): job for job in jobs}
        self._counts["listed"] = len(found)
        return list(found.values())

    def act(self, call_of: Callable[[str], Call], job: ListedJob, finding: Finding, state: str | None) -> None:
        """Stop an orphan, unless the run is dry, and report on the job.

        :param state: of its task; None if Airflow was not asked for it.
        """
        self._counts[finding] += 1
        if finding not in NOTEWORTHY:
            return
        action, reason = "left_alone", REASONS[finding]
        service = SERVICES[job.service]
        said = f"{service.display_name} {job.job_id} ({job.status}) in {service.location_name} {job.location}, "
        said += f"of task {job.owner}, which is {state or 'not looked up'}"
        if finding in ORPHANS and self._dry_run:
            action = "would_stop"
            log.info("Would stop %s: %s.", said, reason)
        elif finding in ORPHANS:
            try:
                service.stop(call_of(service.client), job.location, job.job_id, f"Orphan: {reason} ({job.owner})")
                action = "stopped"
                log.info("Stopped %s: %s.", said, reason)
            except (CallError, NotStopped) as error:
                action, reason = "stop_failed", str(error)
                log.warning("Could not stop %s: %s", said, error)
        else:
            log.info("Left alone %s: %s.", said, reason)
        self._counts[action] += 1
        self._jobs.append(
            {
                "service": job.service,
                "location": job.location,
                "job_id": job.job_id,
                "status": job.status,
                "owner": str(job.owner),
                "state": state,
                "action": action,
                "reason": reason,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it, and log its numbers."""
        said = ", ".join(f"{count} {name}" for name, count in self._counts.items() if count and name != "listed")
        log.info("Listed %d unfinished jobs: %s.", self._counts["listed"], said or "none")
        return {
            "dry_run": self._dry_run,
            "jobs": self._jobs,
            "counts": {str(name): count for name, count in self._counts.items()},
            "problems": self._problems,
        }


def task_states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
    """Return the states of tasks as Airflow's API has them; runs that it does not know are left out.

    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow did not answer.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=list(task_ids), run_ids=list(run_ids))


def _deployment_id() -> str:
    from airflow.sdk.configuration import conf

    return str(conf.get("jobflow", "deployment_id", fallback=""))


def _path_to_aws(access: Access) -> Callable[[str], Call]:
    def call_of(name: str) -> Call:
        client = access.client(name, attempts=5)

        def call(operation: str, **parameters: Any) -> Any:
            try:
                return getattr(client, operation)(**parameters)
            except no_answer() as error:
                raise CallError(Fault.REJECTED, str(error), operation=operation) from error

        return call

    return functools.cache(call_of)
