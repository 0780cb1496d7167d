"""A map's trigger under difficult timing: AWS forgets jobs or lists them late, and triggers are moved or killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.xcom import XCom

from airflow_jobflow.aws import clients
from airflow_jobflow.jobs import batch_map, ecs_map
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.local.faults import CannedResponse
from airflow_jobflow.maps import calls, ownership, recovery, runner
from airflow_jobflow.triggers import base
from airflow_jobflow.triggers import map as map_trigger
from airflow_jobflow.triggers.map import MapTrigger
from tests.local.conftest import EcsKit, Kit
from tests.local.maps import names_of, recreated, run_until_shutdown


@pytest.fixture
def forgetful(here: Callable[[Any], None]) -> Iterator[EcsKit]:
    """A cluster in an AWS that forgets stopped tasks after two seconds."""
    with LocalAws(settings=Settings(time_scale=0.01, stopped_visible=200)) as server:
        here(server)
        yield EcsKit(server)


class Supervisors:
    """The supervisors of all triggerers, identified by the run of their task. They respond to queries for its state."""

    def __init__(self) -> None:
        self.state = "deferred"
        self.blocked: dict[str, asyncio.Event] = {}
        """Supervisors that do not respond before their event is set."""
        self.troubles: list[float | Exception] = []
        """The results of the next queries: seconds until the response, or an error."""
        self.answers = 0

    def has_responded(self, times: int) -> bool:
        """Return whether a number of queries got a response."""
        return self.answers >= times

    async def asend(self, message: Any) -> Any:
        """Respond to a trigger's query."""
        assert isinstance(message, comms.GetTaskStates)
        assert message.run_ids
        [run] = message.run_ids
        if run in self.blocked:
            await self.blocked[run].wait()
        if self.troubles:
            trouble = self.troubles.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
            await asyncio.sleep(trouble)
        self.answers += 1
        return comms.TaskStatesResult(task_states={run: {"t": self.state}})


@pytest.fixture(autouse=True)
def supervisors(monkeypatch: pytest.MonkeyPatch) -> Supervisors:
    """Supervisors that respond immediately, unless a test changes that."""
    made = Supervisors()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs of all tasks, in place of Airflow's."""
    kept: dict[str, Any] = {}

    def publish(key: str, value: Any, **_: Any) -> None:
        kept[key] = json.loads(json.dumps(value))

    monkeypatch.setattr(XCom, "set", publish)
    monkeypatch.setattr(XCom, "get_one", lambda key, **_: kept.get(key))
    return kept


def a_map(kit: EcsKit, script: str, size: int) -> MapTrigger:
    """Return a trigger that runs a script for each item, in a triggerer."""
    definition = kit.define(kit.container(["sh", "-c", script]))
    requests = [ecs_map.item(kit.request(taskDefinition=definition), "main", index, {}) for index in range(size)]
    return in_a_triggerer(
        MapTrigger(
            service="ecs",
            scope=kit.cluster,
            job_group=ecs_map.job_group(kit.cluster, "group", "0123abcd", {}),
            size=size,
            indexes=f"0-{size - 1}",
            requests=pack(json.dumps(request) for request in requests),
            aws_conn_id=None,
            poll_interval=0.2,
        )
    )


def in_a_triggerer(trigger: MapTrigger, run_id: str = "r") -> MapTrigger:
    """Set a trigger's task instance."""
    trigger._task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id=run_id, map_index=-1)
    return trigger


