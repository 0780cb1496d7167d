"""What ``airflow_compat`` relies on, tried against the installed Airflow: its task runner and its triggerer's messages.

The other end of the line, a supervisor, is scripted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import structlog
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.testing import SuccessTrigger
from airflow.utils.state import TaskInstanceState

from airflow_jobflow import airflow_compat
from airflow_jobflow.airflow_compat import (
    DELETED,
    call_after_deferral,
    is_cancelled,
    is_deferred,
    still_deferred,
    task_state,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUSY = AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))
REJECTED = AirflowRuntimeError(
    comms.ErrorResponse(
        error=ErrorType.API_SERVER_ERROR,
        detail={"status_code": 409, "detail": {"detail": {"reason": "invalid_state", "previous_state": "failed"}}},
    )
)


class WorkerLine:
    """A supervisor of a task process: what it was sent, and what it answers."""

    def __init__(self, states: dict[str, dict[str, Any]], *, deferral: Exception | None = None) -> None:
        self.states = states
        self.deferral = deferral
        self.sent: list[Any] = []

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        self.sent.append(msg)
        if isinstance(msg, comms.DeferTask) and self.deferral:
            raise self.deferral
        return comms.TaskStatesResult(task_states=self.states) if isinstance(msg, comms.GetTaskStates) else None


class TriggererLine:
    """A supervisor of a triggerer: a state or an error for each question; once they are used up, no answer."""

    def __init__(self, *answers: dict[str, dict[str, Any]] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.was_asked = asyncio.Event()

    async def asend(self, message: Any) -> Any:
        """Answer a message."""
        self.asked.append(message)
        self.was_asked.set()
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return comms.TaskStatesResult(task_states=answer)


Connect = Callable[[Any], Any]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Put a scripted supervisor at the other end of Airflow's line."""

    def put(line: Any) -> Any:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", line, raising=False)
        return line

    return put


class Deferring(BaseOperator):
    """Defers once, and has a function called after it."""

    def __init__(self, *, links: Sequence[BaseOperatorLink], check: Callable[[Any], object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.links = links
        self.check = check

    def execute(self, context: Any) -> None:  # noqa: ARG002
        """Defer."""
        call_after_deferral(self, self.links, self.check)
        trigger: Any = SuccessTrigger
        self.defer(trigger=trigger(), method_name="resume")


class Page(BaseOperatorLink):
    """A link with a fixed URL."""

    name = "Page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the URL."""
        return "https://example.com/page"


class OtherPage(Page):
    """Another."""

    name = "Other page"


def instance(task: BaseOperator, map_index: int = -1) -> RuntimeTaskInstance:
    """A task instance as a task process has it."""
    run = DagRun(
        dag_id="d", run_id="r", run_after=NOW, start_date=NOW, run_type=DagRunType.MANUAL, state=DagRunState.RUNNING,
        logical_date=None, data_interval_start=None, data_interval_end=None, end_date=None, partition_key=None,
        consumed_asset_events=[],
    )  # fmt: skip
    return RuntimeTaskInstance.model_construct(
        id=uuid4(), dag_id="d", task_id="t", run_id="r", try_number=1, map_index=map_index, dag_version_id=uuid4(),
        task=task, bundle_instance=SimpleNamespace(name="b", version=None), max_tries=0, start_date=NOW,
        state=TaskInstanceState.RUNNING,
        _ti_context_from_server=TIRunContext(dag_run=run, max_tries=0, should_retry=False),
    )  # fmt: skip


def run_until_deferred(check: Callable[[Any], object], links: Sequence[BaseOperatorLink] = (Page(),)) -> None:
    """Do what a task process does with a task that defers."""
    with DAG("d", schedule=None):
        task = Deferring(task_id="t", links=links, check=check)
    ti = instance(task)
    context = ti.get_template_context()
    log = structlog.get_logger()
    state, _, error = task_runner.run(ti, context, log)
    task_runner.finalize(ti, state, context, log, error)


def stored_links(line: WorkerLine) -> dict[str, Any]:
    """The XComs that were sent."""
    return {each.key: each.value for each in line.sent if isinstance(each, comms.SetXCom)}


@pytest.mark.parametrize("deferral", [None, REJECTED], ids=["accepted", "rejected"])
def test_a_function_is_called_after_a_deferral_was_accepted_or_rejected(
    connect: Connect, deferral: Exception | None
) -> None:
    """It can ask for the state then, and knows by it which of the two it was."""
    line = connect(WorkerLine({"r": {"t": "failed" if deferral else "deferred"}}, deferral=deferral))
    states: list[str | None] = []
    run_until_deferred(lambda ti: states.append(task_state(ti)))
    assert states == ["failed" if deferral else "deferred"]
    kinds = [type(each) for each in line.sent]
    assert kinds.index(comms.DeferTask) < kinds.index(comms.GetTaskStates)


def test_the_links_are_stored_as_without_the_function_and_no_others(connect: Connect) -> None:
    """Each costs a request, so those without a URL are left out."""
    line = connect(WorkerLine({}))
    calls: list[Any] = []
    run_until_deferred(calls.append, [OtherPage(), Page()])
    url = "https://example.com/page"
    assert stored_links(line) == {"_link_OtherPage": url, "_link_Page": url}
    assert len(calls) == 1


def test_a_function_that_raises_does_not_cost_the_link(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """The check may fail like any request; that is logged."""
    line = connect(WorkerLine({}))

    def fails(_: Any) -> None:
        raise ConnectionError("no route")

    with caplog.at_level(logging.ERROR):
        run_until_deferred(fails)
    assert stored_links(line) == {"_link_Page": "https://example.com/page"}
    assert "no route" in caplog.text


def test_a_task_that_ends_without_deferring_calls_nothing(connect: Connect) -> None:
    """The function is for what happened to a deferral."""
    connect(WorkerLine({}))
    with DAG("d", schedule=None):
        task = BaseOperator(task_id="t")
    calls: list[Any] = []
    call_after_deferral(task, [Page()], calls.append)
    ti = instance(task)
    ended: Any = ti
    ended.state = TaskInstanceState.SUCCESS
    [link] = task.operator_extra_links
    assert link.get_link(operator=task, ti_key=ended) == "https://example.com/page"
    assert calls == []


def test_a_function_needs_a_link() -> None:
    """Without one, Airflow would evaluate nothing, and nobody would notice."""
    with DAG("d", schedule=None):
        task = BaseOperator(task_id="t")
    with pytest.raises(ValueError, match="link"):
        call_after_deferral(task, [], print)


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["running", "failed", None])
def test_a_worker_is_told_the_state_of_its_own_task_instance(
    connect: Connect, map_index: int, key: str, state: str | None
) -> None:
    """Of a mapped task, that of the one instance; by one request."""
    line = connect(WorkerLine({"r": {key: state, "t_4": "success"}, "another": {key: "success"}}))
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"), map_index)
    assert task_state(ti) == state
    [asked] = line.sent
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)


@pytest.mark.parametrize("states", [{}, {"r": {}}])
def test_a_task_instance_that_is_gone_is_told_from_one_without_a_state(
    connect: Connect, states: dict[str, dict[str, Any]]
) -> None:
    """Somebody has deleted it: nobody wants its job."""
    connect(WorkerLine(states))
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"))
    assert task_state(ti) == DELETED
    assert is_cancelled(DELETED)


def test_every_state_of_airflow_is_a_users_act_or_not() -> None:
    """A state that a newer Airflow adds is looked at by a person before a job is stopped for it."""
    left_alone = {
        "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "awaiting_input",
    }  # fmt: skip
    states = {str(each.value) for each in TaskInstanceState}
    assert {state for state in states if is_cancelled(state)} == states - left_alone
    assert not is_cancelled(None)


TASK = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["deferred", "queued", None])
def test_a_trigger_is_told_whether_its_own_task_is_deferred(
    connect: Connect, map_index: int, key: str, state: str | None
) -> None:
    """Of a mapped task, the one instance; and a run may be gone."""
    line = connect(TriggererLine({"r": {key: state, "t_4": "deferred"}} if state else {}))
    task = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=map_index)
    assert asyncio.run(is_deferred(task)) == (state == "deferred")
    [asked] = line.asked
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)


