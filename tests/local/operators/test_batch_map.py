"""BatchMapOperator on the local AWS: one job per item, whatever fails."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType, TaskDeferralError, TaskDeferred
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_jobflow import exceptions
from airflow_jobflow.jobs.packing import unpack
from airflow_jobflow.local import Faults
from airflow_jobflow.maps import calls, previous_results, runner, stopper
from airflow_jobflow.operators import kills
from airflow_jobflow.operators.batch import BatchMapOperator
from airflow_jobflow.operators.map_record import MapAttempt
from airflow_jobflow.triggers.map import MapTrigger
from tests.local.maps import clear, items, names_of, recreated, retry, run_until_killed, run_until_shutdown

Make = Callable[..., BatchMapOperator]


def maker(kit: Any) -> Make:
    """Return a function that creates operators for a queue, which by default wait on the worker."""

    def operator(script: str = "true", **parameters: Any) -> BatchMapOperator:
        if "job_definition" not in parameters:
            parameters["job_definition"] = kit.define(["sh", "-c", script])
        defaults = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "aws_conn_id": None, "items": []}
        return BatchMapOperator(**{**defaults, "deferrable": False, **parameters})

    return operator


@pytest.fixture
def make(kit: Any, here: Callable[[Any], None]) -> Make:
    """Return a function that creates operators for the test's queue, which lists jobs immediately."""
    here(kit.aws)
    return maker(kit)


@pytest.fixture
def own_make(own_kit: Any, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that creates operators with short pauses on a local AWS of the test's own, for faults."""
    here(own_kit.aws)
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "300")  # as users have it
    return maker(own_kit)


def statuses_of(kit: Any) -> list[str]:
    """Return the statuses of all jobs that were ever submitted to a queue."""
    answer = kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])
    return [job["status"] for job in answer["jobSummaryList"]]


def deferred(operator: BatchMapOperator, context: Any) -> MapTrigger:
    """Execute an operator until it defers, and return its trigger."""
    with pytest.raises(TaskDeferred) as error:
        operator.execute(context)
    assert isinstance(error.value.trigger, MapTrigger)
    return recreated(error.value.trigger)


# Success.


def test_each_item_is_a_job_and_results_come_in_order(kit: Any, make: Make, context: Any) -> None:
    """This includes items that wait for a free slot; each job has its index."""
    result = make("test $N = $JOBFLOW_MAP_INDEX", items=items(7), max_concurrency="3").execute(context)
    assert (result["state"], result["statuses"]) == ("SUCCEEDED", "S" * 7)
    assert result["array"] == {"size": 7, "succeeded": 7, "failed": 0, "failed_indexes": []}
    assert [outcome["index"] for outcome in result["outcomes"]] == list(range(7))
    assert [outcome["name"].rpartition("-")[2] for outcome in result["outcomes"]] == [str(n) for n in range(7)]
    assert result["created_at"] < result["started_at"] < result["stopped_at"]
    assert (result["failed"], result["service"]) == ([], "batch")
    assert names_of(kit) == [str(number) for number in range(7)]
    assert result == json.loads(json.dumps(result))


def test_a_deferred_map_ends_the_same_way(kit: Any, make: Make, context: Any) -> None:
    """The trigger has all the data that it needs."""
    operator = make(items=json.dumps(items(3)), deferrable=True)
    event = asyncio.run(deferred(operator, context).wait())
    assert operator.execute_complete(context, json.loads(json.dumps(event)))["statuses"] == "SSS"


def test_an_item_overrides_the_operator(kit: Any, make: Make, context: Any) -> None:
    """Its environment is merged with the operator's."""
    overrides = {"environment": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}], "command": ["false"]}
    each = [
        {"command": ["sh", "-c", "echo $A$B"], "environment": {"B": "mine"}, "tags": {"team": "x"}},
        {"container_overrides": {"command": ["sh", "-c", "echo $A-"]}},
        {"command": ["sh", "-c", "exit 3"], "retry_strategy": {"attempts": 2}, "attempt_timeout": "90"},
    ]
    result = make(items=each, container_overrides=overrides, raise_on_failure=False).execute(context)
    first, second, third = (kit.look(outcome["job_id"]) for outcome in result["outcomes"])
    lines = [kit.lines(job["container"]["logStreamName"]) for job in (first, second)]
    assert lines == [["amine"], ["-"]]
    assert first["tags"]["team"] == "x"
    assert (len(third["attempts"]), third["timeout"]) == (2, {"attemptDurationSeconds": 90})


def test_no_items_are_a_success(kit: Any, make: Make, context: Any) -> None:
    """No job is started, and the task does not wait."""
    result = make(items="[]", deferrable=True).execute(context)
    assert (result["state"], result["statuses"], result["outcomes"]) == ("SUCCEEDED", "", [])
    assert result["array"] == {"size": 0, "succeeded": 0, "failed": 0, "failed_indexes": []}
    assert names_of(kit) == []