def test_items_whose_jobs_aws_has_forgotten_do_not_run_again(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, the next trigger loads the checkpoints of the previous one."""
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.2)
    script = (
        f'test $JOBFLOW_MAP_INDEX = 0 || while [ ! -e {gate} ]; do sleep 0.02; done; test "$JOBFLOW_MAP_INDEX" != 2'
    )
    trigger = a_map(forgetful, script, 3)
    asyncio.run(run_until_shutdown(forgetful, trigger, lambda: bool(xcoms) and "S" in json.dumps(decoded(xcoms))))
    stopped = next(iter(forgetful.listed(desiredStatus="STOPPED")))
    forgetful.eventually(lambda: stopped not in forgetful.listed(desiredStatus="STOPPED"), "that it is forgotten")
    gate.touch()
    event = asyncio.run(in_a_triggerer(recreated(trigger)).wait())
    assert event["statuses"] == "SSF"
    assert len(forgetful.aws.started("ecs")) == 3


def decoded(xcoms: dict[str, Any]) -> list[str]:
    """Return the statuses of all items at each checkpoint."""
    return [unpack(value["packed"])[0] for value in xcoms.values()]


def test_checkpoints_that_cannot_be_saved_do_not_end_the_map(
    forgetful: EcsKit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An XCom backend may raise any error."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no XComs today")

    monkeypatch.setattr(XCom, "set", fail)
    monkeypatch.setattr(XCom, "get_one", fail)
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.1)
    event = asyncio.run(a_map(forgetful, "sleep 0.3", 2).wait())
    assert event["statuses"] == "SS"
    assert "no XComs today" in caplog.text


def test_a_trigger_that_starts_after_the_deadline_reports_ended_items(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No triggerer was alive, or a retry came late: it starts nothing, but reports ended jobs as ended."""
    monkeypatch.setattr(map_trigger, "FINAL_DESCRIBE_TIMEOUT", 3.0)
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.2)
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 3)
    trigger = in_a_triggerer(recreated(trigger, max_concurrency=2))
    asyncio.run(run_until_shutdown(forgetful, trigger, lambda: len(forgetful.aws.started("ecs")) == 2))
    gate.touch()
    forgetful.eventually(lambda: len(forgetful.listed(desiredStatus="STOPPED")) == 2, "the end of both")
    event = asyncio.run(in_a_triggerer(recreated(trigger, deadline=time.time() - 1)).wait())
    assert (event["statuses"], event["limit"]) == ("SS-", "deadline")
    whole = in_a_triggerer(recreated(trigger, indexes="0-1", requests=pack(["{}", "{}"]), deadline=time.time() - 1))
    event = asyncio.run(whole.wait())
    assert (event["statuses"], event["limit"]) == ("SSS", None)
    assert len(forgetful.aws.started("ecs")) == 2


