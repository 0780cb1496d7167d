"""State queries of many triggers share few requests. The supervisor is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow.airflow_compat.states import ON_KILL_LIMIT
from airflow_jobflow.task_states import MAX_TASKS, TaskStates
from tests.triggerer import task
from tests.unit.polling.scripted import now, run

BUSY = AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))


class Line:
    """A supervisor that responds when a test allows it.

    :param states: the states of the tasks of all runs, as Airflow names them.
    """

    def __init__(self, states: dict[str, str]) -> None:
        self.states = states
        self.asked: list[comms.GetTaskStates] = []
        self.error: Exception | None = None
        """The error of the next request."""
        self.errors: list[Exception] = []
        """The errors of the next requests, without a delay."""
        self.open = asyncio.Event()

    async def asend(self, message: comms.GetTaskStates) -> Any:
        """Respond to a request."""
        self.asked.append(message)
        if self.errors:
            raise self.errors.pop(0)
        await self.open.wait()
        if self.error:
            error, self.error = self.error, None
            raise error
        return comms.TaskStatesResult(task_states=dict.fromkeys(message.run_ids or (), self.states))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Line]:
    """Connect Airflow to a scripted supervisor."""

    def put(**states: str) -> Line:
        supervisor = Line(states)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return put


async def asked(states: TaskStates, *tasks: Any) -> list[asyncio.Task[bool]]:
    """Query one task, and others while that request is in progress."""
    questions = []
    for each in tasks:
        questions.append(asyncio.create_task(states.is_deferred(each)))
        for _ in range(3):
            await asyncio.sleep(0)
    return questions


def test_queries_during_a_request_share_the_next_one(line: Any) -> None:
    """For two tasks of a run, one of them mapped, each query gets its own response."""

    async def scenario() -> None:
        supervisor = line(t_0="deferred", t_1="failed", u="deferred")
        instances = [task(map_index=0), task(map_index=1), task(task_id="u")]
        questions = await asked(TaskStates(), task(map_index=1), *instances)
        supervisor.open.set()
        assert await asyncio.gather(*questions) == [False, True, False, True]
        first, second = supervisor.asked
        assert (first.task_ids, first.map_index) == (["t"], 1)
        assert (second.task_ids, second.map_index) == (["t", "u"], None)

    asyncio.run(scenario())


def test_a_failed_request_fails_only_its_queries(line: Any) -> None:
    """The next request is made as usual."""

    async def scenario() -> None:
        supervisor = line(t="deferred")
        supervisor.error = RuntimeError("503")
        questions = await asked(TaskStates(), task(), task())
        supervisor.open.set()
        answers = await asyncio.gather(*questions, return_exceptions=True)
        assert [str(answers[0]), answers[1]] == ["503", True]

    asyncio.run(scenario())


def test_a_cancelled_query_does_not_affect_others(line: Any) -> None:
    """A trigger may be cancelled during its query."""

    async def scenario() -> None:
        supervisor = line(t="deferred")
        questions = await asked(TaskStates(), *[task() for _ in range(4)])
        questions[0].cancel()
        questions[2].cancel()
        supervisor.open.set()
        answers = await asyncio.gather(*questions, return_exceptions=True)
        assert [answers[1], answers[3]] == [True, True]

    asyncio.run(scenario())


def test_ambiguous_tasks_are_queried_separately(line: Any) -> None:
    """``t_1`` is a task, and also an instance of ``t``."""

    async def scenario() -> None:
        supervisor = line(t_1="deferred", t_0="failed", v="failed")
        tasks = [task(task_id="v"), task(task_id="t_1"), task(map_index=0), task(task_id="v")]
        questions = await asked(TaskStates(), *tasks)
        supervisor.open.set()
        assert await asyncio.gather(*questions) == [False, True, False, False]
        assert [each.task_ids for each in supervisor.asked] == [["v"], ["t_1", "v"], ["t"]]

    asyncio.run(scenario())


def test_a_request_names_a_limited_number_of_tasks(line: Any) -> None:
    """The URL contains their names."""

    async def scenario() -> None:
        supervisor = line()
        questions = await asked(TaskStates(), *[task(task_id=f"task{n}x") for n in range(2 * MAX_TASKS + 1)])
        supervisor.open.set()
        assert not any(await asyncio.gather(*questions))
        assert [len(each.task_ids or ()) for each in supervisor.asked] == [1, MAX_TASKS, MAX_TASKS]

    asyncio.run(scenario())


def test_runs_do_not_wait_for_each_other(line: Any) -> None:
    """The supervisor may respond in any order."""

    async def scenario() -> None:
        supervisor = line(t="deferred")
        other = task()
        other.run_id = "other"
        await asked(TaskStates(), task(), other)
        assert [each.run_ids for each in supervisor.asked] == [["r"], ["other"]]

    asyncio.run(scenario())


# After a kill, until Airflow answers


def test_outside_a_triggerer_nothing_is_deferred(line: Any) -> None:
    """``airflow dags test`` has no supervisor."""
    supervisor = line()
    assert asyncio.run(TaskStates().still_deferred(None)) is False
    assert supervisor.asked == []


@pytest.mark.parametrize("state", ["deferred", "failed"])
@pytest.mark.parametrize("errors", [[BUSY], [BUSY, BUSY, ConnectionResetError(), asyncio.IncompleteReadError(b"", 4)]])
def test_a_failed_request_is_retried(line: Any, errors: list[Exception], state: str) -> None:
    """Otherwise one 503 of the API server would lose a kill."""

    async def scenario() -> None:
        supervisor = line(t=state)
        supervisor.errors = list(errors)
        supervisor.open.set()
        assert await TaskStates().still_deferred(task()) == (state == "deferred")
        assert len(supervisor.asked) == len(errors) + 1

    run(scenario())


def test_requests_end_when_airflow_stops_waiting_for_on_kill(line: Any) -> None:
    """A later response would be useless; the last error is the cause."""

    async def scenario() -> None:
        supervisor = line()
        supervisor.errors = [BUSY] * 1000
        with pytest.raises(TimeoutError, match="30 s") as caught:
            await TaskStates().still_deferred(task())
        assert caught.value.__cause__ is BUSY
        assert now() <= ON_KILL_LIMIT
        assert 1 < len(supervisor.asked) < 1000

    run(scenario())


def test_a_request_without_a_response_ends_too(line: Any) -> None:
    """The database may block a supervisor. The request itself is not cancelled, because that breaks 3.2."""

    async def scenario() -> None:
        supervisor, states = line(t="deferred"), TaskStates()
        with pytest.raises(TimeoutError):
            await states.still_deferred(task())
        assert now() == ON_KILL_LIMIT
        [request] = states._senders.values()
        assert not request.done()
        supervisor.open.set()
        await request

    run(scenario())


def test_a_request_outlives_the_trigger_that_sent_it(line: Any) -> None:
    """Airflow cancels a killed trigger every second; in 3.2, a cancelled request corrupts the connection."""

    async def scenario() -> None:
        supervisor, states = line(t="deferred"), TaskStates()
        asking = asyncio.create_task(states.still_deferred(task()))
        await asyncio.sleep(1)
        asking.cancel("user-action")
        await asyncio.wait({asking})
        [request] = states._senders.values()
        assert asking.cancelled()
        assert not request.done()
        supervisor.open.set()
        await request

    run(scenario())