# Failures.

FAIL_ON_2 = "echo of $N; test $N -ne 2"


def test_a_failed_item_is_reported_and_does_not_stop_the_others(make: Make, context: Any) -> None:
    """The failure is tolerated."""
    result = make(FAIL_ON_2, items=items(4), tolerated_failure_percentage="25").execute(context)
    assert (result["state"], result["statuses"]) == ("SUCCEEDED", "SSFS")
    assert result["array"] == {"size": 4, "succeeded": 3, "failed": 1, "failed_indexes": [2]}
    [failed] = result["failed"]
    assert (failed["index"], failed["exit_code"]) == (2, 1)
    assert result["outcomes"][2] == failed


def test_the_error_of_a_failed_map(make: Make, context: Any) -> None:
    """It has the number of failed items, their indexes and reasons, and the first one's log."""
    with pytest.raises(exceptions.JobFailed) as error:
        make(FAIL_ON_2, items=items(3)).execute(context)
    text = str(error.value)
    assert "2 of 3 items succeeded, 1 failed" in text
    assert "[2] on attempt 1 of 1 with exit code 1: The command itself ended with an error" in text
    assert "  | of 2" in text
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["statuses"] == "SSF"


def test_an_exceeded_tolerance_stops_the_rest(kit: Any, make: Make, context: Any, gate: Any) -> None:
    """No more items are started, and no job keeps running."""
    script = f"test $N = 1 && exit 1; while [ ! -e {gate} ]; do sleep 0.02; done"
    result = make(script, items=items(6), max_concurrency=3, raise_on_failure=False).execute(context)
    assert (result["state"], result["statuses"]) == ("FAILED", "KFK---")
    assert result["outcomes"][3:] == [None, None, None]
    assert [outcome["index"] for outcome in result["failed"]] == [0, 1, 2]
    kit.eventually(lambda: set(statuses_of(kit)) == {"FAILED"}, "the end of all jobs")
    assert names_of(kit) == ["0", "1", "2"]


def test_a_rejected_item_fails_alone(make: Make, context: Any) -> None:
    """The map has already started other items."""
    each = [*items(2), {"command": ["x" * 40_000]}, *items(1)]
    result = make(items=each, tolerated_failure_count=1).execute(context)
    assert result["statuses"] == "SSFS"
    assert result["failed"][0]["status"] == "REFUSED"
    assert "Job size must be less than" in result["failed"][0]["reason"]


@pytest.mark.parametrize("parameter", ["job_queue", "job_definition"])
def test_unknown_resources_are_rejected(kit: Any, make: Make, context: Any, parameter: str) -> None:
    """No job is started, and the task is not retried."""
    with pytest.raises(exceptions.SubmissionRejected, match="Nothing was started"):
        make(items=items(3), **{parameter: "nowhere"}).execute(context)
    assert names_of(kit) == []