@pytest.fixture
def late(own_kit: Kit, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A queue in an AWS that lists new jobs after a second, with maps that wait that long."""
    here(own_kit.aws)
    own_kit.aws.set_faults(Faults(visible_after=1))
    monkeypatch.setattr(calls, "LOOKUPS", (1.0, 2.0))
    return own_kit


def batch_trigger(kit: Kit, size: int, script: str = "true") -> MapTrigger:
    """Return a trigger of a Batch map that was started just now, in a triggerer."""
    request = {"jobDefinition": kit.define(["sh", "-c", script])}
    return in_a_triggerer(
        MapTrigger(
            service="batch",
            job_group=batch_map.job_group(kit.queue, "hello-0123abcd", {}),
            size=size,
            indexes=f"0-{size - 1}",
            requests=pack(json.dumps(batch_map.item(request, index, {})) for index in range(size)),
            aws_conn_id=None,
            poll_interval=0.2,
            began_at=time.time(),
        )
    )


@pytest.mark.parametrize("xcom", ["kept", "refused", "unreadable"])
def test_a_map_whose_first_trigger_dies_at_once_starts_nothing_twice(
    late: Kit, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch, xcom: str
) -> None:
    """The first submitted jobs are not listed yet when the next trigger lists them."""
    monkeypatch.setattr(map_trigger, "FIRST_TRIGGER_WINDOW", 2.0 if xcom == "refused" else 60.0)
    trigger = batch_trigger(late, 6)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no XComs today")

    if xcom == "refused":
        monkeypatch.setattr(XCom, "set", fail)
    asyncio.run(run_until_shutdown(late, trigger, lambda: late.aws.calls["batch.SubmitJob"] >= 3))
    if xcom == "unreadable":
        monkeypatch.setattr(XCom, "get_one", fail)
    event = asyncio.run(in_a_triggerer(recreated(trigger)).wait())
    late.aws.set_faults(Faults())
    assert event["statuses"] == "S" * 6
    assert names_of(late) == [str(number) for number in range(6)]


def test_a_map_whose_first_start_is_rejected_is_rejected_for_the_next_trigger_too(
    late: Kit, xcoms: dict[str, Any]
) -> None:
    """An earlier trigger does not mean that any job was started."""
    late.aws.set_faults(Faults())
    trigger = batch_trigger(late, 2)
    refused = pack([json.dumps({"jobDefinition": "nowhere"})] * 2)
    for _ in range(2):
        event = asyncio.run(in_a_triggerer(recreated(trigger, requests=refused)).wait())
        assert (event["statuses"], event["error"]["kind"]) == ("--", "refused")
    assert xcoms


@pytest.fixture
def quick(late: Kit, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """The same, with triggerers that count as dead after a second, and maps that start ten items per second."""
    assert not xcoms
    monkeypatch.setenv("AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD", "1")
    monkeypatch.setattr(ownership, "HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(runner, "TRANSFER_DELAY", 0.5)
    monkeypatch.setitem(clients.ACTIONS_PER_SECOND, "batch", 10.0)
    return late


async def submits(kit: Kit, count: int) -> None:
    """Wait until a map has submitted ``count`` items."""
    await asyncio.to_thread(kit.eventually, lambda: kit.aws.calls["batch.SubmitJob"] >= count, "the submits")


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_trigger_with_a_blocked_supervisor_starts_nothing_that_its_successor_starts(
    quick: Kit, supervisors: Supervisors, gate: Any, *, is_cancelled: bool
) -> None:
    """Its process is alive, but Airflow has no heartbeat of its triggerer, and has moved the map to another one."""
    size = 8
    trigger = batch_trigger(quick, size, f"while [ ! -e {gate} ]; do sleep 0.02; done")
    trigger = in_a_triggerer(recreated(trigger, max_concurrency=2), "first")
    successor = in_a_triggerer(recreated(trigger), "second")

    async def both() -> list[Any]:
        first = asyncio.create_task(trigger.wait())
        await submits(quick, 2)
        supervisors.blocked["first"] = asyncio.Event()
        await asyncio.sleep(1)  # after that, Airflow regards its triggerer as dead
        second = asyncio.create_task(successor.wait())
        await asyncio.to_thread(quick.eventually, lambda: len(successor._state.running) == 2, "that both run the map")
        gate.touch()
        events = [await second]
        supervisors.blocked.pop("first").set()
        if is_cancelled:
            first.cancel()
        return events + [each for each in await asyncio.gather(first, return_exceptions=True) if isinstance(each, dict)]

    events = asyncio.run(both())
    quick.aws.set_faults(Faults())
    assert names_of(quick) == [str(number) for number in range(size)]
    assert [event["statuses"] for event in events] == ["S" * size] * (1 if is_cancelled else 2)


@pytest.mark.parametrize("trouble", [0.8, RuntimeError("no database")])
def test_a_slow_or_failing_supervisor_only_delays_a_map(
    quick: Kit, supervisors: Supervisors, caplog: pytest.LogCaptureFixture, trouble: float | Exception
) -> None:
    """Its responses are late or missing, but no other triggerer has taken over the map."""
    trigger = batch_trigger(quick, 20)

    async def scenario() -> Any:
        running = asyncio.create_task(trigger.wait())
        await submits(quick, 3)
        supervisors.troubles = [trouble] * 8
        return await running

    event = asyncio.run(scenario())
    quick.aws.set_faults(Faults())
    assert (event["statuses"], event["error"]) == ("S" * 20, None)
    assert names_of(quick) == sorted(str(number) for number in range(20))
    assert caplog.text.count("no database") == isinstance(trouble, Exception)
    assert "not starting jobs until it is confirmed" in caplog.text


def test_a_trigger_whose_task_is_no_longer_deferred_starts_no_more_items(quick: Kit, supervisors: Supervisors) -> None:
    """Airflow is about to cancel it. Until then, it watches its running jobs, and stops none."""
    trigger = batch_trigger(quick, 100)

    async def scenario() -> None:
        running = asyncio.create_task(trigger.wait())
        await submits(quick, 3)
        supervisors.state = "queued"
        counts = []
        for answers in (supervisors.answers + 4, supervisors.answers + 12):
            await asyncio.to_thread(quick.eventually, partial(supervisors.has_responded, answers), "the answers")
            counts.append(quick.aws.calls["batch.SubmitJob"])
        assert counts[0] == counts[1] < 100
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())
    assert not quick.aws.calls["batch.TerminateJob"]


KILL_MESSAGE = "Airflow: the trigger is cancelled for its task"
"""The cancellation message without which Airflow does not call ``on_kill``."""


class CancelledAt:
    """Awaits a coroutine, and cancels its own task, with a message, at the coroutine's n-th and later suspensions.

    Airflow also repeats the cancellation of a trigger until it has ended.
    """

    def __init__(self, coroutine: Any, at: int) -> None:
        self._inner = coroutine.__await__()
        self._at = at
        self.suspended = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass on the awaited objects and their results."""
        task = asyncio.current_task()
        assert task
        step = partial(self._inner.send, None)
        while True:
            try:
                awaited = step()
            except StopIteration as over:
                return over.value
            self.suspended += 1
            if self.suspended >= self._at:
                asyncio.get_running_loop().call_soon(task.cancel, KILL_MESSAGE)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 -- the coroutine handles it
                step = partial(self._inner.throw, error)
            else:
                step = partial(self._inner.send, None)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_at_any_await_stops_all_started_jobs(
    kit: Kit,
    gate: Any,
    here: Callable[[Any], None],
    xcoms: dict[str, Any],
    supervisors: Supervisors,
    *,
    monkeypatch: pytest.MonkeyPatch,
    is_first: bool,
) -> None:
    """While a first trigger starts, or another one recovers: the message is kept, and ``on_kill`` finds all jobs."""
    here(kit.aws)
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.02)
    monkeypatch.setattr(calls, "LOOKUPS", (0.0, 0.02))
    monkeypatch.setattr(base, "LOG_DELAY", 0.0)
    definition = kit.define(["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"])
    request = json.dumps(batch_map.item({"jobDefinition": definition}, 0, {}))

    async def is_killed_at(number: int) -> bool:
        xcoms.clear()
        supervisors.state = "deferred"
        name = f"killed{is_first}-{number:08}"
        earlier = None if is_first else kit.submit(jobName=f"{name}-0", jobDefinition=definition)
        trigger = MapTrigger(
            service="batch",
            job_group=batch_map.job_group(kit.queue, name, {}),
            size=2,
            indexes="0-1",
            requests=pack([request, request]),
            aws_conn_id=None,
            poll_interval=0.2,
            began_at=time.time() if is_first else 0.0,
            cancel_on_kill=True,
        )
        in_a_triggerer(trigger)
        driven = CancelledAt(trigger.wait(), number)

        async def drive() -> Any:
            return await driven

        running = asyncio.create_task(drive())
        was_cancelled = bool((await asyncio.wait({running}, timeout=3))[0])
        if not was_cancelled:
            running.cancel(KILL_MESSAGE)
            await asyncio.wait({running})
        with pytest.raises(asyncio.CancelledError) as cancelled:
            running.result()
        assert cancelled.value.args == (KILL_MESSAGE,), f"at await {number}"
        supervisors.state = "failed"
        await trigger.on_kill()
        await trigger.cleanup()
        await asyncio.to_thread(kit.eventually, partial(has_ended, kit, name, earlier), f"the end, at await {number}")
        return was_cancelled

    async def scenario() -> int:
        number = 1
        while await is_killed_at(number):
            number += 1
        return number

    assert asyncio.run(scenario()) > 5


