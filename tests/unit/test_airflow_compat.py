"""What ``airflow_compat`` relies on in the installed Airflow: its task runner and the messages of its triggerer.

The supervisor, at the other end of the connection, is scripted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import structlog
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.testing import SuccessTrigger
from airflow.utils.state import TaskInstanceState

from airflow_jobflow.airflow_compat import states as compat_states
from airflow_jobflow.airflow_compat.connections import connection_exists
from airflow_jobflow.airflow_compat.deferrals import call_if_deferral_rejected
from airflow_jobflow.airflow_compat.states import (
    DELETED,
    current_states,
    is_cancelled,
    task_state,
    task_states,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUSY = AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))


class WorkerLine:
    """A supervisor of a task process: records messages, and responds to them."""

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
    """A supervisor of a triggerer: returns a state or an error per request, and then nothing."""

    def __init__(self, *answers: dict[str, dict[str, Any]] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def asend(self, message: Any) -> Any:
        """Answer a message."""
        self.asked.append(message)
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        response = self.answers.pop(0)
        if isinstance(response, Exception):
            raise response
        return comms.TaskStatesResult(task_states=response)


Connect = Callable[[Any], Any]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Connect Airflow to a scripted supervisor."""

    def put(line: Any) -> Any:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", line, raising=False)
        return line

    return put


class Deferring(BaseOperator):
    """Defers once, and registers a function for a rejected deferral."""

    def __init__(self, *, rejected: Callable[[str | None], object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rejected = rejected

    def execute(self, context: Any) -> None:
        """Defer."""
        call_if_deferral_rejected(context["ti"], self.rejected)
        trigger: Any = SuccessTrigger
        self.defer(trigger=trigger(), method_name="resume")


def instance(task: BaseOperator, map_index: int = -1) -> RuntimeTaskInstance:
    """Return a task instance as in a task process."""
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


def run_until_deferred(rejected: Callable[[str | None], object]) -> None:
    """Run a task that defers, like a task process."""
    with DAG("d", schedule=None):
        task = Deferring(task_id="t", rejected=rejected)
    ti = instance(task)
    context = ti.get_template_context()
    log = structlog.get_logger()
    try:
        state, _, error = task_runner.run(ti, context, log)
    except (AirflowRuntimeError, OSError):  # Airflow 3.2 ends the process here
        return
    task_runner.finalize(ti, state, context, log, error)


def api_error(status: int, **detail: str) -> AirflowRuntimeError:
    """Return an error of the API as a task process receives it."""
    body = {"detail": {"reason": "invalid_state", "message": "as the API words it", **detail}}
    what = {"status_code": status, "message": "Server returned error", "detail": body}
    return AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=what))


@pytest.mark.parametrize(
    ("deferral", "asked", "state"),
    [
        pytest.param(api_error(409, previous_state="failed"), 0, "failed", id="marked"),
        pytest.param(api_error(409), 1, "restarting", id="without a state"),
        pytest.param(api_error(404), 1, "restarting", id="cleared"),
        pytest.param(api_error(410), 1, "restarting", id="archived"),
    ],
)
def test_a_rejected_deferral_calls_the_function(connect: Connect, deferral: Exception, asked: int, state: str) -> None:
    """Airflow itself does not notify the operator; the state is queried only if the rejection does not name it."""
    line = connect(WorkerLine({"r": {"t": "restarting"}}, deferral=deferral))
    states: list[str | None] = []
    run_until_deferred(states.append)
    assert states == [state]
    assert [type(each) for each in line.sent].count(comms.GetTaskStates) == asked
    assert task_runner.SUPERVISOR_COMMS is line


@pytest.mark.parametrize("deferral", [None, api_error(503), BUSY, OSError("The supervisor is gone")])
def test_other_results_of_a_deferral_call_nothing(connect: Connect, deferral: Exception | None) -> None:
    """The deferral was accepted, or may still be, because the supervisor sends it again."""
    line = connect(WorkerLine({}, deferral=deferral))
    states: list[str | None] = []
    run_until_deferred(states.append)
    assert states == []
    assert [type(each) for each in line.sent].count(comms.DeferTask) == 1
    assert task_runner.SUPERVISOR_COMMS is line


