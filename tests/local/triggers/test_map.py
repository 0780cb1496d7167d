"""A map's trigger where time works against it: what AWS forgets, what is not shown yet."""

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
from airflow_jobflow.maps import calls, ownership, recovery
from airflow_jobflow.maps import runner as map_run
from airflow_jobflow.triggers import base
from airflow_jobflow.triggers import map as map_trigger
from airflow_jobflow.triggers.map import MapTrigger
from tests.local.conftest import EcsKit, Kit
from tests.local.maps import again, dies, names_of


@pytest.fixture
def forgetful(here: Callable[[Any], None]) -> Iterator[EcsKit]:
    """A cluster of an AWS that forgets a stopped task after two seconds."""
    with LocalAws(settings=Settings(time_scale=0.01, stopped_visible=200)) as server:
        here(server)
        yield EcsKit(server)


class Supervisors:
    """The supervisors of all triggerers, each known by its task's run: they answer what state the task is in."""

    def __init__(self) -> None:
        self.state = "deferred"
        self.blocked: dict[str, asyncio.Event] = {}
        """Those that answer nothing before something is set."""
        self.troubles: list[float | Exception] = []
        """What the next questions come to: seconds until the answer, or an error."""
        self.answers = 0

    def has_answered(self, times: int) -> bool:
        """Say whether so many questions were answered."""
        return self.answers >= times

    async def asend(self, message: Any) -> Any:
        """Answer a trigger's question."""
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
    """Supervisors that answer at once, unless told otherwise."""
    made = Supervisors()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs of all tasks, as there is no Airflow to keep them."""
    kept: dict[str, Any] = {}

    def publish(key: str, value: Any, **_: Any) -> None:
        kept[key] = json.loads(json.dumps(value))

    monkeypatch.setattr(XCom, "set", publish)
    monkeypatch.setattr(XCom, "get_one", lambda key, **_: kept.get(key))
    return kept


def a_map(kit: EcsKit, script: str, size: int) -> MapTrigger:
    """A trigger that runs a script for each item, in a triggerer."""
    definition = kit.define(kit.container(["sh", "-c", script]))
    requests = [ecs_map.item(kit.request(taskDefinition=definition), "main", index, {}) for index in range(size)]
    return in_a_triggerer(
        MapTrigger(
            service="ecs",
            scope=kit.cluster,
            job_group=ecs_map.family(kit.cluster, "group", "0123abcd", "retry", {}),
            size=size,
            indexes=f"0-{size - 1}",
            requests=pack(json.dumps(request) for request in requests),
            aws_conn_id=None,
            poll_interval=0.2,
        )
    )


def in_a_triggerer(trigger: MapTrigger, run_id: str = "r") -> MapTrigger:
    """Let a trigger know whose it is."""
    trigger._task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id=run_id, map_index=-1)
    return trigger


def test_what_aws_has_forgotten_is_not_run_again(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger that follows a crash knows from its predecessor's notes what had ended."""
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.2)
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    script = (
        f'test $JOBFLOW_MAP_INDEX = 0 || while [ ! -e {gate} ]; do sleep 0.02; done; test "$JOBFLOW_MAP_INDEX" != 2'
    )
    trigger = a_map(forgetful, script, 3)
    asyncio.run(dies(forgetful, trigger, lambda: bool(xcoms) and "S" in json.dumps(decoded(xcoms))))
    stopped = next(iter(forgetful.listed(desiredStatus="STOPPED")))
    forgetful.eventually(lambda: stopped not in forgetful.listed(desiredStatus="STOPPED"), "that it is forgotten")
    gate.touch()
    event = asyncio.run(in_a_triggerer(again(trigger)).wait())
    assert event["statuses"] == "SSF"
    assert len(forgetful.aws.started("ecs")) == 3


def decoded(xcoms: dict[str, Any]) -> list[str]:
    """How all items stood at each note."""
    from airflow_jobflow.jobs.packing import unpack

    return [unpack(value["packed"])[0] for value in xcoms.values()]