@pytest.mark.parametrize("denied", ["ListJobs", "SubmitJob", "DescribeJobs"])
def test_missing_permissions_end_the_map_and_stop_nothing(
    own_kit: Any, own_make: Make, context: Any, gate: Any, *, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    """The map fails after the grace period with the denied call; healthy jobs keep running."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "1")
    operator = own_make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2))
    own_kit.aws.set_faults(Faults(denied=(f"batch.{denied}",)))
    with pytest.raises(exceptions.AccessDenied, match=f"batch:{denied}") as error:
        operator.execute(context)
    own_kit.aws.set_faults(Faults())
    assert not own_kit.aws.calls["batch.TerminateJob"]
    assert set(statuses_of(own_kit)) == ({"RUNNING"} if denied == "DescribeJobs" else set())
    assert ("Running jobs were not stopped" in str(error.value)) == (denied == "DescribeJobs")


@pytest.mark.parametrize("denied", ["SubmitJob", "DescribeJobs"])
def test_a_short_denial_has_no_effect(own_kit: Any, own_make: Make, context: Any, denied: str) -> None:
    """A policy is being replaced while a map starts and watches its items."""
    trigger = deferred(own_make("sleep 0.1", items=items(12), max_concurrency=2, deferrable=True), context)

    async def scenario() -> Any:
        waiting = asyncio.create_task(trigger.wait())
        await asyncio.to_thread(own_kit.eventually, lambda: own_kit.aws.calls["batch.SubmitJob"] >= 3)
        own_kit.aws.set_faults(Faults(denied=(denied,)))
        before = own_kit.aws.calls[f"batch.{denied}"]
        await asyncio.to_thread(own_kit.eventually, lambda: own_kit.aws.calls[f"batch.{denied}"] >= before + 3)
        own_kit.aws.set_faults(Faults())
        return await waiting

    event = asyncio.run(scenario())
    assert (event["statuses"], event["error"]) == ("S" * 12, None)
    assert not own_kit.aws.calls["batch.TerminateJob"]
    assert names_of(own_kit) == sorted(str(number) for number in range(12))


def test_a_map_whose_submits_are_denied_finishes_its_running_jobs(
    own_kit: Any, own_make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Healthy jobs are not stopped because others cannot be started; then the map fails with the denied call."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DENIED_GRACE", "0.5")
    script = f"test $N != 1 || while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = own_make(script, items=items(4), max_concurrency=2, deferrable=True)
    trigger = deferred(operator, context)

    async def scenario() -> Any:
        waiting = asyncio.create_task(trigger.wait())
        await asyncio.to_thread(own_kit.eventually, lambda: len(names_of(own_kit)) == 2)
        own_kit.aws.set_faults(Faults(denied=("SubmitJob",)))
        await asyncio.to_thread(own_kit.eventually, lambda: trigger._state._max_concurrency == 0)
        gate.touch()
        return await waiting

    event = asyncio.run(scenario())
    own_kit.aws.set_faults(Faults())
    assert (event["statuses"].count("S"), event["statuses"].count("-")) == (2, 2)
    with pytest.raises(exceptions.AccessDenied, match=r"batch:SubmitJob.*2 of 4 items ended, 0 failed"):
        operator.execute_complete(context, event)
    assert not own_kit.aws.calls["batch.TerminateJob"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"items": None}, "items=None: must be a list of dicts"),
        ({"items": "of"}, "items='of': must be a list of dicts"),
        ({"items": [{}, 3]}, r"items\[1\]=3: must be a dict"),
        ({"items": [*items(999), {"environment": "x"}]}, r"items\[999\]\['environment'\]='x': must be a dict"),
        ({"items": [{}, {"jobQueue": "q"}]}, r"items\[1\]=.*: 'jobQueue' is not one of command, environment"),
        ({"items": [{"attempt_timeout": 1}]}, r"items\[0\]\['attempt_timeout'\]=1: must be a number of at least 60"),
        (
            {"items": [{"command": ["a"], "container_overrides": {"command": ["b"]}}]},
            r"items\[0\]=.*: command is also set in container_overrides",
        ),
        ({"array_size": 3}, "array_size=3: is not supported by maps"),
        ({"wait_for_completion": False}, "wait_for_completion=False: a map starts jobs as others end"),
        ({"queued_timeout": 3}, "queued_timeout=3: a map has no queue timeout"),
        ({"durable": False}, "durable=False: a map finds its jobs"),
        ({"on_item_failure": "ignore"}, "on_item_failure='ignore': must be one of"),
        ({"max_concurrency": 0}, "max_concurrency=0: must be a number of at least 1"),
        ({"tolerated_failure_count": "few"}, "tolerated_failure_count='few': must be a number"),
    ],
)
def test_invalid_parameters_start_no_job(make: Make, context: Any, parameters: dict[str, Any], words: str) -> None:
    """The error has the parameter, the value and the rule, and for an item its index."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        make(**{"items": items(1), **parameters}).execute(context)


# Crashes, faults, kills.


@pytest.mark.parametrize(
    "fault",
    [
        Faults(actions=("SubmitJob",), lose_answers=3),
        Faults(actions=("SubmitJob",), error_every=3),
        Faults(actions=("SubmitJob",), calls_per_second=8),
        Faults(expired_calls=2),
        Faults(visible_after=1),
    ],
    ids=["lost answers", "5xx", "throttling", "expired", "late"],
)
def test_no_fault_starts_an_item_twice_or_fails_it(own_kit: Any, own_make: Make, context: Any, fault: Faults) -> None:
    """Each item is started exactly once, and the map succeeds."""
    operator = own_make(items=items(12))
    own_kit.aws.set_faults(fault)
    assert operator.execute(context)["statuses"] == "S" * 12
    own_kit.aws.set_faults(Faults())
    assert names_of(own_kit) == sorted(str(number) for number in range(12))


def test_a_trigger_after_a_crash_starts_no_item_twice(kit: Any, make: Make, context: Any, gate: Any) -> None:
    """It lists the jobs of the first trigger, and stops none of them."""
    script = f"test $N -lt 2 || while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = make(script, items=items(8), max_concurrency=4, deferrable=True)
    trigger = deferred(operator, context)

    asyncio.run(run_until_shutdown(kit, trigger, lambda: len(names_of(kit)) >= 3))
    asyncio.run(run_until_shutdown(kit, recreated(trigger), lambda: len(names_of(kit)) >= 5))
    gate.touch()
    event = asyncio.run(recreated(trigger, began_at=0).wait())
    assert operator.execute_complete(context, event)["statuses"] == "S" * 8
    assert names_of(kit) == [str(number) for number in range(8)]


def test_a_retry_continues_an_unfinished_map(kit: Any, make: Make, context: Any) -> None:
    """For example, the trigger failed because of a bug. A clear starts a new map."""
    operator = make(items=items(2), deferrable=True)
    first = deferred(operator, context)
    retry(context)
    second = deferred(operator, context)
    assert second.job_group == first.job_group
    assert second.deferred_at != first.deferred_at
    assert first.began_at > second.began_at == 0, "that nothing is listed yet is no proof that nothing was started"


def test_a_retry_with_an_unusable_connection_starts_no_job(make: Make, context: Any) -> None:
    """It cannot know whether the map of the earlier try is in the same location."""
    deferred(make(items=items(2), deferrable=True), context)
    retry(context)
    with pytest.raises(exceptions.SubmissionError, match="Nothing was started, because the AWS connection nowhere"):
        make(items=items(2), deferrable=True, aws_conn_id="nowhere").execute(context)


@pytest.mark.parametrize("why", ["a clear", "a kill", "other items"])
def test_an_abandoned_map_is_stopped_before_another_starts(
    kit: Any, make: Make, context: Any, gate: Any, why: str
) -> None:
    """Its trigger could not stop it."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    first = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, recreated(first), lambda: len(names_of(kit)) == 2))
    if why == "a clear":
        clear(context)
    elif why == "a kill":
        retry(context)
        context["task_state_store"]["jobflow"]["abandoned"] = True
    else:
        retry(context)
        operator.items = items(3)
    assert deferred(operator, context).job_group != first.job_group
    kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")


def test_without_a_task_state_store_a_retry_stops_what_runs_and_starts_over(
    kit: Any, make: Make, context: Any, gate: Any
) -> None:
    """Airflow 3.2 has no store, so the map of the earlier try is not recorded, but no item may run twice."""
    del context["task_state_store"]
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), redrive=True, deferrable=True)
    first = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, recreated(first), lambda: len(names_of(kit)) == 2))
    retry(context)
    second = deferred(operator, context)
    assert second.job_group != first.job_group
    assert second.indexes == "0-1"
    kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")
    gate.touch()
    event = asyncio.run(recreated(second).wait())
    assert operator.execute_complete(context, event)["statuses"] == "SS"


@pytest.mark.parametrize("why", ["a clear", "other items"])
def test_an_abandoned_map_is_stopped_even_if_no_items_are_left(
    kit: Any, make: Make, context: Any, gate: Any, why: str
) -> None:
    """No new map starts, but the jobs of the earlier try must not keep running."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    first = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, recreated(first), lambda: len(names_of(kit)) == 2))
    (clear if why == "a clear" else retry)(context)
    operator.items = []
    assert operator.execute(context)["state"] == "SUCCEEDED"
    kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")
    listings = kit.aws.calls["batch.ListJobs"]
    retry(context)
    operator.execute(context)
    assert kit.aws.calls["batch.ListJobs"] == listings


def test_a_killed_task_stops_all_jobs(
    kit: Any, make: Make, context: Any, gate: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow cancels the trigger, and then calls ``on_kill``."""
    caplog.set_level(logging.INFO)
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(9), max_concurrency=6, deferrable=True)
    trigger = deferred(operator, context)

    asyncio.run(run_until_killed(kit, trigger, lambda: len(names_of(kit)) >= 4))
    started = names_of(kit)
    kit.eventually(lambda: set(statuses_of(kit)) == {"FAILED"}, "the end of all jobs")
    assert names_of(kit) == started
    assert "The task was killed" in caplog.text


def test_on_kill_after_the_event_stops_nothing(kit: Any, make: Make, context: Any, gate: Any) -> None:
    """Airflow also calls ``on_kill`` for a trigger that has fired its event."""
    trigger = deferred(make(items=items(1), deferrable=True), context)
    before = kit.aws.calls["batch.ListJobs"]
    trigger._fired = True
    asyncio.run(trigger.on_kill())
    assert kit.aws.calls["batch.ListJobs"] == before


def test_a_worker_that_gets_sigterm_stops_all_jobs(
    kit: Any, make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds while it starts them."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(9), max_concurrency=6)

    async def and_kill(wait: Any) -> Any:
        waiting = asyncio.create_task(wait())
        await asyncio.to_thread(kit.eventually, lambda: len(names_of(kit)) >= 4)
        operator.on_kill()  # like a signal handler, on the thread of the event loop
        return await waiting

    make_trigger = MapAttempt.trigger

    def hooked(*arguments: Any, **more: Any) -> MapTrigger:
        trigger = make_trigger(*arguments, **more)
        wait = trigger.wait
        trigger.wait = lambda: and_kill(wait)  # type: ignore[method-assign]
        return trigger

    monkeypatch.setattr(MapAttempt, "trigger", hooked)
    with pytest.raises(exceptions.JobStopped, match="killed"):
        operator.execute(context)
    assert context["task_state_store"]["jobflow"]["abandoned"]
    kit.eventually(lambda: set(statuses_of(kit)) == {"FAILED"}, "the end of all jobs")


@pytest.mark.parametrize("defers", [True, False])
def test_a_map_past_its_deadline_is_stopped(kit: Any, make: Make, context: Any, gate: Any, defers: bool) -> None:
    """The error has the number of ended items."""
    script = f"test $N = 0 || while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = make(script, items=items(4), max_concurrency=2, job_timeout=3, deferrable=defers)

    def run() -> Any:
        if not defers:
            return operator.execute(context)
        return operator.execute_complete(context, asyncio.run(deferred(operator, context).wait()))

    with pytest.raises(exceptions.JobTimeout, match=r"3 of 4 items ended, 0 failed, 2 stopped. Running jobs were"):
        run()
    kit.eventually(lambda: sorted(statuses_of(kit)) == ["FAILED", "FAILED", "SUCCEEDED"], "the end of all jobs")


@pytest.mark.parametrize("has_store", [True, False], ids=["recorded", "without a store"])
def test_a_deferral_timeout_stops_all_jobs(kit: Any, make: Make, context: Any, gate: Any, *, has_store: bool) -> None:
    """No triggerer was alive. Another process resumes the task, with the stored data only."""
    if not has_store:  # Airflow 3.2
        del context["task_state_store"]
    script, parameters = f"while [ ! -e {gate} ]; do sleep 0.02; done", {"job_timeout": 600, "deferrable": True}
    trigger = deferred(make(script, items=items(2), **parameters), context)

    asyncio.run(run_until_shutdown(kit, trigger, lambda: len(names_of(kit)) >= 2))
    resumed = make(script, items=items(2), **parameters)
    with pytest.raises(exceptions.JobTimeout, match="Running jobs were stopped"):
        resumed.resume_execution(TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of all jobs")


# Redrive.


def test_a_retry_runs_only_items_that_did_not_succeed(kit: Any, make: Make, context: Any, gate: Any) -> None:
    """The results of both tries are merged in the order of the items."""
    operator = make(f"test $N != 1 -o -e {gate}", items=items(3), redrive=True)
    with pytest.raises(exceptions.JobFailed, match="1 failed"):
        operator.execute(context)
    gate.touch()
    retry(context)
    result = operator.execute(context)
    assert (result["state"], result["statuses"]) == ("SUCCEEDED", "SSS")
    assert [outcome["index"] for outcome in result["outcomes"]] == [0, 1, 2]
    assert names_of(kit) == ["0", "1", "1", "2"]


@pytest.mark.parametrize("what", ["items", "clear"])
def test_a_retry_with_other_items_starts_over(
    kit: Any, make: Make, context: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cleared task starts over too."""
    caplog.set_level(logging.INFO)
    operator = make("false", items=items(2), redrive=True, tolerated_failure_count=0)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    if what == "items":
        retry(context)
        operator.items = items(3)
    else:
        clear(context)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    assert ("differ from those of the earlier try" in caplog.text) == (what == "items")
    assert ("was cleared" in caplog.text) == (what == "clear")


def test_the_results_for_a_retry_fit_into_the_store(
    kit: Any, make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are split into parts."""
    monkeypatch.setattr(previous_results, "MAX_PART_LENGTH", 100)
    operator = make(f"test $N != 1 -o -e {gate}", items=items(3), redrive=True)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    store = context["task_state_store"]
    parts = [value for key, value in store.items() if key.startswith("jobflow_map_")]
    assert len(parts) > 1
    assert all(len(part) <= 100 for part in parts)
    gate.touch()
    retry(context)
    assert operator.execute(context)["statuses"] == "SSS"


@pytest.mark.parametrize("odd", ["torn", "not there", "of another shape"])
def test_an_incomplete_record_is_ignored(kit: Any, make: Make, context: Any, gate: Any, odd: str) -> None:
    """A worker died while it replaced the record."""
    operator = make(f"test $N != 1 -o -e {gate}", items=items(3), redrive=True)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    store = context["task_state_store"]
    if odd == "torn":
        store["jobflow_map_0"] = store["jobflow_map_0"][:40]
    elif odd == "not there":
        del store["jobflow_map_0"]
    else:
        store["jobflow_map"] = {**store["jobflow_map"], "parts": None}
    gate.touch()
    retry(context)
    assert operator.execute(context)["statuses"] == "SSS"
    assert len(names_of(kit)) == 6


def test_a_replaced_map_is_not_continued(
    kit: Any, make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died after it had stopped the old map, and before it had recorded the new one."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    first = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, recreated(first), lambda: len(names_of(kit)) == 2))
    clear(context)
    with monkeypatch.context() as patch:
        patch.setattr(type(operator._execution.spec), "job_group", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            operator.execute(context)
    assert deferred(operator, context).job_group != first.job_group


def test_a_result_is_not_lost_if_the_record_cannot_be_written(
    kit: Any, make: Make, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs have succeeded, so the record is not needed."""
    operator = make(items=items(1), deferrable=True)
    event = asyncio.run(deferred(operator, context).wait())

    def fail(*_: Any, **__: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "no store"}))

    monkeypatch.setattr(context["task_state_store"], "set", fail, raising=False)
    assert operator.execute_complete(context, event)["statuses"] == "S"


def test_a_bug_does_not_leave_jobs_running(
    kit: Any, make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started jobs are stopped, and the task reports the bug."""
    start = calls.MapCalls.start

    async def breaks(self: Any, request: Any, which: Any) -> str:
        if which.index == 2:
            raise KeyError("jobId")
        return await start(self, request, which)

    monkeypatch.setattr(calls.MapCalls, "start", breaks)
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(3))
    with pytest.raises(exceptions.WaitError, match="jobId"):
        operator.execute(context)
    kit.eventually(lambda: set(statuses_of(kit)) == {"FAILED"}, "the end of all jobs")


def test_a_failed_listing_at_the_end_does_not_hide_the_cause(
    own_kit: Any, own_make: Make, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger reports the first error."""
    operator = own_make("false", items=items(2), deferrable=True)
    trigger = deferred(operator, context)
    make_calls = trigger._make_calls

    def doubtful() -> Any:
        made = make_calls()
        made.may_have_unknown_jobs = True
        own_kit.aws.set_faults(Faults(denied=("ListJobs",)))
        return made

    find = calls.MapCalls.list_jobs
    listed: list[Any] = []

    async def once(self: Any, retry: Any = None) -> Any:
        if not listed:
            listed.append(self)
            return []
        return await find(self, retry)

    monkeypatch.setattr(calls.MapCalls, "list_jobs", once)
    monkeypatch.setattr(trigger, "_make_calls", doubtful)
    event = asyncio.run(trigger.wait())
    own_kit.aws.set_faults(Faults())
    with pytest.raises(exceptions.JobFailed):
        operator.execute_complete(context, event)


def test_a_frozen_triggerer_starts_no_item_of_its_successor(
    kit: Any, make: Make, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another triggerer has taken over its map, which it detects a little later."""
    monkeypatch.setattr(runner, "TRANSFER_DELAY", 0.5)
    operator = make(items=items(6), max_concurrency=1, deferrable=True)
    first = deferred(operator, context)

    async def both() -> list[Any]:
        waiting = asyncio.create_task(first.wait())
        await asyncio.to_thread(kit.eventually, lambda: names_of(kit))
        assert first._calls
        first._calls.ownership._heartbeat_at -= 60
        followed = recreated(first, began_at=0, max_concurrency=6)
        return list(await asyncio.gather(waiting, followed.wait()))

    events = asyncio.run(both())
    assert [event["statuses"] for event in events] == ["S" * 6] * 2
    assert names_of(kit) == [str(number) for number in range(6)]


def test_of_two_jobs_of_one_item_one_is_stopped(kit: Any, make: Make, context: Any, gate: Any) -> None:
    """Two triggers have held the map for a while."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(1), deferrable=True)
    trigger = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, recreated(trigger), lambda: len(names_of(kit)) == 1))
    [first] = kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])["jobSummaryList"]
    kit.submit(jobName=first["jobName"], jobDefinition=operator.job_definition)

    async def follow() -> Any:
        waiting = asyncio.create_task(recreated(trigger, began_at=0).wait())
        await asyncio.to_thread(kit.eventually, lambda: "FAILED" in statuses_of(kit), "the end of one")
        gate.touch()
        return await waiting

    assert asyncio.run(follow())["statuses"] == "S"
    assert sorted(statuses_of(kit)) == ["FAILED", "SUCCEEDED"]


