"""Kills of deferred tasks, and passed deadlines, with Airflow's triggerer, a scripted supervisor, and the local AWS."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow import stopping, task_states
from airflow_jobflow.aws import Retry, forget_clients
from airflow_jobflow.jobs import batch_map
from airflow_jobflow.jobs.packing import pack
from airflow_jobflow.local import Faults
from airflow_jobflow.triggers import base, job
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.map import MapTrigger
from tests.triggerer import Supervisor, TaskLogs, Triggerer, task

BUSY = AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))
DENIED = ("batch.TerminateJob",)
SHORT = Retry(patience=0.3, denied_patience=0.3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Create new clients for each test's AWS, and shorten waits whose duration does not matter."""
    forget_clients()
    # pytest cannot show an error that has passed through Airflow's greenlets.
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    monkeypatch.setattr(base, "LOG_DELAY", 0.05)
    monkeypatch.setattr(task_states, "RETRY_PAUSE", 0.01)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    forget_clients()


@pytest.fixture
def logs() -> Iterator[TaskLogs]:
    """The log lines of this package, by task."""
    handler = TaskLogs()
    logger = logging.getLogger("airflow_jobflow")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Supervisor]:
    """Return a function that installs a scripted supervisor."""

    def put(*script: Exception | str, state: str | None = "failed") -> Supervisor:
        supervisor = Supervisor(*script, state=state)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return put


@pytest.fixture
def shared(own_kit: Any, here: Callable[[Any], None]) -> Any:
    """The test's own local AWS, which this process uses as AWS."""
    here(own_kit.aws)
    return own_kit


@pytest.fixture
def job_id(shared: Any, gate: Any) -> str:
    """A job that runs until the test is over."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    return str(shared.sh(script))


def make(*job_ids: str, **arguments: Any) -> JobTrigger:
    """Return a trigger of an operator that may stop its jobs."""
    defaults = {"service": "batch", "aws_conn_id": None, "poll_interval": 0.2, "cancel_on_kill": True}
    return JobTrigger(**{**defaults, "job_ids": job_ids, **arguments})


async def described(kit: Any) -> None:
    """Wait until the jobs were described once more."""
    before = kit.aws.calls["batch.DescribeJobs"]
    await asyncio.to_thread(kit.eventually, lambda: kit.aws.calls["batch.DescribeJobs"] > before, "a describe call")


def killed(kit: Any, trigger: JobTrigger, task_instance: Any, prepare: Callable[[], object] = lambda: None) -> None:
    """Run a trigger in Airflow's triggerer, and kill it when its jobs were described."""

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(trigger, task_instance)
        await asyncio.to_thread(kit.eventually, lambda: trigger._seen.keys() == set(trigger.job_ids))
        prepare()
        await triggerer.kill()

    asyncio.run(scenario())


# Kills by a user.


@pytest.mark.parametrize(
    ("script", "stops"),
    [
        ((), True),
        ((BUSY, BUSY, BUSY), True),
        ((BUSY, BUSY), False),
    ],
    ids=["marked failed", "after three 503", "another triggerer has it"],
)
def test_a_kill_stops_the_job_even_if_airflow_is_busy(
    shared: Any, job_id: str, gate: Any, supervised: Any, logs: TaskLogs, *, script: tuple[Any, ...], stops: bool
) -> None:
    """A 503 must not lose the kill. A frozen triggerer is cancelled too, while its tasks still wait elsewhere."""
    supervisor = supervised(*script, state="failed" if stops else "deferred")
    ti = task()
    killed(shared, make(job_id), ti)
    assert len(supervisor.asked) == len(script) + 1
    said = f"Stopped Batch job {job_id}: the Airflow task was killed. It was last seen "
    assert any(line.startswith(said) for line in logs.of(ti)) == stops
    gate.touch()
    ended = shared.wait(job_id)
    assert ended["status"] == ("FAILED" if stops else "SUCCEEDED")
    assert (ended["statusReason"] == "The Airflow task was killed") == stops


