"""How soon a map refills a free slot, and how many describe calls that needs, on a scripted clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.maps import Start
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.maps.ownership import Ownership
from airflow_jobflow.maps.runner import MapRunner
from airflow_jobflow.maps.state import MapState
from airflow_jobflow.maps.tracker import REFILL_INTERVAL, REFILL_SHARE
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import now, run

BUDGET = 5.0
NOTICED = 7.0
"""Seconds within which a map detects an end and starts the next job. New jobs are described within two seconds."""


class Aws:
    """Starts and describes jobs.

    :param lasts: the duration of each job in seconds, by its index.
    """

    service, may_have_unknown_jobs = "batch", False
    checkpoint_interval, listing_delay, starts_are_repeatable = 900.0, 0.0, False

    def __init__(self, lasts: Sequence[float]) -> None:
        self.lasts = lasts
        self.ownership = Ownership()
        self.started: dict[str, float] = {}
        self.unrecorded: set[str] = set()
        self.calls: list[float] = []
        limiter = RateLimiter(BUDGET, clock=asyncio.get_running_loop().time)
        self.watcher: Watcher[Snapshot] = Watcher(self.describe, limiter)

    async def start(self, _: Any, which: Start) -> str:
        """Start an item's job."""
        await asyncio.sleep(0)
        self.started[str(which.index)] = now()
        return str(which.index)

    def has_ended(self, job_id: str) -> bool:
        """Whether a job has ended."""
        return now() >= self.started[job_id] + self.lasts[int(job_id)]

    async def describe(self, job_ids: Sequence[str]) -> dict[str, Snapshot | None]:
        """Respond to a describe call."""
        self.calls.append(now())
        await asyncio.sleep(0)
        states = {each: JobState.SUCCEEDED if self.has_ended(each) else JobState.RUNNING for each in job_ids}
        return {each: Snapshot(each, state, state.value) for each, state in states.items()}

    def stop_starting(self) -> None:
        """Do nothing."""


def run_map(lasts: Sequence[float], *, max_concurrency: int, poll_interval: float, events: bool = False) -> Aws:
    """Run a map to its end, and return the scripted AWS.

    :param events: whether an event reports each end immediately.
    """
    seen: list[Aws] = []

    async def scenario() -> None:
        aws: Any = Aws(lasts)
        seen.append(aws)
        state = MapState(len(lasts), range(len(lasts)), max_concurrency=max_concurrency, tolerance=Tolerance())
        watcher: Watcher[Snapshot] = aws.watcher
        requests = dict.fromkeys(range(len(lasts)), "{}")

        def watched() -> Watcher[Snapshot]:
            nonlocal watcher
            if watcher.ended:
                watcher = Watcher(aws.describe, RateLimiter(BUDGET, clock=asyncio.get_running_loop().time))
            watcher.set_event_poll_interval(300.0 if events else None)
            return watcher

        async def send_events() -> None:
            sent: set[str] = set()
            while True:
                await asyncio.sleep(1.0)
                for job_id in [each for each in aws.started if each not in sent and aws.has_ended(each)]:
                    sent.add(job_id)
                    watcher.wake(job_id, at_once=True)

        runner = MapRunner(
            state, aws, requests, watcher=watched, poll_interval=poll_interval, spawn=asyncio.create_task
        )
        sender = asyncio.create_task(send_events()) if events else None
        await runner.run()
        await runner.shut_down(None)
        if sender:
            sender.cancel()
            await asyncio.wait([sender])
        assert state.statuses == "S" * len(lasts)

    run(scenario())
    return seen[0]


def test_a_free_slot_is_refilled_within_seconds_of_an_end() -> None:
    """If it took a poll interval, 46 s of work would take 112 s."""
    aws = run_map([10.0] * 12, max_concurrency=3, poll_interval=60.0)
    rounds = [max(aws.started[str(each)] for each in range(first, first + 3)) for first in range(0, 12, 3)]
    assert rounds[0] < 1
    assert all(later - earlier < 10.0 + NOTICED for earlier, later in itertools.pairwise(rounds))


def test_refilling_needs_one_call_per_hundred_jobs_every_five_seconds() -> None:
    """Each group of new jobs needs one more; the 12 jobs that start together share it."""
    aws = run_map([30.0] * 60, max_concurrency=12, poll_interval=60.0)
    groups = 2 * len({round(each) for each in aws.started.values()})
    last_start = max(aws.started.values())
    assert len([at for at in aws.calls if at <= last_start]) <= last_start / REFILL_INTERVAL + groups


def test_the_users_poll_interval_applies_once_all_items_have_a_job() -> None:
    """No slot must be refilled then."""
    aws = run_map([*[5.0] * 4, 600.0], max_concurrency=2, poll_interval=60.0)
    settled = aws.started["4"] + 2 * REFILL_INTERVAL
    calls = [at for at in aws.calls if at > settled]
    assert all(later - earlier >= 50.0 for earlier, later in itertools.pairwise(calls))


def test_a_large_map_takes_no_more_than_its_share_of_the_rate_limit() -> None:
    """Other waits need the rest."""
    aws = run_map([*[400.0] * 2000, 1.0], max_concurrency=2000, poll_interval=60.0)
    started = sorted(aws.started.values())[1999]
    span = (started + 60.0, 400.0)  # new jobs are described once more than their interval requires
    calls = [at for at in aws.calls if span[0] <= at < span[1]]
    assert len(calls) <= REFILL_SHARE * BUDGET * (span[1] - span[0]) + 20
    assert len(calls) >= 0.5 * REFILL_SHARE * BUDGET * (span[1] - span[0])


@pytest.mark.parametrize("poll_interval", [1.0, REFILL_INTERVAL])
def test_a_short_poll_interval_is_kept(poll_interval: float) -> None:
    """The user has set it."""
    aws = run_map([10.0] * 4, max_concurrency=1, poll_interval=poll_interval)
    assert max(aws.started.values()) < 3 * (10.0 + poll_interval + 2.0)


def test_with_events_a_slot_is_refilled_without_more_polls() -> None:
    """Jobs without events are described at the slow interval."""
    aws = run_map([100.0] * 6, max_concurrency=2, poll_interval=60.0, events=True)
    assert max(aws.started.values()) < 2 * (100.0 + 4.0)
    assert len(aws.calls) < 40