def test_notes_that_cannot_be_kept_do_not_end_the_map(
    forgetful: EcsKit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an XCom backend raises."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no XComs today")

    monkeypatch.setattr(XCom, "set", fail)
    monkeypatch.setattr(XCom, "get_one", fail)
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.1)
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    event = asyncio.run(a_map(forgetful, "sleep 0.3", 2).wait())
    assert event["statuses"] == "SS"
    assert "no XComs today" in caplog.text


def test_a_trigger_that_begins_after_the_deadline_tells_what_has_ended(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No triggerer lived, or a retry came late: it starts nothing, and does not say that nothing has ended."""
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    monkeypatch.setattr(map_trigger, "FINAL_DESCRIBE_TIMEOUT", 3.0)
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.2)
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 3)
    trigger = in_a_triggerer(again(trigger, max_concurrency=2))
    asyncio.run(dies(forgetful, trigger, lambda: len(forgetful.aws.started("ecs")) == 2))
    gate.touch()
    forgetful.eventually(lambda: len(forgetful.listed(desiredStatus="STOPPED")) == 2, "the end of both")
    event = asyncio.run(in_a_triggerer(again(trigger, deadline=time.time() - 1)).wait())
    assert (event["statuses"], event["limit"]) == ("SS-", "deadline")
    whole = in_a_triggerer(again(trigger, indexes="0-1", requests=pack(["{}", "{}"]), deadline=time.time() - 1))
    event = asyncio.run(whole.wait())
    assert (event["statuses"], event["limit"]) == ("SSS", None)
    assert len(forgetful.aws.started("ecs")) == 2


@pytest.fixture
def late(own_kit: Kit, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A queue of an AWS that lists a new job after a second, and maps that know of such."""
    here(own_kit.aws)
    own_kit.aws.set_faults(Faults(visible_after=1))
    monkeypatch.setattr(calls, "LOOKUPS", (1.0, 2.0))
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    return own_kit


def batch_trigger(kit: Kit, size: int, script: str = "true") -> MapTrigger:
    """A trigger of a Batch map that was begun just now, in a triggerer."""
    request = {"jobDefinition": kit.define(["sh", "-c", script])}
    return in_a_triggerer(
        MapTrigger(
            service="batch",
            job_group=batch_map.family(kit.queue, "hello-0123abcd", {}),
            size=size,
            indexes=f"0-{size - 1}",
            requests=pack(json.dumps(batch_map.item(request, index, {})) for index in range(size)),
            aws_conn_id=None,
            poll_interval=0.2,
            began_at=time.time(),
        )
    )


@pytest.mark.parametrize("xcom", ["kept", "refused", "unreadable"])
def test_a_map_that_is_handed_over_at_once_starts_nothing_twice(
    late: Kit, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch, xcom: str
) -> None:
    """Its first trigger dies right after its first submits, which are not listed yet."""
    monkeypatch.setattr(map_trigger, "FIRST_TRIGGER_WINDOW", 2.0 if xcom == "refused" else 60.0)
    trigger = batch_trigger(late, 6)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no XComs today")

    if xcom == "refused":
        monkeypatch.setattr(XCom, "set", fail)
    asyncio.run(dies(late, trigger, lambda: late.aws.calls["batch.SubmitJob"] >= 3))
    if xcom == "unreadable":
        monkeypatch.setattr(XCom, "get_one", fail)
    event = asyncio.run(in_a_triggerer(again(trigger)).wait())
    late.aws.set_faults(Faults())
    assert event["statuses"] == "S" * 6
    assert names_of(late) == [str(number) for number in range(6)]


def test_a_map_that_is_refused_as_a_whole_is_so_for_the_next_trigger_too(late: Kit, xcoms: dict[str, Any]) -> None:
    """That there was a trigger does not mean that anything was started."""
    late.aws.set_faults(Faults())
    trigger = batch_trigger(late, 2)
    refused = pack([json.dumps({"jobDefinition": "nowhere"})] * 2)
    for _ in range(2):
        event = asyncio.run(in_a_triggerer(again(trigger, requests=refused)).wait())
        assert (event["statuses"], event["error"]["kind"]) == ("--", "refused")
    assert xcoms


@pytest.fixture
def quick(late: Kit, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """The same, where a triggerer counts as dead after a second, and maps that start ten items a second."""
    assert not xcoms
    monkeypatch.setenv("AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD", "1")
    monkeypatch.setattr(ownership, "HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(map_run, "TRANSFER_DELAY", 0.5)
    monkeypatch.setitem(clients.ACTIONS_PER_SECOND, "batch", 10.0)
    return late


async def submits(kit: Kit, count: int) -> None:
    """Wait until a map has submitted so many items."""
    await asyncio.to_thread(kit.eventually, lambda: kit.aws.calls["batch.SubmitJob"] >= count, "the submits")


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_trigger_whose_supervisor_is_blocked_starts_nothing_that_its_follower_starts(
    quick: Kit, supervisors: Supervisors, gate: Any, *, is_cancelled: bool
) -> None:
    """Its own process is alive, but Airflow has not heard of its triggerer, and has given the map to another."""
    size = 8
    trigger = batch_trigger(quick, size, f"while [ ! -e {gate} ]; do sleep 0.02; done")
    trigger = in_a_triggerer(again(trigger, max_concurrency=2), "first")
    follower = in_a_triggerer(again(trigger), "second")

    async def both() -> list[Any]:
        first = asyncio.create_task(trigger.wait())
        await submits(quick, 2)
        supervisors.blocked["first"] = asyncio.Event()
        await asyncio.sleep(1)  # after which Airflow takes its triggerer for dead
        second = asyncio.create_task(follower.wait())
        await asyncio.to_thread(quick.eventually, lambda: len(follower._state.running) == 2, "that both hold the map")
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
def test_a_supervisor_in_trouble_only_delays_a_map(
    quick: Kit, supervisors: Supervisors, caplog: pytest.LogCaptureFixture, trouble: float | Exception
) -> None:
    """It takes too long for an answer, or has none, and no other triggerer has taken the map over."""
    trigger = batch_trigger(quick, 20)

    async def story() -> Any:
        running = asyncio.create_task(trigger.wait())
        await submits(quick, 3)
        supervisors.troubles = [trouble] * 8
        return await running

    event = asyncio.run(story())
    quick.aws.set_faults(Faults())
    assert (event["statuses"], event["error"]) == ("S" * 20, None)
    assert names_of(quick) == sorted(str(number) for number in range(20))
    assert caplog.text.count("no database") == isinstance(trouble, Exception)
    assert "not starting jobs until it is confirmed" in caplog.text


def test_a_trigger_whose_task_is_not_deferred_any_more_starts_nothing_more(
    quick: Kit, supervisors: Supervisors
) -> None:
    """Airflow is about to cancel it; until then it follows what it has started, and stops nothing."""
    trigger = batch_trigger(quick, 100)

    async def story() -> None:
        running = asyncio.create_task(trigger.wait())
        await submits(quick, 3)
        supervisors.state = "queued"
        counts = []
        for answers in (supervisors.answers + 4, supervisors.answers + 12):
            await asyncio.to_thread(quick.eventually, partial(supervisors.has_answered, answers), "the answers")
            counts.append(quick.aws.calls["batch.SubmitJob"])
        assert counts[0] == counts[1] < 100
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())
    assert not quick.aws.calls["batch.TerminateJob"]


AIRFLOW_SAYS = "Airflow: the trigger is cancelled for its task"
"""Stands for the message without which Airflow does not call ``on_kill``."""


class CancelledAt:
    """Awaits a coroutine, and has its own task cancelled, with a message, while it is suspended for the n-th time.

    And each time after that: Airflow cancels a trigger again until it has ended.
    """

    def __init__(self, coroutine: Any, at: int) -> None:
        self._inner = coroutine.__await__()
        self._at = at
        self.suspended = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass on what is awaited, and what it comes to."""
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
                asyncio.get_running_loop().call_soon(task.cancel, AIRFLOW_SAYS)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 -- the coroutine decides about it
                step = partial(self._inner.throw, error)
            else:
                step = partial(self._inner.send, None)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_at_any_await_stops_all_that_was_started(
    kit: Kit,
    gate: Any,
    here: Callable[[Any], None],
    xcoms: dict[str, Any],
    supervisors: Supervisors,
    *,
    monkeypatch: pytest.MonkeyPatch,
    is_first: bool,
) -> None:
    """While a first trigger begins, or another recovers: the message survives, and ``on_kill`` finds everything."""
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
            job_group=batch_map.family(kit.queue, name, {}),
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
            running.cancel(AIRFLOW_SAYS)
            await asyncio.wait({running})
        with pytest.raises(asyncio.CancelledError) as cancelled:
            running.result()
        assert cancelled.value.args == (AIRFLOW_SAYS,), f"at await {number}"
        supervisors.state = "failed"
        await trigger.on_kill()
        await trigger.cleanup()
        await asyncio.to_thread(kit.eventually, partial(has_ended, kit, name, earlier), f"the end, at await {number}")
        return was_cancelled

    async def story() -> int:
        number = 1
        while await is_killed_at(number):
            number += 1
        return number

    assert asyncio.run(story()) > 5


def has_ended(kit: Kit, name: str, earlier: str | None) -> bool:
    """Whether no job of a map runs, of which one was started before."""
    found = kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": [f"{name}-*"]}])
    jobs = found["jobSummaryList"]
    assert earlier is None or earlier in [job["jobId"] for job in jobs]
    return all(job["status"] == "FAILED" for job in jobs)


def test_a_passed_deadline_stops_the_jobs_before_the_event(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker need be alive for that; the event says what is not stopped yet."""
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 2)
    trigger = in_a_triggerer(again(trigger, deadline=time.time() + 3, cancel_on_timeout=True))
    event = asyncio.run(trigger.wait())
    assert (event["statuses"], event["limit"]) == ("KK", "deadline")
    assert event["unstopped"] == {"count": 0, "ids": pack(()), "message": ""}
    forgetful.eventually(lambda: not forgetful.listed(desiredStatus="RUNNING"), "the end of all")


def test_a_deadline_in_an_outage_fires_in_time_and_stops_in_the_background(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow would end the deferral; the trigger's process goes on stopping."""
    monkeypatch.setattr(map_trigger, "DEADLINE_STOP_TIMEOUT", 0.5)
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
    monkeypatch.setattr(base, "LOG_DELAY", 0.0)
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 2)
    trigger = in_a_triggerer(again(trigger, deadline=time.time() + 3, cancel_on_timeout=True))

    async def story() -> Any:
        forgetful.aws.set_faults(Faults(actions=("StopTask",), error_every=1))
        event = await trigger.wait()
        assert event["unstopped"]["count"] == 2
        assert all(job_id in event["unstopped"]["message"] for job_id in unpack(event["unstopped"]["ids"]))
        forgetful.aws.set_faults(Faults())
        await trigger.cleanup()

    asyncio.run(story())
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
"""Responses to RunTask that pass by themselves, whatever their code says."""


@pytest.mark.parametrize(("code", "message"), WRAPPED)
@pytest.mark.parametrize("started", [0, 3])
def test_wrapped_throttling_only_delays_a_map(
    forgetful: EcsKit, xcoms: dict[str, Any], gate: Any, *, started: int, code: str, message: str
) -> None:
    """Also at the first start; it stops no healthy task, and fails no item."""
    trigger = a_map(forgetful, f"while [ ! -e {gate} ]; do sleep 0.02; done", 5)
    trigger = in_a_triggerer(again(trigger, max_concurrency=max(started, 1) + 1))
    fault = Faults(respond_with=(CannedResponse(code=code, message=message, actions=("RunTask",), calls=3),))

    async def story() -> Any:
        if not started:
            forgetful.aws.set_faults(fault)
        waiting = asyncio.create_task(trigger.wait())
        if started:
            await asyncio.to_thread(forgetful.eventually, lambda: len(forgetful.aws.started("ecs")) >= started)
            forgetful.aws.set_faults(fault)
        gate.touch()
        return await waiting

    event = asyncio.run(story())
    assert (event["statuses"], event["error"]) == ("SSSSS", None)
    assert not forgetful.aws.calls["ecs.StopTask"]
    assert len(forgetful.aws.started("ecs")) == 5


def test_a_task_that_was_started_although_aws_reports_a_failure_is_found(
    forgetful: EcsKit, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its item is started again, under another token."""
    monkeypatch.setattr(recovery, "RELIST_DELAY", 0.1)
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