def test_a_job_is_not_stopped_if_airflow_does_not_confirm_the_kill(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log names the job. A later kill queries Airflow again."""
    monkeypatch.setattr(task_states, "ON_KILL_LIMIT", 0.2)
    supervised(BUSY, state=None)
    ti, trigger = task(), make(job_id)
    killed(shared, trigger, ti)
    assert any(line.endswith(f"Batch job {job_id} was left running") for line in logs.of(ti))
    assert shared.look(job_id)["status"] == "RUNNING"
    supervised()
    asyncio.run(trigger.on_kill())
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_kill_is_not_lost_when_the_trigger_is_cancelled_again(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs
) -> None:
    """Airflow does that every second. On Python 3.11, the second cancellation abandons ``on_kill``."""
    supervised(*[BUSY] * 30)
    ti = task()

    async def scenario() -> None:
        triggerer = Triggerer()
        running = triggerer.start(make(job_id), ti)
        await described(shared)
        await triggerer.kill(every=0.001)
        assert running.cancelled()
        # Airflow closes the task's log now.
        lines = logs.of(ti)
        assert any(line.startswith(f"Stopped Batch job {job_id}") for line in lines), lines

    asyncio.run(scenario())
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_triggerer_that_shuts_down_does_not_wait_for_stops(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs
) -> None:
    """It cancels all triggers, without a message. Jobs that were not stopped are logged."""
    supervised()
    ti = task()

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(make(job_id), ti)
        await described(shared)
        shared.aws.set_faults(Faults(actions=("TerminateJob",), hang=60))
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: shared.aws.calls["batch.TerminateJob"])
        killing.cancel()
        triggerer.end()

    asyncio.run(scenario())
    shared.aws.set_faults(Faults())
    assert f"Batch job {job_id} was not stopped, and may still run: there was no response yet" in logs.of(ti)


def test_a_shutdown_before_airflow_has_responded_logs_jobs_that_were_not_stopped(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs
) -> None:
    """Its supervisor shuts down too."""
    supervisor = supervised(state=None)
    ti = task()

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(make(job_id), ti)
        await described(shared)
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: supervisor.asked)
        killing.cancel()
        triggerer.end()

    asyncio.run(scenario())
    assert f"The task may have been killed: Batch job {job_id} was not stopped, and may still run" in logs.of(ti)


def test_a_shutdown_before_a_map_is_stopped_logs_jobs_that_were_not_stopped(
    shared: Any, gate: Any, supervised: Any, logs: TaskLogs
) -> None:
    """The orphan reaper stops them later."""
    supervisor = supervised(state="deferred")
    ti = task()
    definition = shared.define(["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"])
    trigger = MapTrigger(
        service="batch",
        job_group=batch_map.job_group(shared.queue, "ended-00000000", {}),
        size=1,
        indexes="0",
        requests=pack([json.dumps(batch_map.item({"jobDefinition": definition}, 0, {}))]),
        aws_conn_id=None,
        poll_interval=0.2,
        cancel_on_kill=True,
    )

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(trigger, ti)
        await asyncio.to_thread(shared.eventually, lambda: trigger._state.running)
        supervisor._state = "failed"
        shared.aws.set_faults(Faults(actions=("TerminateJob",), hang=60))
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: shared.aws.calls["batch.TerminateJob"])
        killing.cancel()
        triggerer.end()

    asyncio.run(scenario())
    shared.aws.set_faults(Faults())
    [job_id] = trigger._state.running
    said = "The triggerer ended before all jobs of the map were stopped. 1 job could not be stopped: "
    assert f"{said}{job_id}" in logs.of(ti)


def test_the_tasks_log_stays_open_until_its_lines_were_read(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor reads a few lines per iteration of its loop, and closes the log of a trigger that has ended."""
    monkeypatch.setattr(base, "LOG_DELAY", 0.5)
    supervised()
    ti = task()

    async def scenario() -> float:
        triggerer = Triggerer()
        triggerer.start(make(job_id), ti)
        await described(shared)
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: any(line.startswith("Stopped") for line in logs.of(ti)))
        stopped_at = time.monotonic()
        await killing
        return time.monotonic() - stopped_at

    assert asyncio.run(scenario()) > 0.2