def has_ended(kit: Kit, name: str, earlier: str | None) -> bool:
    """Return whether all jobs of a map have ended, including the earlier one, if there is one."""
    found = kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": [f"{name}-*"]}])
    jobs = found["jobSummaryList"]
    assert earlier is None or earlier in [job["jobId"] for job in jobs]
    return all(job["status"] == "FAILED" for job in jobs)


def test_a_passed_deadline_stops_the_jobs_before_the_event(forgetful: EcsKit, gate: Any, xcoms: dict[str, Any]) -> None:
    """No worker needs to be alive. The event reports jobs that are not stopped yet."""
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 2)
    trigger = in_a_triggerer(recreated(trigger, deadline=time.time() + 3, cancel_on_timeout=True))
    event = asyncio.run(trigger.wait())
    assert (event["statuses"], event["limit"]) == ("KK", "deadline")
    assert event["unstopped"] == {"count": 0, "ids": pack(()), "message": ""}
    forgetful.eventually(lambda: not forgetful.listed(desiredStatus="RUNNING"), "the end of all")


def test_a_deadline_in_an_outage_fires_in_time_and_stops_in_the_background(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Airflow would end the deferral. The trigger's process continues to stop the jobs."""
    monkeypatch.setattr(map_trigger, "DEADLINE_STOP_TIMEOUT", 0.5)
    monkeypatch.setattr(base, "LOG_DELAY", 0.0)
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 2)
    trigger = in_a_triggerer(recreated(trigger, deadline=time.time() + 3, cancel_on_timeout=True))

    async def scenario() -> Any:
        forgetful.aws.set_faults(Faults(actions=("StopTask",), error_every=1))
        event = await trigger.wait()
        assert event["unstopped"]["count"] == 2
        assert all(job_id in event["unstopped"]["message"] for job_id in unpack(event["unstopped"]["ids"]))
        forgetful.aws.set_faults(Faults())
        await trigger.cleanup()

    asyncio.run(scenario())
    forgetful.eventually(lambda: not forgetful.listed(desiredStatus="RUNNING"), "the end of all")


