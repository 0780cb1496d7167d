"""State queries of many triggers share few requests. The supervisor is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow.task_states import MAX_TASKS, TaskStates
from tests.triggerer import task


class Line:
    """A supervisor that responds when a test allows it.

    :param states: the states of the tasks of all runs, as Airflow names them.
    """

    def __init__(self, states: dict[str, str]) -> None:
        self.states = states
        self.asked: list[comms.GetTaskStates] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()

    async def asend(self, message: comms.GetTaskStates) -> Any:
        """Respond to a request."""
        self.asked.append(message)
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
