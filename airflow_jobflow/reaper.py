"""The orphan reaper: stops jobs in AWS that still run although their task has ended.

Operators and triggers stop their jobs themselves when they are notified of a kill. None of them is notified while no
triggerer is alive, between two tries, or before a triggerer has picked up a new wait. The reaper finds the jobs of such
tasks by the owner that every job carries: ``airflow_jobflow.jobs.owner``.

Invariants:

- All jobs are listed before Airflow is queried for task states, and nothing is stopped before all states are known.
- Nothing is stopped in a dry run, and every run is dry if the deployment has no ``[jobflow] deployment_id``.
- A queue, cluster or Glue job that cannot be listed, or a job that cannot be stopped, does not affect the others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from airflow.sdk import conf

from airflow_jobflow.airflow_compat.states import task_states
from airflow_jobflow.aws import Access, Call, RetriedCall, Retry, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import service
from airflow_jobflow.jobs.listing import LISTINGS
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

ACTIONS: Final = {
    "stopped": "Stopped",
    "would_stop": "Would stop",
    "stop_failed": "Could not stop",
    "left_alone": "Left alone",
}
"""What was done with a job, with the first words of its log line."""

RETRY: Final = Retry(denied_patience=0.0)
"""Calls that AWS denies are not retried: the next run of the reaper does that."""

MAX_REASON_LENGTH: Final = 255
"""The most characters of a stop reason that ECS accepts. Batch accepts more."""


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
    now: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Find jobs whose task has ended, and stop them. Call it in a task: it queries Airflow via the task's supervisor.

    :param job_queues: Batch queues whose jobs are listed, by name or ARN. Default none.
    :param clusters: ECS clusters whose tasks are listed, by name or ARN. Default none.
    :param glue_jobs: Glue jobs whose runs are listed, by name. Default none.
    :param dry_run: whether to only report which jobs would be stopped. Default True.
    :param reap_deleted_runs: whether to also stop jobs whose task instance Airflow does not know, because its run was
        deleted. Default False.
    :param access: the AWS connection, region and client configuration to use. Default: connection ``aws_default``.
    :param deployment_id: the deployment whose jobs may be stopped. Default: ``[jobflow] deployment_id``.
    :param states: returns the states of tasks. Default: from Airflow's API.
    :param now: returns the time in seconds since the epoch. Default: the system's clock.
    :returns: ``dry_run``; ``jobs``, one dict for each orphan and for each job that a person should check, with
        ``service``, ``location``, ``job_id``, ``status``, ``owner``, ``state``, ``action`` (``stopped``,
        ``would_stop``, ``stop_failed`` or ``left_alone``), ``reason``; ``counts`` of all listed jobs, by finding and by
        action; ``problems``, one dict for each location that could not be listed.
    :raises TypeError: a single string was given instead of a list.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow did not return the states of tasks. Nothing was stopped.
    """
    locations = {"batch": job_queues, "ecs": clusters, "glue_run": glue_jobs}
    if single := [each for each in locations.values() if isinstance(each, str)]:
        raise TypeError(f"{single[0]!r} is a string; give a list of names")
    deployment = conf.get("jobflow", "deployment_id", fallback="") if deployment_id is None else deployment_id
    if not deployment and not dry_run:
        log.warning("Dry run: [jobflow] deployment_id is not set, so the jobs of other deployments are not recognized.")
    report = Report(access or Access(), dry_run or not deployment)
    jobs = report.list_jobs(locations, now())
    findings = {job: finding_without_state(job, deployment, now()) for job in jobs}
    state_of = read_states([job.owner for job in jobs if job.owner and findings[job] is None], states or task_states)
    for job in jobs:
        state = state_of[job.owner.task_instance] if job.owner and findings[job] is None else None
        finding = findings[job] or finding_by_state(state or NO_STATE, reap_deleted_runs=reap_deleted_runs)
        report.act(job, finding, state)
    return report.to_dict()


class Report:
    """One run of the reaper: lists and stops jobs, logs each step, and builds the report.

    :param access: the AWS connection to use.
    :param dry_run: whether to stop nothing.
    """

    def __init__(self, access: Access, dry_run: bool) -> None:
        self._access = access
        self._dry_run = dry_run
        self._counts: Counter[str] = Counter(dict.fromkeys(("listed", *Finding, *ACTIONS), 0))
        self._jobs: list[dict[str, Any]] = []
        self._problems: list[dict[str, str]] = []

    def list_jobs(self, locations: Mapping[str, Iterable[str]], now: float) -> list[ListedJob]:
        """List all jobs, without duplicates. A location that cannot be listed becomes a problem in the report.

        :param locations: queues, clusters and Glue jobs, by our names of the services.
        :param now: the time in seconds since the epoch.
        :return: the jobs.
        """
        found: dict[tuple[str, str], ListedJob] = {}
        for name, of_service in locations.items():
            listing, call = LISTINGS[name], self._call(name)
            for location in dict.fromkeys(of_service):
                try:
                    found |= {(name, job.job_id): job for job in listing.list_jobs(call, location, now)}
                except CallError as error:
                    log.warning("Could not list the jobs of %s %s: %s", listing.location_name, location, error)
                    self._problems.append({"service": name, "location": location, "error": str(error)})
        self._counts["listed"] = len(found)
        return list(found.values())

    def act(self, job: ListedJob, finding: Finding, state: str | None) -> None:
        """Stop a job if it is an orphan and this is no dry run, and add it to the report.

        :param job: the job.
        :param finding: what the reaper found out about it.
        :param state: the state of its task; None if it was not looked up.
        """
        self._counts[finding] += 1
        if finding not in NOTEWORTHY:
            return
        action, reason = "left_alone", REASONS[finding]
        if finding in ORPHANS:
            action, reason = ("would_stop", reason) if self._dry_run else self._stop(job, reason)
        self._counts[action] += 1
        log.log(
            logging.WARNING if action == "stop_failed" else logging.INFO,
            "%s %s %s (%s) in %s %s: %s. Task: %s, state: %s.",
            ACTIONS[action],
            service(job.service).DISPLAY_NAME,
            job.job_id,
            job.status,
            LISTINGS[job.service].location_name,
            job.location,
            reason,
            job.owner,
            state or "not looked up",
        )
        seen = {"service": job.service, "location": job.location, "job_id": job.job_id, "status": job.status}
        self._jobs.append({**seen, "owner": str(job.owner), "state": state, "action": action, "reason": reason})

    def _stop(self, job: ListedJob, reason: str) -> tuple[str, str]:
        """Stop a job; return the action and its reason."""
        stop_reason = f"Orphan: {reason} ({job.owner})"[:MAX_REASON_LENGTH]
        try:
            service(job.service).stop(self._call(job.service), job.job_id, job.location, stop_reason)
        except CallError as error:
            return "stop_failed", str(error)
        return "stopped", reason

    def _call(self, name: str) -> Call:
        return RetriedCall(service_client(self._access, service(name).CLIENT), RETRY)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, and log its counts."""
        counts = ", ".join(f"{count} {name}" for name, count in self._counts.items() if count and name != "listed")
        log.info("Listed %d unfinished jobs: %s.", self._counts["listed"], counts or "none")
        return {
            "dry_run": self._dry_run,
            "jobs": self._jobs,
            "counts": {str(name): count for name, count in self._counts.items()},
            "problems": self._problems,
        }
