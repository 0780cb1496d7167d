"""States and XComs of tasks that the page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime.now(UTC).replace(microsecond=0)
CONSOLE = "https://console.aws.amazon.com/batch/home?region=eu-west-1#jobs/detail/"
PARENT = "4c7599ae-0a82-49aa-ba5a-4727fcce14a8"
LOG = {"group": "/aws/batch/job", "stream": "resize/default/8c1f0a52"}
BYTES = 17 * 2**20
USED: dict[str, Any] = {
    "vcpu_seconds": None, "gib_seconds": None, "gpu_seconds": None, "dpu_seconds": None, "queued_seconds": 128.0,
    "capacity": None, "estimated": False, "cost": None,
}  # fmt: skip


def ago(seconds: float) -> str:
    """Return a time in the past in the format of XComs."""
    return (NOW - timedelta(seconds=seconds)).isoformat()


def outcome(**more: Any) -> dict[str, Any]:
    """Return the result of an operator."""
    return {
        "service": "batch",
        "job_id": PARENT,
        "name": "resize-images-2f6d1c",
        "state": "SUCCEEDED",
        "status": "SUCCEEDED",
        "reason": "Essential container in task exited",
        "exit_code": 0,
        "created_at": ago(1900),
        "started_at": ago(1772),
        "stopped_at": ago(600),
        "log": LOG,
        "console_url": CONSOLE + PARENT,
        "array": None,
        "details": None,
    } | more


def noted(*jobs: Any, **more: Any) -> dict[str, Any]:
    """Return the note of a waiting trigger."""
    return {"v": 1, "at": ago(4), "service": "batch", "final": False, "jobs": list(jobs), "total": len(jobs)} | more


def job(**more: Any) -> dict[str, Any]:
    """Return one job of such a note."""
    return {
        "id": PARENT,
        "name": "resize-images-2f6d1c",
        "state": "RUNNING",
        "status": "RUNNING",
        "created_at": ago(271),
        "started_at": ago(84),
        "attempt": 1,
        "max_attempts": 3,
        "log": LOG,
        "links": {"console": CONSOLE + PARENT},
        "seen": [["RUNNABLE", ago(270)], ["STARTING", ago(110)], ["RUNNING", ago(84)]],
    } | more


def child(index: int, **more: Any) -> dict[str, Any]:
    """Return one failed child."""
    return {
        "index": index,
        "id": f"{PARENT}:{index}",
        "state": "FAILED",
        "status": "FAILED",
        "exit_code": 1,
        "reason": "Essential container in task exited",
        "created_at": ago(1900),
        "started_at": ago(1500 - index % 700),
        "stopped_at": ago(1400 - index % 700),
        "log": LOG,
    } | more


ENDINGS = (
    {"exit_code": 1},
    {"exit_code": 137, "container_reason": "OutOfMemoryError: Container killed due to memory usage"},
    {"exit_code": None, "reason": "Host EC2 (instance i-0c32f1) terminated."},
)
FAILED = sorted({(index * 7919) % 10_000 for index in range(61)} | set(range(4120, 4139)))


def cells(size: int, failed: list[int], rest: str = "S", until: int | None = None, then: str = "-") -> str:
    """Return the string of cells of a heat map."""
    characters = [rest if until is None or index < until else then for index in range(size)]
    for index in failed:
        characters[index] = "F"
    return "".join(characters)


ARRAY = {
    "kind": "array",
    "size": 10_000,
    "counts": {"succeeded": 9_920, "failed": 80, "running": 0},
    "cells": cells(10_000, FAILED),
    "failed_jobs": [child(index, **ENDINGS[index % 3]) for index in FAILED],
}
ITEM_LOG = {"group": "/ecs/process-item", "stream": "app/app/71c5"}
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/jobflow/"
TASKS = "https://console.aws.amazon.com/ecs/v2/clusters/jobflow/tasks/"


def item(index: int, **more: Any) -> dict[str, Any]:
    """Return the outcome of one item of a map."""
    name = f"71c5{index:04x}a09b4e1f"
    return {
        "index": index,
        **outcome(
            service="ecs",
            job_id=TASK + name,
            name=name,
            started_at=ago(1850 - index),
            stopped_at=ago(1700 - 2 * index),
            console_url=f"{TASKS}{name}/configuration?region=eu-west-1",
            log=ITEM_LOG,
            status="STOPPED",
        ),
    } | more


def mapped(size: int, failed: list[int]) -> dict[str, Any]:
    """Return the result of a map."""
    lost = {"state": "FAILED", "exit_code": 2, "reason": "Essential container in task exited"}
    outcomes = [item(index, **(lost if index in failed else {})) for index in range(size)]
    return outcome(
        service="ecs",
        job_id="",
        name="process-item-2f6d1c",
        console_url=None,
        log=None,
        reason=f"{size - len(failed)} of {size} items succeeded, {len(failed)} failed",
        exit_code=None,
        array={"size": size, "succeeded": size - len(failed), "failed": len(failed), "failed_indexes": failed},
        statuses=cells(size, failed),
        failed=[outcomes[index] for index in failed],
        outcomes=outcomes,
    )


MEMORY = {
    "cause": "out_of_memory",
    "blame": "the configuration",
    "summary": "The container ran out of memory and was killed",
    "advice": "Give the job more memory (MEMORY in resourceRequirements), or let the command use less.",
}
ERROR = f"""Batch job resize-images-2f6d1c ({PARENT}) failed on attempt 3 of 3 with exit code 137.
Why: {MEMORY["summary"]}. {MEMORY["advice"]}
AWS says: OutOfMemoryError: Container killed due to memory usage
AWS says: Essential container in task exited
Last lines of the log:
  | Loading 4,096 tiles …
  | Killed"""
MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'

FAILED_JOB = {"state": "FAILED", "status": "FAILED", "stopped_at": ago(20), "exit_code": 137, "attempt": 3}
KILL = "The Airflow task was killed"
OURS = "airflow.task.operators.airflow_jobflow.operators.batch.BatchJobOperator"
LOG_OF_TRY = [
    {"timestamp": ago(170), "event": "Started Batch job 11d0-first", "level": "info", "logger": OURS},
    {"timestamp": ago(169), "event": "Filling up the DagBag", "level": "info", "logger": "airflow.models.dagbag"},
    {"timestamp": ago(90), "event": MARKUP, "level": "warning", "logger": "airflow_jobflow.triggers.job"},
    {
        "timestamp": ago(80),
        "event": "Task failed with exception",
        "level": "error",
        "logger": "task",
        "error_detail": [{"exc_type": "JobFailed", "exc_value": ERROR.replace("attempt 3", "attempt 1"), "frames": []}],
    },
]
"""The log of an earlier try."""

CASES: dict[str, tuple[Any, ...]] = {
    "job": (
        "success",
        {
            "return_value": outcome(
                usage={**USED, "vcpu_seconds": 586.0, "gib_seconds": 9376.0, "cost": 0.0123},
                result={"rows": 8123, "next": ["b", "c"]},
                result_uri="s3://results/etl/4fd1/0a",
            ),
            "jobflow_jobs": noted(
                job(
                    created_at=ago(1900),
                    started_at=ago(1772),
                    seen=[["RUNNABLE", ago(1899)], ["STARTING", ago(1815)], ["RUNNING", ago(1772)]],
                ),
                links={"_link_BatchJobLink": CONSOLE + PARENT},
            ),
            "jobflow_links": {"_link_BatchJobLink": CONSOLE + PARENT, "_link_JobLogLink": f"{CONSOLE}log"},
        },
    ),
    "live": (
        "deferred",
        {
            "jobflow_jobs": noted(
                job(), links={"_link_BatchJobLink": CONSOLE + PARENT, "_link_BatchJobQueueLink": f"{CONSOLE}queue"}
            )
        },
    ),
    "failed": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(
                    **FAILED_JOB,
                    reason="Essential container in task exited",
                    container_reason="OutOfMemoryError: Container killed due to memory usage",
                ),
                final=True,
                diagnosis=MEMORY,
                error=ERROR,
            )
        },
    ),
    "nothing": ("success", {}),
    "between": ("up_for_retry", {}),
    "waiting": (None, {}),
    "array": (
        "deferred",
        {
            "jobflow_jobs": noted(
                job(status="PENDING", state="SUBMITTED", started_at=None, log=None, seen=[]),
                array={
                    "kind": "array",
                    "size": 10_000,
                    "counts": {"succeeded": 6_204, "failed": 46, "running": 256},
                    "cells": cells(10_000, FAILED[:46], "."),
                    "failed_jobs": [child(index, **ENDINGS[index % 3]) for index in FAILED[:46]],
                },
            )
        },
    ),
    "array_failed": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(
                    **FAILED_JOB | {"exit_code": None, "stopped_at": ago(300)},
                    reason="Array Child Job failed",
                    created_at=ago(1900),
                    started_at=ago(1880),
                    log=None,
                    seen=[],
                ),
                array=ARRAY,
                final=True,
                diagnosis={
                    "blame": "the command",
                    "summary": "Children of the array failed, more than are tolerated",
                    "advice": "Their own reasons follow; tolerated_failure_count says how many may fail.",
                },
                error="Batch job resize-images-2f6d1c failed.",
            )
        },
    ),
    "array_10000": (
        "success",
        {
            "return_value": outcome(
                array={"size": 10_000, "succeeded": 9_920, "failed": 80, "failed_indexes": FAILED},
                log=None,
                exit_code=None,
            )
        },
    ),
    "map": (
        "success",
        {
            "return_value": {
                **mapped(500, [7, 31, 32, 212, 499]),
                "usage": {**USED, "vcpu_seconds": 90_000.0, "capacity": "FARGATE+FARGATE_SPOT", "estimated": True},
                "result_error": "missing results (3): 1,5,8",
            }
        },
    ),
    "map_live": (
        "deferred",
        {
            "jobflow_jobs": noted(
                job(id="", name="process-item-2f6d1c", log=None, links={}, seen=[]),
                service="ecs",
                array={
                    "kind": "map",
                    "size": 2_000,
                    "cells": cells(2_000, [40, 44, 701], "S", 1_150, "R")[:1_230] + "s" * 8 + "-" * 762,
                    "failed_jobs": [{**item(40), "state": "FAILED", "exit_code": 2}],
                },
            )
        },
    ),
    "map_failed": (
        "failed",
        {"jobflow_jobs": noted(final=True, error="Map resize of Batch jobs could not start: no such queue")},
    ),
    "refused": (
        "failed",
        {
            "jobflow_jobs": noted(
                final=True,
                error="AWS refused to start Batch job resize: JobQueue not found. Nothing was started.",
                help="https://docs.example/failures.html#error-submissionrejected",
            )
        },
    ),
    "retried": (
        "up_for_retry",
        {"jobflow_jobs": noted(job(), final=True, error="Batch job resize did not end within 60 s (job_timeout).")},
    ),
    "killed": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(
                    **FAILED_JOB | {"exit_code": 143, "stopped_at": ago(30)},
                    reason=KILL,
                    created_at=ago(271),
                    stop_requested_at=ago(40),
                ),
                final=True,
            )
        },
    ),
    "killed_running": ("failed", {"jobflow_jobs": noted(job(stop_requested_at=ago(40)), final=True)}),
    "killed_unseen": ("failed", {"jobflow_jobs": noted(job(), at=ago(72))}),
    "unstopped": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(), final=True, error=f"Could not stop Batch job {PARENT}, and it may still run: AccessDenied"
            )
        },
    ),
    "sensor_killed": ("failed", {"jobflow_jobs": noted(job())}),
    "array_killed": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(
                    **FAILED_JOB | {"exit_code": None, "stopped_at": ago(30)},
                    reason=KILL,
                    log=None,
                    stop_requested_at=ago(40),
                ),
                final=True,
                array={
                    "kind": "array",
                    "size": 10_000,
                    "counts": {"succeeded": 6_204, "failed": 3_796, "running": 0},
                    "cells": cells(10_000, FAILED[:46], "."),
                    "failed_jobs": [child(index) for index in FAILED[:46]],
                },
            )
        },
    ),
    "map_killed": (
        "failed",
        {
            "jobflow_jobs": noted(
                job(id="", name="process-item-2f6d1c", log=None, links={}, seen=[], stop_requested_at=ago(40)),
                service="ecs",
                final=True,
                array={
                    "kind": "map",
                    "size": 50,
                    "cells": cells(50, [4], "S", 30, "K")[:40] + "-" * 10,
                    "failed_jobs": [],
                },
            )
        },
    ),
    "returned": (
        "success",
        {
            "return_value": outcome(state="FAILED", status="FAILED", exit_code=3),
            "jobflow_jobs": noted(
                job(**FAILED_JOB | {"exit_code": 3}),
                final=True,
                diagnosis={"summary": "The command failed", "advice": "See its log.", "blame": "the command"},
                error=ERROR,
            ),
        },
    ),
    "tried": ("deferred", {"jobflow_jobs": noted(job())}, LOG_OF_TRY),
    "sensor": (
        "success",
        {
            "return_value": [
                outcome(name=f"part-{n}", job_id=f"{PARENT[:-1]}{n}", stopped_at=ago(700 - 90 * n)) for n in range(4)
            ]
        },
    ),
    "crawl": (
        "success",
        {
            "return_value": outcome(
                service="glue_crawl",
                name="sales",
                job_id="sales",
                exit_code=None,
                log=None,
                console_url=None,
                reason=None,
                created_at=ago(580),
                started_at=ago(572),
                stopped_at=ago(450),
                details={"tables_created": 1, "dpu_hours": 0.033},
            )
        },
    ),
    "hostile": (
        "success",
        {
            "return_value": outcome(
                name=MARKUP,
                reason=MARKUP,
                job_id=MARKUP,
                status=MARKUP,
                console_url="javascript:window.hacked=1",
                details={MARKUP: MARKUP, "__proto__": {"polluted": 1}},
                log={"group": MARKUP, "stream": MARKUP},
                usage={"vcpu_seconds": MARKUP, "gib_seconds": 1, "capacity": MARKUP},
                result={MARKUP: MARKUP},
                result_uri=MARKUP,
                result_error=MARKUP,
            ),
            "jobflow_jobs": noted(
                job(links={"console": "data:text/html,<script>1</script>", "log": "http://log"}),
                final=True,
                error=MARKUP,
                diagnosis={"summary": MARKUP, "advice": MARKUP, "blame": MARKUP},
                help="javascript:window.hacked=1",
                links={"_link_BatchJobLink": "javascript:window.hacked=1", "_link_JobLogLink": MARKUP},
            ),
            "jobflow_links": MARKUP,
        },
    ),
    "malformed": (
        "failed",
        {
            "return_value": {"service": "batch", "state": 4},
            "jobflow_jobs": noted(
                {"id": [1], "name": {"a": 1}, "created_at": "yesterday", "exit_code": "one", "seen": [1, ["x"], None]},
                None,
                7,
                array={"size": -4, "cells": 9, "failed_jobs": "x"},
                diagnosis="bad",
            ),
        },
    ),
    "huge": ("success", {"return_value": outcome(reason="x" * BYTES)}),
    "older": ("success", {"return_value": {"service": "batch", "state": "SUCCEEDED", "status": "SUCCEEDED"}}),
    "newer": ("deferred", {"jobflow_jobs": noted(job(status="WARMING"), v=9, forecast="sunny")}),
    "other": ("success", {"return_value": "nothing of ours"}),
}
"""State and XComs by task; the instances of ``mapped`` are in ``MAPPED``."""

MAPPED: list[tuple[str | None, dict[str, Any]]] = [
    (
        "success",
        {"return_value": outcome(service="ecs", name="first-of-two", console_url=f"{TASKS}a?region=eu-west-1")},
    ),
    (
        "deferred",
        {
            "jobflow_jobs": noted(
                job(name="second-of-two"), service="ecs", links={"_link_EcsTaskLink": f"{CONSOLE}second"}
            )
        },
    ),
]