def test_a_function_that_raises_does_not_hide_the_rejection(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A failed stop of a job is logged, and Airflow gets the rejection."""
    connect(WorkerLine({}, deferral=api_error(409, previous_state="failed")))

    def fails(_: str | None) -> None:
        raise ConnectionError("no route")

    with caplog.at_level(logging.ERROR):
        run_until_deferred(fails)
    assert "no route" in caplog.text


def test_without_a_supervisor_there_is_nothing_to_observe(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, in a user's test that calls ``execute``."""
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"))
    call_if_deferral_rejected(ti, print)
    assert not hasattr(task_runner, "SUPERVISOR_COMMS")


def test_other_messages_pass_until_the_deferral(connect: Connect) -> None:
    """The process may look up a connection first, or end in another way."""
    line = connect(WorkerLine({"r": {"t": "running"}}))
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"))
    call_if_deferral_rejected(ti, print)
    assert task_state(ti) == "running"
    assert line.states is task_runner.SUPERVISOR_COMMS.states  # type: ignore[attr-defined]  # the supervisor adds it


class LookupLine:
    """A supervisor that responds to the lookup of a connection, or raises an error."""

    def __init__(self, response: Any) -> None:
        self.response = response

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        assert (type(msg), msg.conn_id) == (comms.GetConnection, "aws_default")
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


ABSENT = comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": "aws_default"})


@pytest.mark.parametrize(
    ("response", "exists"),
    [
        (comms.ConnectionResult.model_construct(conn_id="aws_default", conn_type="aws"), True),
        (ABSENT, False),
        (AirflowRuntimeError(ABSENT), False),
    ],
    ids=["found", "absent", "absent, raised"],
)
def test_a_connection_exists_or_not(connect: Connect, response: Any, exists: bool) -> None:
    """The API server's response decides."""
    connect(LookupLine(response))
    assert connection_exists("aws_default") is exists


@pytest.mark.parametrize("error", [BUSY, BUSY.error, EOFError()], ids=["raised", "returned", "no supervisor"])
def test_a_lookup_that_fails_does_not_mean_that_the_connection_is_missing(connect: Connect, error: Any) -> None:
    """Airflow's own lookup would report "not found"."""
    connect(LookupLine(error))
    with pytest.raises((AirflowRuntimeError, EOFError)):
        connection_exists("aws_default")


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["running", "failed", None])
def test_a_worker_gets_the_state_of_its_own_task_instance(
    connect: Connect, map_index: int, key: str, state: str | None
) -> None:
    """For a mapped task, it is the state of one instance, in one request."""
    line = connect(WorkerLine({"r": {key: state, "t_4": "success"}, "another": {key: "success"}}))
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"), map_index)
    assert task_state(ti) == state
    [asked] = line.sent
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)


@pytest.mark.parametrize("states", [{}, {"r": {}}])
def test_a_deleted_task_instance_differs_from_one_without_a_state(
    connect: Connect, states: dict[str, dict[str, Any]]
) -> None:
    """The job of a task instance that a user has deleted must be stopped."""
    connect(WorkerLine(states))
    with DAG("d", schedule=None):
        ti = instance(BaseOperator(task_id="t"))
    assert task_state(ti) == DELETED
    assert is_cancelled(DELETED)


def test_every_state_of_airflow_is_classified_as_cancellation_or_not() -> None:
    """A state of a newer Airflow must be classified before a job is stopped because of it."""
    left_alone = {
        "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "awaiting_input",
    }  # fmt: skip
    states = {str(each.value) for each in TaskInstanceState}
    assert {state for state in states if is_cancelled(state)} == states - left_alone
    assert not is_cancelled(None)


@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (3, "t_3")])
@pytest.mark.parametrize("state", ["deferred", "queued", None])
def test_a_trigger_gets_the_state_of_its_own_task(
    connect: Connect, map_index: int, key: str, state: str | None
) -> None:
    """For a mapped task, it is the state of one instance; the run may be deleted."""
    line = connect(TriggererLine({"r": {key: state, "t_4": "deferred"}} if state else {}))
    task = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=map_index)
    assert asyncio.run(current_states([task])) == [state or DELETED]
    [asked] = line.asked
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["t"], ["r"], map_index)


@pytest.mark.needs("on_kill")
def test_the_limit_for_on_kill_is_that_of_airflow() -> None:
    """Airflow's limit is not configurable, so ours is a copy."""
    from airflow.jobs import triggerer_job_runner

    assert triggerer_job_runner._ON_CANCEL_TIMEOUT == compat_states.ON_KILL_LIMIT


LIGHT = ("connections", "deferrals", "serialized_tasks", "starts", "states", "task_context", "xcoms")
"""Modules that every process that loads a DAG file imports."""


def test_importing_airflow_compat_loads_no_other_module_of_airflow() -> None:
    """Every worker process would pay for the imports."""
    import subprocess

    modules = ", ".join(f"airflow_jobflow.airflow_compat.{name}" for name in LIGHT)
    code = f"import sys, {modules}; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_states_of_tasks_of_any_dag_are_one_request(connect: Connect) -> None:
    """The orphan reaper queries fifty runs at a time, and must not filter by its own map index."""
    states = {"r": {"t": "failed", "m_0": None}}
    line = connect(WorkerLine(states))
    assert task_states("another", ("t", "m"), ("r", "deleted")) == states
    [request] = line.sent
    assert (request.dag_id, request.task_ids, request.run_ids) == ("another", ["t", "m"], ["r", "deleted"])
    assert request.map_index is None
