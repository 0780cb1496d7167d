"""Cancelled waits, the end of a watcher, and errors inside it, each in a scenario on a scripted clock.

By default, the budget is 5 calls per second, a new wait is served after half a second, and polls happen at multiples of
the interval.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import cast

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import Fault
from airflow_jobflow.polling import watcher as module
from airflow_jobflow.polling.errors import DescribeRejected, NotFound, WatchError
from airflow_jobflow.polling.watcher import Watcher
from tests.unit.polling.scripted import (
    Misbehaviour,
    Service,
    Waiter,
    cancel_waits,
    now,
    run,
    running,
    settle,
    until,
)

# Cancelled waits and the end of a watcher.


async def test_cancelling_the_last_wait_closes_the_client(service: Service) -> None:
    """The client is closed once, and not when another wait is cancelled."""
    running(service, 2)
    watcher = service.watcher()
    first, second = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(12)
    await cancel_waits([first])
    await until(15)
    assert service.closed == []
    assert not watcher.ended
    await cancel_waits([second])
    assert service.closed == [15]
    assert watcher.ended


async def test_a_watcher_whose_jobs_have_all_failed_ends(service: Service) -> None:
    """Waits that have received an error do not keep the watcher running."""
    service.plan.append(Fault.SCOPE_NOT_FOUND)
    watcher = service.watcher(denied_grace=0)
    waiter = Waiter(watcher, ["job-0", "job-1"], 10)
    await until(50)
    assert watcher.ended
    assert service.closed == [0.5]
    assert len(service.calls) == 1
    await cancel_waits([waiter])


async def test_cancelling_a_wait_during_a_call_abandons_the_call(service: Service) -> None:
    """Nobody needs the response."""
    running(service, 1)
    service.latency = 5
    waiter = Waiter(service.watcher(), "job-0", 10)
    await until(2)
    await cancel_waits([waiter])
    assert service.calls[0].given_up
    assert service.closed == [2]


async def test_the_client_is_closed_after_its_calls_have_ended(service: Service) -> None:
    """A client is not closed while a call uses it."""
    running(service, 1)
    service.latency = 5
    under_way: list[bool] = []

    def close() -> None:
        under_way.append(any(not call.given_up for call in service.calls))

    waiter = Waiter(service.watcher(close=close), "job-0", 10)
    await until(2)
    await cancel_waits([waiter])
    assert under_way == [False]


async def test_a_cancelled_wait_leaves_no_trace(service: Service) -> None:
    """Its job is not described again, and its schedule entry is removed at its next time."""
    running(service, 2)
    watcher = service.watcher()
    cancelled, other = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(12)
    await cancel_waits([cancelled])
    polls = len(service.times("job-0"))
    assert list(watcher._jobs) == ["job-1"]
    assert watcher._schedule.describes_per_second == pytest.approx(0.1)
    await until(40)
    assert len(service.times("job-0")) == polls
    assert len(watcher._schedule._due) == 1
    assert not watcher._schedule._new
    await cancel_waits([other])


async def test_a_wait_cancelled_before_its_first_call_costs_no_call(service: Service) -> None:
    """It was cancelled while new waits were batched."""
    running(service, 2)
    watcher = service.watcher()
    stays, goes = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-1", 10)
    await until(0.3)
    await cancel_waits([goes])
    await until(5)
    assert [call.ids for call in service.calls] == [("job-0",)]
    await cancel_waits([stays])


async def test_one_of_two_waits_for_a_job_can_be_cancelled(service: Service) -> None:
    """The other still receives the states of the job."""
    running(service, 1)
    watcher = service.watcher()
    first, second = Waiter(watcher, "job-0", 10), Waiter(watcher, "job-0", 10)
    await until(12)
    await cancel_waits([first])
    service.states["job-0"] = "SUCCEEDED"
    await until(25)
    assert first.seen() == ["RUNNING"]
    assert second.seen() == ["RUNNING", "SUCCEEDED"]
    await cancel_waits([second])


async def test_a_job_that_failed_one_wait_can_be_waited_for_again(service: Service) -> None:
    """Cancelling the earlier wait does not affect the later one."""
    watcher = service.watcher(missing_grace=5)
    running(service, 1)
    other, first = Waiter(watcher, "job-0", 10), Waiter(watcher, "late", 2)
    await until(10)
    assert isinstance(first.error, NotFound)
    service.states["late"] = "RUNNING"
    second = Waiter(watcher, "late", 2)
    await until(10.1)
    await cancel_waits([first])
    await until(12)
    assert second.seen() == ["RUNNING"]
    await cancel_waits([other, second])


@pytest.mark.parametrize("interval", [0.0, -1.0])
async def test_a_wait_with_an_invalid_interval_changes_nothing(interval: float) -> None:
    """An invalid interval does not break the watcher for other waits."""
    service = Service()
    running(service, 2)
    watcher = service.watcher()
    with pytest.raises(ValueError), watcher.subscribe(["job-0"], interval):  # noqa: PT011  # the words are not the matter
        pass
    assert not watcher._jobs
    waiter = Waiter(watcher, "job-1", 10)
    await until(5)
    assert waiter.seen() == ["RUNNING"]
    assert service.times() == [0.5]
    await cancel_waits([waiter])


async def test_a_watcher_that_has_ended_rejects_new_waits(service: Service) -> None:
    """An error is better than a wait that never ends."""
    watcher = service.watcher()
    await cancel_after(Waiter(watcher, "job-0", 10), 1)
    assert watcher.ended
    with pytest.raises(RuntimeError), watcher.subscribe(["job-0"], 10):
        pass


async def cancel_after(waiter: Waiter, seconds: float) -> None:
    """Cancel a wait after some time."""
    await until(now() + seconds)
    await cancel_waits([waiter])


async def test_a_wait_added_when_the_last_one_is_cancelled_is_served(service: Service) -> None:
    """There is no gap between cancelling the last wait and the end of the watcher."""
    running(service, 2)
    watcher = service.watcher()
    first = Waiter(watcher, "job-0", 10)
    await until(3)
    with watcher.subscribe(["job-1"], 10) as wait:
        await cancel_waits([first])
        assert await anext(wait) == ("job-1", "RUNNING")
    await settle()
    assert watcher.ended


# Errors inside the watcher or its describe function.


@pytest.mark.parametrize("surprise", [Misbehaviour.CRASH, Misbehaviour.CANCELLED, Misbehaviour.NONSENSE])
async def test_a_misbehaving_describe_function_is_called_again(surprise: Misbehaviour) -> None:
    """One unreadable response ends no wait."""
    service = Service()
    running(service, 2)
    watcher = service.watcher()
    other = Waiter(watcher, "job-0", 30)
    await until(1)
    service.plan.append(surprise)
    waiter = Waiter(watcher, "job-1", 30)
    await until(100)
    assert other.seen() == waiter.seen() == ["RUNNING"]
    await cancel_waits([other, waiter])


@pytest.mark.parametrize("surprise", [Misbehaviour.CRASH, Misbehaviour.NONSENSE])
async def test_a_describe_function_that_keeps_misbehaving_fails_its_waits(
    surprise: Misbehaviour, caplog: pytest.LogCaptureFixture
) -> None:
    """The waits fail after a minute, with the bug in the error and once in the log."""
    service = Service(plan=deque([surprise] * 100))
    waiter = Waiter(service.watcher(), running(service, 1), 10)
    await until(100)
    assert isinstance(waiter.error, DescribeRejected)
    assert "unexpected error" in str(waiter.error)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    await cancel_waits([waiter])


@pytest.mark.parametrize("cancelled_at", [0.0, 0.2, 3.0])
async def test_a_cancelled_runner_fails_its_waits(cancelled_at: float) -> None:
    """This also holds if it is cancelled before its first step."""
    service = Service()
    running(service, 1)
    watcher = service.watcher()
    with watcher.subscribe(["job-0"], 10) as wait:
        if cancelled_at:
            await until(cancelled_at)
        assert watcher._runner is not None
        watcher._runner.cancel()
        news = [(await anext(wait))[1] for _ in range(1 + (cancelled_at > 1))]
        assert isinstance(news[-1], WatchError)
        assert watcher.ended
    assert len(service.closed) == 1


async def test_a_runner_that_crashes_fails_its_waits(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the watcher must not leave ten thousand waits without an error."""
    running(service, 1)
    watcher = service.watcher()
    waiter = Waiter(watcher, "job-0", 10)
    await until(5)

    def broken(_: float) -> float:
        raise ZeroDivisionError("scripted: a bug")

    monkeypatch.setattr(watcher._schedule, "due_in", broken)
    await until(12)
    assert "scripted: a bug" in str(waiter.error)
    assert watcher.ended
    await cancel_waits([waiter])


def test_a_watcher_works_on_each_new_event_loop() -> None:
    """A process may run several event loops in succession; each has its own watcher."""
    service = Service()
    running(service, 1)

    async def scenario() -> None:
        waiter = Waiter(service.watcher(), "job-0", 10)
        await until(3)
        assert waiter.seen() == ["RUNNING"]
        await cancel_waits([waiter])

    run(scenario())
    run(scenario())
    assert len(service.closed) == 2


async def test_the_context_of_the_first_wait_does_not_leak_into_calls(service: Service) -> None:
    """Calls are shared, so their log lines must not go to the log of the task that came first."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def describe(job_ids: list[str]) -> dict[str, str]:
        seen.append(whose.get())
        return dict.fromkeys(job_ids, "RUNNING")

    whose.set("the first joiner's")
    limiter = RateLimiter(5.0, clock=asyncio.get_running_loop().time)
    waiter = Waiter(Watcher(cast("module.Describe[str]", describe), limiter), "job-0", 10)
    await until(15)
    assert seen == ["nobody's", "nobody's"]
    await cancel_waits([waiter])