def test_a_continued_map_keeps_its_queue(kit: Any, make: Make, context: Any, batch: Any) -> None:
    """The queue's name may come from a template that now renders differently."""
    operator = make(items=items(2), deferrable=True)
    deferred(operator, context)
    retry(context)
    operator.job_queue = type(kit)(kit.aws, batch).queue
    event = asyncio.run(deferred(operator, context).wait())
    assert event["statuses"] == "SS"
    assert names_of(kit) == ["0", "1"]


@pytest.mark.parametrize("defers", [True, False])
def test_stops_are_repeated_until_aws_responds(
    own_kit: Any, own_make: Make, context: Any, gate: Any, defers: bool
) -> None:
    """AWS fails around a passed deadline: the trigger still stops all jobs, and leaves none for a worker."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = own_make(script, items=items(2), job_timeout=2, deferrable=defers)
    own_kit.aws.set_faults(Faults(actions=("TerminateJob",), error_every=1))

    def recovers() -> None:
        own_kit.eventually(lambda: own_kit.aws.calls["batch.TerminateJob"] >= 4, "stops that fail")
        own_kit.aws.set_faults(Faults())

    recovering = threading.Thread(target=recovers)
    recovering.start()
    if defers:
        event = asyncio.run(deferred(operator, context).wait())
        recovering.join()
        calls_made = own_kit.aws.calls["batch.TerminateJob"]
        own_kit.eventually(lambda: statuses_of(own_kit) == ["FAILED"] * 2, "the end of both jobs")
        assert event["unstopped"]["count"] == 0
    with pytest.raises(exceptions.JobTimeout, match="Running jobs were stopped"):
        operator.execute_complete(context, event) if defers else operator.execute(context)
    recovering.join()
    assert not defers or own_kit.aws.calls["batch.TerminateJob"] == calls_made
    own_kit.eventually(lambda: statuses_of(own_kit) == ["FAILED"] * 2, "the end of both jobs")


def test_the_second_pass_stops_those_whose_stop_failed(
    own_kit: Any, own_make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS was unreachable in the first pass, and responds when all jobs are listed."""
    operator = own_make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    trigger = deferred(operator, context)
    asyncio.run(run_until_shutdown(own_kit, trigger, lambda: statuses_of(own_kit) == ["RUNNING"] * 2))
    running = trigger._state.running
    assert len(running) == 2
    find = calls.MapCalls.list_jobs

    async def recovers(self: Any, retry: Any = None) -> Any:
        own_kit.aws.set_faults(Faults())
        return await find(self, retry)

    monkeypatch.setattr(calls.MapCalls, "list_jobs", recovers)
    own_kit.aws.set_faults(Faults(actions=("TerminateJob",), error_every=1))
    assert not asyncio.run(trigger.stop_all("because", running, retry_timeout=0.5))
    own_kit.eventually(lambda: statuses_of(own_kit) == ["FAILED"] * 2, "the end of all jobs")