def test_outside_a_triggerer_nothing_is_deferred(connect: Connect) -> None:
    """Under ``airflow dags test`` there is nobody to ask."""
    line = connect(TriggererLine())
    assert asyncio.run(still_deferred(None)) is False
    assert line.asked == []


@pytest.mark.parametrize("state", ["deferred", "failed"])
@pytest.mark.parametrize("errors", [[BUSY], [BUSY, BUSY, ConnectionResetError(), asyncio.IncompleteReadError(b"", 4)]])
def test_a_question_that_fails_is_asked_again(connect: Connect, errors: list[Exception], state: str) -> None:
    """A8: the API server answered 503 once, and the kill was lost."""
    line = connect(TriggererLine(*errors, {"r": {"t": state}}))
    clock = Clock()
    found = asyncio.run(still_deferred(TASK, clock=clock, sleep=clock.sleep))
    assert found == (state == "deferred")
    assert len(line.asked) == len(errors) + 1


def test_questions_end_when_airflow_waits_no_longer(connect: Connect) -> None:
    """An answer that comes later helps nobody; what went wrong last is the cause."""
    line = connect(TriggererLine(*[BUSY] * 1000))
    clock = Clock()
    with pytest.raises(TimeoutError, match="30 s") as caught:
        asyncio.run(still_deferred(TASK, clock=clock, sleep=clock.sleep))
    assert caught.value.__cause__ is BUSY
    assert clock.now <= airflow_compat.ON_KILL_LIMIT
    assert 1 < len(line.asked) < 1000


def test_no_answer_at_all_ends_as_well(connect: Connect) -> None:
    """A supervisor may be blocked by its database."""
    connect(TriggererLine())
    with pytest.raises(TimeoutError):
        asyncio.run(still_deferred(TASK, patience=0))


def test_a_question_outlives_the_trigger_that_asked(connect: Connect) -> None:
    """Airflow cancels a killed trigger every second; in 3.2 a cancelled question corrupts the connection."""
    line = connect(TriggererLine())

    async def scenario() -> bool:
        asking = asyncio.ensure_future(still_deferred(TASK))
        await line.was_asked.wait()
        asking.cancel("user-action")
        await asyncio.wait({asking})
        [question] = airflow_compat._questions
        pending = not question.done()
        question.cancel()
        return asking.cancelled() and pending

    assert asyncio.run(scenario())
    assert airflow_compat._questions == set()


def test_airflows_limit_for_on_kill_is_ours() -> None:
    """It is not configurable, so it is written down twice."""
    from airflow.jobs import triggerer_job_runner

    assert triggerer_job_runner._ON_CANCEL_TIMEOUT == airflow_compat.ON_KILL_LIMIT


def test_importing_it_loads_no_airflow() -> None:
    """Operators import it, and every worker process pays for what that loads."""
    import subprocess

    code = "import sys, airflow_jobflow.airflow_compat; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
