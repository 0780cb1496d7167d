"""The comparison for each service: how either side waits for a job, and how its event reports the result.

It imports no other module, because it is also loaded in the Amazon provider's environment and by the report.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from benchmarks.figures import Scenario, Side

PROVIDER = "airflow.providers.amazon.aws"

ATTEMPTS = 720
"""Polls after which the Amazon provider's triggers would give up; more than will happen."""


class Trigger(Protocol):
    """The interface of Airflow's triggers for a triggerer."""

    def run(self) -> AsyncIterator[Any]:
        """Wait, and fire an event."""


@dataclass(frozen=True)
class Service:
    """One service.

    :param noun: the name of a job.
    :param module: the module of the Amazon provider's trigger, below its ``triggers``.
    :param trigger: its name.
    :param hook: the module of the hook it uses.
    :param ours: scope and id for our trigger, from a job's key.
    :param theirs: the arguments of the Amazon provider's trigger, from a job's key.
    :param tells: whether the Amazon provider's event distinguishes a failed job. Default True.
    :param remark: a remark on the comparison.
    """

    noun: str
    module: str
    trigger: str
    hook: str
    ours: Callable[[str], tuple[str | None, str]]
    theirs: Callable[[str], Mapping[str, Any]]
    tells: bool = True
    remark: str = ""


SERVICES: dict[str, Service] = {
    "batch": Service(
        "AWS Batch jobs",
        module="batch",
        trigger="BatchJobTrigger",
        hook="batch_client",
        ours=lambda key: (None, key),
        theirs=lambda key: {"job_id": key},
    ),
    "ecs": Service(
        "Fargate tasks",
        module="ecs",
        trigger="TaskDoneTrigger",
        hook="ecs",
        ours=lambda key: (key.split("/")[1], key),
        theirs=lambda key: {"cluster": key.split("/")[1], "task_arn": key, "region_name": None},
        tells=False,
        remark=(
            "All tasks are in one cluster. `TaskDoneTrigger` says only that a task has stopped; a worker then asks "
            "once more for what became of it, which is not counted. It builds a client for logs beside the one it "
            "asks, as it always does; no logs are read. Ours counts the look at the task definition that says which "
            "containers are essential."
        ),
    ),
    "glue_crawl": Service(
        "Glue crawls",
        module="glue_crawler",
        trigger="GlueCrawlerCompleteTrigger",
        hook="glue_crawler",
        ours=lambda key: (None, key),
        theirs=lambda key: {"crawler_name": key.partition("@")[0]},
        remark=(
            "One crawl for each crawler. A sweep makes no `ListCrawls`: our operator makes one before it starts a "
            "crawl and one after its end, in a worker, which is not counted here."
        ),
    ),
    "glue_run": Service(
        "Glue job runs",
        module="glue",
        trigger="GlueJobCompleteTrigger",
        hook="glue",
        ours=lambda key: cast("tuple[str, str]", tuple(key.split("/"))),
        theirs=lambda key: dict(zip(("job_name", "run_id"), key.split("/"), strict=True)),
        remark=(
            "Each job has 200 earlier runs, so that every page a sweep reads is full. Ours asks job by job for pages "
            "of 200 runs; the Amazon provider asks run by run, whatever their job is."
        ),
    ),
}

PRELOAD: dict[Side, Callable[[str], tuple[str, ...]]] = {
    "jobflow": lambda name: (
        "airflow_jobflow.triggers.job",
        f"airflow_jobflow.jobs.{name}",
        f"{PROVIDER}.hooks.base_aws",
        "boto3.session",
        "botocore.handlers",
    ),
    "amazon": lambda name: (
        f"{PROVIDER}.triggers.{SERVICES[name].module}",
        f"{PROVIDER}.hooks.{SERVICES[name].hook}",
        f"{PROVIDER}.waiters.base_waiter",
        "aiobotocore.session",
        "aiobotocore.httpsession",
        "boto3.session",
        "botocore.handlers",
    ),
}
"""Modules that a side would otherwise import during the wait."""


def make_jobflow(scenario: Scenario, key: str) -> Trigger:
    """Return our trigger for one job."""
    from airflow_jobflow.triggers.job import JobTrigger

    scope, job_id = SERVICES[scenario.service].ours(key)
    return JobTrigger(
        service=scenario.service,
        scope=scope,
        job_ids=[job_id],
        aws_conn_id=scenario.conn_id,
        poll_interval=scenario.interval,
    )


def make_amazon(scenario: Scenario, key: str) -> Trigger:
    """Return the Amazon provider's trigger for one job."""
    service = SERVICES[scenario.service]
    kind = getattr(importlib.import_module(f"{PROVIDER}.triggers.{service.module}"), service.trigger)
    common = {"aws_conn_id": None, "waiter_delay": scenario.interval, "waiter_max_attempts": ATTEMPTS}
    return cast("Trigger", kind(**service.theirs(key), **common))


def right_jobflow(scenario: Scenario, key: str, payload: dict[str, Any], fails: bool) -> bool:
    """Return whether our event reports the result of the job."""
    _, job_id = SERVICES[scenario.service].ours(key)
    return bool(payload["jobs"][job_id]["state"] == ("FAILED" if fails else "SUCCEEDED"))


def right_amazon(scenario: Scenario, key: str, payload: dict[str, Any], fails: bool) -> bool:
    """Return whether the Amazon provider's event reports the result of the job, if it can."""
    service = SERVICES[scenario.service]
    named = [value for name, value in payload.items() if name in ("job_id", "task_arn", "run_id")]
    about_it = all(key.endswith(str(value)) for value in named)
    return about_it and payload["status"] == ("error" if fails and service.tells else "success")


MAKE: dict[Side, Callable[[Scenario, str], Trigger]] = {"jobflow": make_jobflow, "amazon": make_amazon}
RIGHT: dict[Side, Callable[[Scenario, str, dict[str, Any], bool], bool]] = {
    "jobflow": right_jobflow,
    "amazon": right_amazon,
}