def test_a_job_that_cannot_be_stopped_is_named(
    own_kit: Any, own_make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone must stop it in the console."""
    monkeypatch.setattr(stopper, "STOP_RETRY_TIMEOUT", 0.5)
    operator = own_make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(1), job_timeout=2, deferrable=True)
    own_kit.aws.set_faults(Faults(denied=("TerminateJob",)))
    event = asyncio.run(deferred(operator, context).wait())
    own_kit.aws.set_faults(Faults())
    with pytest.raises(exceptions.JobTimeout, match="1 job could not be stopped: ") as error:
        operator.execute_complete(context, event)
    [job_id] = unpack(event["unstopped"]["ids"])
    assert job_id in str(error.value)


# Failing items.


@pytest.mark.parametrize(
    ("parameters", "statuses"),
    [
        ({"redrive": True}, "SFSSFS"),
        ({"on_item_failure": "continue"}, "SFSSFS"),
        ({"on_item_failure": "continue", "tolerated_failure_count": 1}, "SFSSFS"),
        ({"redrive": True, "on_item_failure": "stop"}, "SF----"),
        ({}, "SF----"),
    ],
)
def test_redrive_runs_all_items_before_the_map_fails(
    make: Make, context: Any, parameters: dict[str, Any], statuses: str
) -> None:
    """Without redrive, the first failure ends the map."""
    with pytest.raises(exceptions.JobFailed) as error:
        make("test $N != 1 -a $N != 4", items=items(6), max_concurrency=1, **parameters).execute(context)
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["statuses"] == statuses


def test_a_retry_of_a_flaky_map_runs_only_failed_items(kit: Any, make: Make, context: Any, tmp_path: Any) -> None:
    """All 300 items are started in the first try, although every third fails."""
    script = f"test $((N % 3)) != 0 || test -e {tmp_path}/second"
    operator = make(script, items=items(300), redrive=True)
    with pytest.raises(exceptions.JobFailed, match="200 of 300 items succeeded, 100 failed"):
        operator.execute(context)
    assert len(names_of(kit)) == 300
    (tmp_path / "second").touch()
    retry(context)
    assert operator.execute(context)["statuses"] == "S" * 300
    assert len(names_of(kit)) == 400


def test_a_tolerated_failure_is_a_success_and_is_not_run_again(kit: Any, make: Make, context: Any) -> None:
    """A redrive only follows a failed map; then all failed items run again, including tolerated ones."""
    operator = make("test $N != 1", items=items(3), redrive=True, tolerated_failure_count=1)
    assert operator.execute(context)["statuses"] == "SFS"


@pytest.mark.parametrize(("stopped", "error"), [("01", exceptions.JobStopped), ("0", exceptions.JobFailed)])
def test_stopped_items_differ_from_failures(
    kit: Any, make: Make, context: Any, gate: Any, *, stopped: str, error: type[Exception]
) -> None:
    """If all were stopped, the map counts as stopped; one real failure makes it a failure."""
    operator = make(
        f"while [ ! -e {gate} ]; do sleep 0.02; done; false",
        items=items(2),
        on_item_failure="continue",
        deferrable=True,
    )
    trigger = deferred(operator, context)

    async def scenario() -> Any:
        waiting = asyncio.create_task(trigger.wait())
        await asyncio.to_thread(kit.eventually, lambda: statuses_of(kit) == ["RUNNING"] * 2)
        for job_id in trigger._state.running:
            if str(trigger._state.last_start(job_id).index) in stopped:
                kit.batch.terminate_job(jobId=job_id, reason="by hand")
        gate.touch()
        return await waiting

    event = asyncio.run(scenario())
    with pytest.raises(error) as raised:
        operator.execute_complete(context, event)
    assert type(raised.value) is error


# Failing triggers.


@pytest.mark.parametrize("is_last", [True, False])
def test_without_a_task_state_store_a_trigger_that_fails_leaves_no_job_behind(
    kit: Any, make: Make, context: Any, gate: Any, *, capsys: pytest.CaptureFixture[str], is_last: bool
) -> None:
    """Airflow 3.2 has no store, and drops the arguments of the deferral: the jobs are found by their group."""
    del context["task_state_store"]
    context["ti"].max_tries = 0 if is_last else 1
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    trigger = deferred(make(script, items=items(2), deferrable=True), context)
    asyncio.run(run_until_shutdown(kit, trigger, lambda: len(names_of(kit)) == 2))
    resumed = make(script, items=items(2), deferrable=True)
    with pytest.raises(TaskDeferralError):
        resumed.resume_execution(TRIGGER_FAIL_REPR, {"error": "Trigger failure", "traceback": ["its own"]}, context)
    logged = capsys.readouterr().out
    said = "Running jobs were stopped" if is_last else "The next try stops the running jobs, and starts over"
    assert said in logged
    if is_last:
        kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")


@pytest.mark.parametrize("is_last", [True, False])
def test_a_trigger_that_fails_leaves_its_jobs_to_the_next_try_or_stops_them(
    kit: Any, make: Make, context: Any, gate: Any, *, capsys: pytest.CaptureFixture[str], is_last: bool
) -> None:
    """The log says which."""
    context["ti"].max_tries = 0 if is_last else 1
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    trigger = deferred(operator, context)
    asyncio.run(run_until_shutdown(kit, trigger, lambda: len(names_of(kit)) == 2))
    failed = {"error": "Trigger failure", "traceback": ["the trigger's own"]}
    with pytest.raises(TaskDeferralError):
        operator.resume_execution(TRIGGER_FAIL_REPR, failed, context)
    logged = capsys.readouterr().out
    assert ("Running jobs were stopped" if is_last else "The next try continues with the running jobs") in logged
    if is_last:
        kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")
    else:
        assert "FAILED" not in statuses_of(kit)
        retry(context)
        assert deferred(operator, context).job_group == trigger.job_group


@pytest.mark.parametrize(("state", "stopped"), [("failed", True), ("up_for_retry", False)])
def test_a_continued_map_whose_deferral_is_rejected_is_stopped_by_the_worker(
    kit: Any, make: Make, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch, *, state: str, stopped: bool
) -> None:
    """The run is marked failed while a worker defers with the map of an earlier try, so no trigger ever runs."""
    hooks: list[Callable[[str], object]] = []
    monkeypatch.setattr(kills, "call_if_deferral_rejected", lambda _, hook: hooks.append(hook))
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", items=items(2), deferrable=True)
    trigger = deferred(operator, context)
    assert hooks == [], "a first try has started nothing"
    asyncio.run(run_until_shutdown(kit, trigger, lambda: statuses_of(kit) == ["RUNNING", "RUNNING"]))
    retry(context)
    deferred(operator, context)
    [rejected] = hooks
    rejected(state)
    if stopped:
        kit.eventually(lambda: statuses_of(kit) == ["FAILED", "FAILED"], "the end of both jobs")
    else:
        assert statuses_of(kit) == ["RUNNING", "RUNNING"]


def test_a_map_in_another_location_is_logged(make: Make, context: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Its jobs cannot be found from here, so all items run again."""
    operator = make(items=items(1), deferrable=True)
    deferred(operator, context)
    context["task_state_store"]["jobflow"]["location"] = "batch eu-west-9"
    retry(context)
    deferred(operator, context)
    logged = capsys.readouterr().out
    assert "'batch eu-west-9'" in logged
    assert "is not continued, because this try starts its jobs elsewhere" in logged


def test_a_region_name_does_not_change_the_location(kit: Any, make: Make, context: Any) -> None:
    """The first try has no region_name, and the second has one."""
    operator = make(items=items(1), deferrable=True)
    first = deferred(operator, context)
    retry(context)
    named = make(items=items(1), deferrable=True, region_name="us-east-1", job_definition=operator.job_definition)
    assert deferred(named, context).job_group == first.job_group


def test_a_failed_record_of_the_result_does_not_say_that_nothing_was_started(
    make: Make, context: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The API server is down when all jobs have ended."""
    operator = make("test $N = 0", items=items(2), redrive=True, deferrable=True)
    event = asyncio.run(deferred(operator, context).wait())

    def fail(*_: Any, **__: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "no store"}))

    monkeypatch.setattr(context["task_state_store"], "set", fail, raising=False)
    with pytest.raises(exceptions.JobFailed):
        operator.execute_complete(context, event)
    logged = capsys.readouterr().out
    assert "A retry will run all items" in logged
    assert "nothing was started" not in logged