WRAPPED = [
    (
        "InvalidParameterException",
        "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
    ),
    ("ClientException", "Tasks provisioning capacity limit exceeded."),
    (
        "ClientException",
        "Capacity is unavailable at this time. Please try again later or in a different availability zone",
    ),
]
"""Transient responses to RunTask, although their codes say otherwise."""


@pytest.mark.parametrize(("code", "message"), WRAPPED)
@pytest.mark.parametrize("started", [0, 3])
def test_wrapped_throttling_only_delays_a_map(
    forgetful: EcsKit, xcoms: dict[str, Any], gate: Any, *, started: int, code: str, message: str
) -> None:
    """This includes the first start. No healthy task is stopped, and no item fails."""
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 5)
    trigger = in_a_triggerer(recreated(trigger, max_concurrency=max(started, 1) + 1))
    fault = Faults(respond_with=(CannedResponse(code=code, message=message, actions=("RunTask",), calls=3),))

    async def scenario() -> Any:
        if not started:
            forgetful.aws.set_faults(fault)
        waiting = asyncio.create_task(trigger.wait())
        if started:
            await asyncio.to_thread(forgetful.eventually, lambda: len(forgetful.aws.started("ecs")) >= started)
            forgetful.aws.set_faults(fault)
        gate.touch()
        return await waiting

    event = asyncio.run(scenario())
    assert (event["statuses"], event["error"]) == ("SSSSS", None)
    assert not forgetful.aws.calls["ecs.StopTask"]
    assert len(forgetful.aws.started("ecs")) == 5


def test_a_task_that_was_started_although_aws_reports_a_failure_is_found(
    forgetful: EcsKit, xcoms: dict[str, Any]
) -> None:
    """It is found before its item is started again with another token."""
    failures = json.dumps({"tasks": [], "failures": [{"arn": "arn", "reason": "RESOURCE:CPU"}]})
    canned = CannedResponse(
        body=failures,
        status=200,
        content_type="application/x-amz-json-1.1",
        actions=("RunTask",),
        calls=2,
        takes_effect=True,
    )
    trigger = a_map(forgetful, "sleep 1", 4)
    forgetful.aws.set_faults(Faults(respond_with=(canned,)))
    event = asyncio.run(trigger.wait())
    assert (event["statuses"], event["error"]) == ("SSSS", None)
    assert len(forgetful.aws.started("ecs")) == 4
