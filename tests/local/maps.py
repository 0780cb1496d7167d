"""Helpers for tests of maps."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from airflow_jobflow.triggers.map import MapTrigger


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return items that differ in a variable."""
    return [{"environment": {"N": str(number)}, **more} for number in range(count)]


def retry(context: Any) -> None:
    """Change the context to that of the next try."""
    context["ti"].try_number += 1
    context["ti"].id = str(uuid.uuid4())


def clear(context: Any) -> None:
    """Change the context to that of a cleared task."""
    retry(context)
    context["dag_run"].clear_number += 1


def recreated(trigger: Any, **changes: Any) -> MapTrigger:
    """Return a trigger created from its serialized form, as on another triggerer."""
    path, arguments = trigger.serialize()
    assert path == "airflow_jobflow.triggers.map.MapTrigger"
    return MapTrigger(**{**json.loads(json.dumps(arguments)), **changes})


async def run_until_shutdown(kit: Any, trigger: MapTrigger, reached: Callable[[], bool]) -> None:
    """Run a trigger until a condition holds, and cancel it like a triggerer that shuts down."""
    waiting = asyncio.create_task(trigger.wait())
    await asyncio.to_thread(kit.eventually, reached)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def run_until_killed(kit: Any, trigger: MapTrigger, reached: Callable[[], bool]) -> None:
    """Run a trigger until a condition holds, and kill it like Airflow: cancel it, then call ``on_kill``."""
    await run_until_shutdown(kit, trigger, reached)
    await trigger.on_kill()


def names_of(kit: Any) -> list[str]:
    """Return the names of all jobs that were ever submitted to a queue, without their prefix."""
    pages = kit.batch.get_paginator("list_jobs").paginate(
        jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}]
    )
    return sorted(job["jobName"].rpartition("-")[2] for page in pages for job in page["jobSummaryList"])
