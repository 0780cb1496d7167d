"""What tests of maps have in common."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from airflow_jobflow.triggers.map import MapTrigger


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    """Items that differ in a variable."""
    return [{"environment": {"N": str(number)}, **more} for number in range(count)]


def retry(context: Any) -> None:
    """Make the context that of the next try."""
    context["ti"].try_number += 1
    context["ti"].id = str(uuid.uuid4())


def clear(context: Any) -> None:
    """Make the context that of a cleared task."""
    retry(context)
    context["dag_run"].clear_number += 1


def again(trigger: Any, **changes: Any) -> MapTrigger:
    """A trigger made anew from what one serialized to, as on another triggerer."""
    path, arguments = trigger.serialize()
    assert path == "airflow_jobflow.triggers.map.MapTrigger"
    return MapTrigger(**{**json.loads(json.dumps(arguments)), **changes})


async def dies(kit: Any, trigger: MapTrigger, reached: Callable[[], bool]) -> None:
    """Run a trigger until so much is reached, and cancel it, as a triggerer does that is stopped."""
    waiting = asyncio.create_task(trigger.wait())
    await asyncio.to_thread(kit.eventually, reached)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def is_killed(kit: Any, trigger: MapTrigger, reached: Callable[[], bool]) -> None:
    """Run a trigger until so much is reached, and kill it, as Airflow does: it is cancelled, then told."""
    await dies(kit, trigger, reached)
    await trigger.on_kill()


def names_of(kit: Any) -> list[str]:
    """The names of all jobs ever submitted to a queue, without their prefix."""
    pages = kit.batch.get_paginator("list_jobs").paginate(
        jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}]
    )
    return sorted(job["jobName"].rpartition("-")[2] for page in pages for job in page["jobSummaryList"])