def test_many_kills_make_few_requests_to_airflow_and_each_task_logs_what_was_stopped(
    shared: Any, gate: Any, supervised: Any, logs: TaskLogs
) -> None:
    """The supervisor responds to one request per iteration of its loop: 500 requests would take half a minute."""
    size = 60
    parent = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done", arrayProperties={"size": size})
    supervisor = supervised()
    tasks = [task(number, map_index=number) for number in range(size)]
    triggers = [make(f"{parent}:{number}") for number in range(size)]

    async def scenario() -> None:
        triggerer = Triggerer()
        for trigger, ti in zip(triggers, tasks, strict=True):
            triggerer.start(trigger, ti)
        await described(shared)
        supervisor.busy_until = asyncio.Event()
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: all(trigger._kill for trigger in triggers))
        supervisor.busy_until.set()
        await killing

    asyncio.run(scenario())
    assert len(supervisor.asked) <= 3
    assert shared.aws.calls["batch.TerminateJob"] == size
    for number, ti in enumerate(tasks):
        assert [line for line in logs.of(ti) if line.startswith(f"Stopped Batch job {parent}:{number}: ")]
    assert {child["status"] for child in shared.children(parent, size)} == {"FAILED"}


# Stops during an outage, or without permission.


OUTAGES = {
    "unreachable": Faults(outage=True, lasts=3),
    "denied": Faults(denied=DENIED, lasts=3),
    "down": Faults(actions=DENIED, error_every=1, lasts=3),
    "credentials": Faults(expired_calls=3),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_kill_during_an_outage_stops_the_job_after_it(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch, *, outage: str
) -> None:
    """The stop is retried in the background for minutes."""
    monkeypatch.setattr(stopping, "FIRST_RETRY", SHORT)
    supervised()
    ti = task()
    killed(shared, make(job_id), ti, lambda: shared.aws.set_faults(OUTAGES[outage]))
    assert any(line.startswith(f"Stopped Batch job {job_id}") for line in logs.of(ti))
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_job_that_cannot_be_stopped_is_logged_and_others_are_stopped(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orphan reaper stops them later."""
    monkeypatch.setattr(stopping, "FIRST_RETRY", SHORT)
    monkeypatch.setattr(stopping, "LONG_RETRY", SHORT)
    supervised()
    ti = task()
    other = shared.sh("sleep 60")
    faults = Faults(denied=DENIED, denied_resources=(job_id,))
    killed(shared, make(job_id, other), ti, lambda: shared.aws.set_faults(faults))
    assert shared.wait(other)["status"] == "FAILED"
    assert shared.look(job_id)["status"] == "RUNNING"
    [line] = [line for line in logs.of(ti) if line.startswith("Could not stop")]
    assert line.startswith(f"Could not stop Batch job {job_id}, and it may still run: ")
    assert "AccessDenied" in line


def test_a_kill_stops_only_jobs_that_have_not_ended(shared: Any, job_id: str, supervised: Any, logs: TaskLogs) -> None:
    """The log must not report a stop of a job that had succeeded."""
    supervised()
    ti = task()
    ended = shared.sh("true")
    shared.wait(ended)
    killed(shared, make(ended, job_id), ti)
    assert [line.split(":")[0] for line in logs.of(ti) if line.startswith("Stopped")] == [f"Stopped Batch job {job_id}"]
    assert shared.aws.calls["batch.TerminateJob"] == 1


@pytest.mark.parametrize("fault", [Faults(denied=("batch.DescribeJobs",)), Faults(missing=("*",))])
def test_a_trigger_never_stops_a_job_because_it_cannot_be_described(
    shared: Any, job_id: str, supervised: Any, monkeypatch: pytest.MonkeyPatch, fault: Faults
) -> None:
    """This also holds if it ends the wait."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.5")
    supervised()
    shared.wait(job_id, "RUNNING")
    shared.aws.set_faults(fault)

    async def scenario() -> list[Any]:
        triggerer = Triggerer()
        await triggerer.start(make(job_id, cancel_on_timeout=True, deadline=time.time() + 60))
        return triggerer.events

    [event] = asyncio.run(scenario())
    assert list(event["errors"]) == [job_id]
    assert (event["limit"], event["stopped"], event["unstopped"]) == (None, [], {})
    assert shared.aws.calls["batch.TerminateJob"] == 0
    shared.aws.set_faults(Faults())
    assert shared.look(job_id)["status"] == "RUNNING"


# The Jobs tab.


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The progress reports for the tab, in place of Airflow's XComs."""
    from airflow.sdk.execution_time import xcom

    written: list[dict[str, Any]] = []

    class Written:
        @staticmethod
        def set(key: str, value: Any, **_: Any) -> None:
            if key == "jobflow_jobs":
                written.append(json.loads(json.dumps(value)))

        @staticmethod
        def get_one(**_: Any) -> None:
            return None

    monkeypatch.setattr(xcom, "XCom", Written)
    return written


def test_the_tab_shows_how_a_killed_job_ended(
    shared: Any, job_id: str, supervised: Any, xcoms: list[dict[str, Any]]
) -> None:
    """It shows the job's own times and the reason for the stop, not the last running state."""
    supervised()
    shared.wait(job_id, "RUNNING")
    killed(shared, make(job_id, reports_progress=True), task())
    ended, note = shared.wait(job_id), xcoms[-1]
    [shown] = note["jobs"]
    assert note["final"]
    assert (shown["state"], shown["reason"]) == ("FAILED", "The Airflow task was killed")
    assert datetime.fromisoformat(shown["stopped_at"]).timestamp() * 1000 == pytest.approx(ended["stoppedAt"], abs=1)
    assert datetime.fromisoformat(shown["stop_requested_at"]).timestamp() * 1000 <= ended["stoppedAt"] + 1000
    assert note["links"]["_link_BatchJobLink"]
    assert "error" not in note


def test_the_tab_shows_a_stop_before_the_job_has_ended(
    shared: Any, gate: Any, supervised: Any, logs: TaskLogs, xcoms: list[dict[str, Any]]
) -> None:
    """A container may take two minutes to end."""
    supervised()
    ti = task()
    job_id = shared.sh(f"trap '' TERM; while [ ! -e {gate} ]; do sleep 0.02; done")
    shared.wait(job_id, "RUNNING")

    async def scenario() -> None:
        triggerer = Triggerer()
        trigger = make(job_id, reports_progress=True)
        triggerer.start(trigger, ti)
        await asyncio.to_thread(shared.eventually, lambda: trigger._seen)
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.to_thread(shared.eventually, lambda: xcoms, "the first report")
        killing.cancel()  # the triggerer shuts down

    asyncio.run(scenario())
    gate.touch()
    [shown] = xcoms[0]["jobs"]
    assert (shown["state"], bool(shown["stop_requested_at"]), shown["stopped_at"]) == ("RUNNING", True, None)
    assert any(line.startswith(f"Stopped Batch job {job_id}") for line in logs.of(ti))


@pytest.mark.parametrize("state", ["scheduled", "running", "deferred"])
def test_a_killed_trigger_does_not_overwrite_the_progress_of_the_next_try(
    shared: Any, job_id: str, supervised: Any, xcoms: list[dict[str, Any]], state: str
) -> None:
    """A task that was cleared belongs to its next try."""
    supervised("failed", state=state)
    killed(shared, make(job_id, reports_progress=True), task())
    assert shared.wait(job_id)["status"] == "FAILED"
    assert xcoms == []


def test_the_tab_shows_that_a_job_could_not_be_stopped(
    shared: Any, job_id: str, supervised: Any, xcoms: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not shown as stopped."""
    monkeypatch.setattr(stopping, "FIRST_RETRY", SHORT)
    monkeypatch.setattr(stopping, "LONG_RETRY", SHORT)
    supervised()
    killed(shared, make(job_id, reports_progress=True), task(), lambda: shared.aws.set_faults(Faults(denied=DENIED)))
    [note] = xcoms
    assert f"Could not stop Batch job {job_id}, and it may still run: " in note["error"]
    assert "stop_requested_at" not in note["jobs"][0]


def test_the_tab_shows_which_items_of_a_killed_map_were_stopped(
    shared: Any,
    gate: Any,
    supervised: Any,
    logs: TaskLogs,
    xcoms: list[dict[str, Any]],
) -> None:
    """The log shows their number."""
    supervisor = supervised(state="deferred")
    ti = task()
    waits = shared.define(["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"])
    items = [batch_map.item({"jobDefinition": waits}, index, {}) for index in range(3)]
    trigger = MapTrigger(
        service="batch",
        job_group=batch_map.job_group(shared.queue, "killed-00000000", {}),
        size=3,
        indexes="0-2",
        requests=pack([json.dumps(each) for each in items]),
        aws_conn_id=None,
        poll_interval=0.2,
        max_concurrency=2,
        began_at=time.time(),
        cancel_on_kill=True,
        reports_progress=True,
    )

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(trigger, ti)
        await asyncio.to_thread(shared.eventually, lambda: trigger._state.statuses == "RR-")
        supervisor._state = "failed"
        await triggerer.kill()

    asyncio.run(scenario())
    note = xcoms[-1]
    assert (note["array"]["cells"], note["final"]) == ("KK-", True)
    assert note["jobs"][0]["stop_requested_at"]
    stopped = "Stopped 2 Batch jobs, because the Airflow task was killed: "
    assert any(line.startswith(stopped) for line in logs.of(ti))


# Passed deadlines.


def fired(trigger: JobTrigger, task_instance: Any = None) -> dict[str, Any]:
    """Run a trigger in Airflow's triggerer until it has ended, and return the event that it fired."""

    async def scenario() -> dict[str, Any]:
        triggerer = Triggerer()
        await triggerer.start(trigger, task_instance)
        [event] = triggerer.events
        return dict(json.loads(json.dumps(event)))

    return asyncio.run(scenario())


@pytest.mark.parametrize("limit", ["deadline", "queue_deadline"])
@pytest.mark.parametrize("cancel", [True, False])
def test_a_passed_deadline_stops_the_job_in_the_trigger_with_cancel_on_timeout(
    shared: Any, gate: Any, logs: TaskLogs, *, limit: str, cancel: bool
) -> None:
    """Workers may be busy or down when the deadline passes."""
    blockers = [shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(2)]
    for each in blockers:
        shared.wait(each, "RUNNING")
    queued = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    target = queued if limit == "queue_deadline" else blockers[0]
    ti = task()
    event = fired(make(target, cancel_on_timeout=cancel, **{limit: time.time() + 1}), ti)
    assert event["limit"] == limit
    assert event["stopped"] == ([target] if cancel else [])
    assert event["unstopped"] == {}
    assert event["jobs"][target]["state"] == ("SUBMITTED" if limit == "queue_deadline" else "RUNNING")
    lines = [line for line in logs.of(ti) if "has passed" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"Stopped Batch job {target}: the ") == cancel
    gate.touch()
    assert shared.wait(target)["status"] == ("FAILED" if cancel else "SUCCEEDED")


def test_a_job_that_had_ended_by_its_deadline_counts_as_ended(shared: Any, gate: Any) -> None:
    """The trigger had last seen it running."""
    job_id = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    shared.wait(job_id, "RUNNING")
    trigger = make(job_id, cancel_on_timeout=True, poll_interval=600, deadline=time.time() + 2)

    async def scenario() -> Any:
        triggerer = Triggerer()
        running = triggerer.start(trigger)
        await described(shared)
        gate.touch()
        await running
        return triggerer.events[0]

    event = asyncio.run(scenario())
    assert event["limit"] is None
    assert event["jobs"][job_id]["state"] == "SUCCEEDED"
    assert (event["stopped"], shared.aws.calls["batch.TerminateJob"]) == ([], 0)


def test_a_job_that_has_left_the_queue_by_its_queue_deadline_is_waited_for(shared: Any, gate: Any) -> None:
    """The trigger had last seen it in the queue."""
    blockers = [shared.sh(f"while [ ! -e {gate}.{number} ]; do sleep 0.02; done") for number in range(2)]
    for each in blockers:
        shared.wait(each, "RUNNING")
    job_id = shared.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    trigger = make(job_id, cancel_on_timeout=True, poll_interval=600, queue_deadline=time.time() + 4)

    async def scenario() -> Any:
        triggerer = Triggerer()
        running = triggerer.start(trigger)
        await described(shared)
        trigger.poll_interval = 0.1  # for what comes after the deadline
        gate.with_name(f"{gate.name}.0").touch()
        await asyncio.to_thread(shared.wait, job_id, "RUNNING")
        await described(shared)
        gate.touch()
        gate.with_name(f"{gate.name}.1").touch()
        await running
        return triggerer.events[0]

    event = asyncio.run(scenario())
    assert event["limit"] is None
    assert event["jobs"][job_id]["state"] == "SUCCEEDED"
    assert shared.aws.calls["batch.TerminateJob"] == 0


def test_of_several_jobs_a_deadline_stops_those_that_run(shared: Any, job_id: str) -> None:
    """The event lists those that were stopped."""
    ended = shared.sh("true")
    shared.wait(ended)
    event = fired(make(ended, job_id, cancel_on_timeout=True, deadline=time.time() + 1))
    assert (event["limit"], event["stopped"], event["unstopped"]) == ("deadline", [job_id], {})
    assert event["jobs"][ended]["state"] == "SUCCEEDED"
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_deadline_that_passes_while_describe_calls_are_denied_stops_the_job(
    shared: Any, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is the reason for the stop, not the denial."""
    monkeypatch.setattr(job, "DEADLINE_DESCRIBE_TIMEOUT", 0.5)
    trigger = make(job_id, cancel_on_timeout=True, deadline=time.time() + 1)
    shared.wait(job_id, "RUNNING")
    shared.aws.set_faults(Faults(denied=("batch.DescribeJobs",)))
    event = fired(trigger)
    assert (event["limit"], event["stopped"]) == ("deadline", [job_id])
    shared.aws.set_faults(Faults())
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_deadline_that_passes_in_an_outage_is_reported_at_once_and_stops_the_job_after_it(
    shared: Any, job_id: str, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow ends the deferral a minute after the deadline. The event reports jobs that are not stopped yet."""
    monkeypatch.setattr(job, "STOP_TIMEOUT", 0.5)
    monkeypatch.setattr(stopping, "FIRST_RETRY", replace(SHORT, patience=0.1, denied_patience=0.1))
    ti = task()
    trigger = make(job_id, cancel_on_timeout=True, deadline=time.time() + 1)
    shared.wait(job_id, "RUNNING")
    shared.aws.set_faults(Faults(denied=DENIED, lasts=4))

    async def scenario() -> Any:
        triggerer = Triggerer()
        running = triggerer.start(trigger, ti)
        await asyncio.to_thread(shared.eventually, lambda: triggerer.events)
        [event] = triggerer.events
        assert not running.done()
        await triggerer.kill()  # the row of a trigger that has fired is deleted
        return event

    event = asyncio.run(scenario())
    assert (event["limit"], event["stopped"], list(event["unstopped"])) == ("deadline", [], [job_id])
    assert "AccessDenied" in event["unstopped"][job_id]
    assert any(line.startswith(f"Stopped Batch job {job_id}") for line in logs.of(ti))
    assert shared.wait(job_id)["status"] == "FAILED"


def test_a_kill_while_a_deadline_stops_the_job_stops_it_once(
    shared: Any, job_id: str, supervised: Any, logs: TaskLogs
) -> None:
    """They share one stop call."""
    supervised()
    ti = task()
    trigger = make(job_id, cancel_on_timeout=True, deadline=time.time() + 1)
    shared.wait(job_id, "RUNNING")
    shared.aws.set_faults(Faults(actions=("TerminateJob",), hang=2))

    async def scenario() -> None:
        triggerer = Triggerer()
        triggerer.start(trigger, ti)
        await asyncio.to_thread(shared.eventually, lambda: shared.aws.calls["batch.TerminateJob"])
        await triggerer.kill()

    asyncio.run(scenario())
    assert shared.aws.calls["batch.TerminateJob"] == 1
    assert len([line for line in logs.of(ti) if line.startswith("Stopped")]) == 1
    assert shared.wait(job_id)["status"] == "FAILED"
