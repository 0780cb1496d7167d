"""Operators that Airflow starts in the triggerer, without a worker; created and run like in a triggerer.

A worker that takes over has its own context, as in Airflow: ``tests.local.tries`` has its later tries.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.execution_time import task_runner
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_jobflow.exceptions import InvalidParameter, JobFailed, JobTimeout, SubmissionRejected
from airflow_jobflow.local import Faults
from airflow_jobflow.local.samples import EXECUTION_ROLE
from airflow_jobflow.operators import attempt_listing, submission
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.triggers import base, job, start
from airflow_jobflow.triggers.mapped_arguments import NeedsWorker
from tests.local.operator_cases import Array, Batch, Case, Fargate, GlueRun
from tests.local.starts import Supervisor, start_trigger
from tests.local.tries import cleared, deferred, retried
from tests.triggerer import Triggerer

if TYPE_CHECKING:
    from airflow_jobflow.triggers.start import StartTrigger

pytestmark = pytest.mark.needs("starts")

CASES = [Batch, Array, Fargate, GlueRun]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the local AWS list new jobs immediately."""
    monkeypatch.setattr(start, "LISTING_DELAY", 0.0)
    monkeypatch.setattr(start, "LISTING_SHARED", 0.0)
    monkeypatch.setattr(base, "LOG_DELAY", 0.05)
    monkeypatch.setattr(attempt_listing, "_listings", {})
    monkeypatch.setenv("AIRFLOW__JOBFLOW__START_FROM_TRIGGER", "all")
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


class KillableSupervisor(Supervisor):
    """A supervisor that also returns the states of tasks."""

    def __init__(self, xcoms: dict[tuple[str, int | None], Any], state: str = "failed") -> None:
        super().__init__(xcoms, {})
        self.state = state

    async def asend(self, message: Any) -> Any:
        """Answer on the event loop."""
        from tests.triggerer import Supervisor as Asked

        return await Asked(state=self.state).asend(message)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> KillableSupervisor:
    """The supervisor of the triggerer."""
    made = KillableSupervisor({})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


def dag_of(case: Case, **parameters: Any) -> DAG:
    """Return a DAG with the operator under test, with the id ``s``."""
    with DAG("d", schedule=None) as dag:
        case.make(**{"task_id": "s", "poll_interval": 0.2, **parameters})
    return dag


def prepared(trigger: StartTrigger) -> StartTrigger:
    """Return a trigger as a triggerer runs it."""
    instance: Any = trigger.task_instance
    trigger.render_template_fields(instance.get_template_context())
    return trigger


async def events(trigger: StartTrigger) -> list[TriggerEvent]:
    """Run a trigger to its end."""
    return [event async for event in prepared(trigger).run()]


def fired(trigger: StartTrigger) -> TriggerEvent:
    """Run a trigger to its end, and return its one event."""
    [event] = asyncio.run(events(trigger))
    return event


async def until_started(case: Case, count: int = 1) -> None:
    """Wait until jobs were started."""
    await asyncio.to_thread(case.kit.eventually, lambda: len(case.started()) >= count, "a start")


def crash(trigger: StartTrigger, case: Case, count: int = 1) -> None:
    """Run a trigger until it has started its jobs; then its triggerer dies."""

    async def story() -> None:
        running = asyncio.create_task(events(trigger))
        await until_started(case, count)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(story())


@pytest.fixture
def worker(context: Any) -> Any:
    """Return the context of a worker that takes over the same task."""
    ti = context["ti"]
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number = "d", "r", "s", -1, 1
    ti.id = str(uuid.uuid4())
    return context


def taken_over(case: Case, event: Any, context: Any, **parameters: Any) -> Any:
    """Continue on a worker with an event of the trigger, like Airflow."""
    operator = case.make(task_id="s", deferrable=False, poll_interval=0.2, **parameters)
    return operator.resume_execution("execute_complete", {"event": json.loads(json.dumps(event.payload))}, context)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_job_is_started_waited_for_and_ended_without_a_worker(case: Case, supervisor: KillableSupervisor) -> None:
    """The outcome is the same as on a worker."""
    case.end()
    event = fired(start_trigger(dag_of(case)))
    assert isinstance(event, TaskSuccessEvent)
    [job_id] = case.started()
    assert supervisor.left["return_value"]["job_id"] == job_id
    assert supervisor.left["return_value"]["state"] == "SUCCEEDED"


@pytest.mark.parametrize("case", [Batch, Fargate], indirect=True)
def test_an_image_is_started_without_a_worker(case: Case, supervisor: KillableSupervisor) -> None:
    """Its definition is looked up, and registered, in the triggerer."""
    given = {f"{'job' if isinstance(case, Batch) else 'task'}_definition": None, "image": f"busybox-{uuid.uuid4().hex}"}
    event = fired(start_trigger(dag_of(case, **given, execution_role=EXECUTION_ROLE, command=["true"])))
    assert isinstance(event, TaskSuccessEvent)
    assert supervisor.left["return_value"]["state"] == "SUCCEEDED"


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_trigger_that_replaces_another_one_finds_its_job(case: Case) -> None:
    """The triggerer died after the submit: the next one cannot know about it."""
    dag, ti_id = dag_of(case), uuid.uuid4()
    crash(start_trigger(dag, ti_id=ti_id), case)
    case.end()
    assert isinstance(fired(start_trigger(dag, ti_id=ti_id)), TaskSuccessEvent)
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Batch, GlueRun], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_trigger_that_is_frozen_before_its_submit_repeats_the_lookup(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile, another one has started the job."""
    dag, ti_id = dag_of(case), uuid.uuid4()
    other = start_trigger(dag, ti_id=ti_id)
    list_attempts: Any = attempt_listing.find_attempt
    thawed: list[bool] = []

    def frozen(*arguments: Any, **options: Any) -> Any:
        found = list_attempts(*arguments, **options)
        if not thawed:
            thawed.append(True)
            crash(other, case)
            found = list_attempts(*arguments, **{**options, "created_before": time.time()})
        return found

    monkeypatch.setattr("airflow_jobflow.operators.trigger_start.find_attempt", frozen)
    case.end()
    assert isinstance(fired(start_trigger(dag, ti_id=ti_id)), TaskSuccessEvent)
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("supervisor")
def test_a_trigger_that_was_frozen_does_nothing_before_a_cancellation_would_have_arrived(
    case: Case, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Another triggerer may be starting the same task right now, and AWS lists new jobs with a delay."""
    dag, ti_id = dag_of(case), uuid.uuid4()
    trigger, other = start_trigger(dag, ti_id=ti_id), start_trigger(dag, ti_id=ti_id)
    settled: list[bool] = []
    sleep = asyncio.sleep

    async def settle(seconds: float, *arguments: Any) -> Any:
        if seconds == start.SETTLING:
            settled.append(not case.started())
            await asyncio.to_thread(crash, other, case)
            return None
        return await sleep(seconds, *arguments)

    prepare: Any = trigger._prepare

    def then_freeze() -> Any:
        made = prepare()
        if not settled:
            monkeypatch.setattr(trigger, "_ran_at", time.monotonic() - start.STALLED - 1)
            if fails:
                raise ConnectionError("it was lost meanwhile")
        return made

    monkeypatch.setattr(trigger, "_prepare", then_freeze)
    monkeypatch.setattr(asyncio, "sleep", settle)
    case.end()
    assert isinstance(fired(trigger), TaskSuccessEvent)
    assert settled == [True]
    assert len(case.started()) == 1


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_the_event_loop_notices_that_it_stood_still(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The triggerer may find out only seconds later that its triggers were taken over."""
    trigger = start_trigger(dag_of(case))
    monkeypatch.setattr(start, "TICK", 0.0)

    async def story() -> None:
        ticks = asyncio.create_task(trigger._tick())
        await asyncio.sleep(0)
        assert not trigger._may_not_submit()
        trigger._ran_at -= start.STALLED + 1
        assert trigger._may_not_submit()  # also before the loop runs
        for _ in range(5):
            await asyncio.sleep(0)
        assert time.monotonic() - trigger._ran_at < start.STALLED
        assert trigger._may_not_submit()
        ticks.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("case", [Batch, Fargate], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_nothing_is_submitted_after_the_deadline(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow ends the deferral soon, and a worker would not find a job that is listed with a delay."""
    submit_once: Any = submission.submit_once
    now = time.time
    late: list[float] = [0.0]
    monkeypatch.setattr("airflow_jobflow.operators.trigger_start.time.time", lambda: now() + late[0])

    def too_late(*arguments: Any, **options: Any) -> Any:
        late[0] = 100.0
        try:
            return submit_once(*arguments, **options)
        finally:
            late[0] = 0.0

    monkeypatch.setattr(submission, "submit_once", too_late)
    case.end()
    event = fired(start_trigger(dag_of(case, job_timeout=60)))
    assert event.payload == {"start_on_worker": True, "may_have_started": True}
    assert not case.started()


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_wait_keeps_neither_the_context_nor_the_operator(case: Case) -> None:
    """A triggerer has thousands of them."""
    trigger = start_trigger(dag_of(case))

    async def story() -> None:
        running = asyncio.create_task(events(trigger))
        await asyncio.to_thread(case.kit.eventually, lambda: trigger._trigger, "the wait")
        assert (trigger._rendering, trigger._prepared, trigger._starting) == (None, None, None)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(story())


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_pool_that_a_cluster_policy_sets_is_not_ignored(case: Any) -> None:
    """The policy changes a mapped task after it was decided where it starts."""
    given = {"job_queue": case.kit.queue, "job_definition": "d"}
    with DAG("d", schedule=None) as dag:
        mapped: Any = BatchJobOperator.partial(task_id="s", **given).expand(job_name=["a", "b"])
    mapped.pool = "small"
    assert fired(start_trigger(dag, 0)).payload == {"start_on_worker": True}
    assert not case.started()


@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_an_old_token_is_not_reused(case: Case) -> None:
    """AWS may have forgotten it, because the triggerers were down for hours."""
    dag, ti_id = dag_of(case), uuid.uuid4()
    crash(start_trigger(dag, ti_id=ti_id), case)
    case.end()
    before = Counter(case.kit.aws.calls)
    assert isinstance(fired(start_trigger(dag, ti_id=ti_id, began=7200)), TaskSuccessEvent)
    assert (case.kit.aws.calls - before)["ecs.RunTask"] == 0


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_submit_whose_response_is_lost_starts_one_job(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same as on a worker."""
    dag = dag_of(case)
    actions = {"batch": "batch.SubmitJob", "ecs": "ecs.RunTask", "glue": "glue.StartJobRun"}
    case.end()
    case.kit.aws.set_faults(Faults(actions=(actions[case.KIT],), lose_answers=1))
    try:
        assert isinstance(fired(start_trigger(dag)), TaskSuccessEvent)
    finally:
        case.kit.aws.set_faults(Faults())
    assert len(case.started()) == 1


# Later tries and workers.


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_failed_job_is_reported_by_a_worker_and_the_retry_starts_another(case: Case, worker: Any) -> None:
    """The worker records the attempt, which a triggerer cannot."""
    case.end(well=False)
    trigger = start_trigger(dag_of(case))
    worker["ti"].id = str(trigger.task_instance.id)  # type: ignore[union-attr]
    event = fired(trigger)
    with pytest.raises(JobFailed, match=case.started()[0].rpartition("/")[2]):
        taken_over(case, event, worker)
    assert worker["task_state_store"].get("jobflow")["job_ids"] == case.started()
    with pytest.raises(JobFailed):
        case.make(task_id="s", deferrable=False).execute(retried(worker))
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", [Batch, Fargate], indirect=True)
@pytest.mark.parametrize("is_reported", [True, False])
@pytest.mark.usefixtures("supervisor")
def test_the_retry_of_a_job_that_failed_in_the_triggerer_is_changed(
    case: Case, worker: Any, *, is_reported: bool
) -> None:
    """Whether a worker has recorded the failure, or nobody has."""
    worker["ti"].max_tries = 1
    memory = 128 if isinstance(case, Batch) else 2048
    given = {"command": ["sh", "-c", "exit 137"], "memory": memory, "on_out_of_memory": {"memory": "x2"}}
    event = fired(start_trigger(dag_of(case, **given)))
    if is_reported:
        with pytest.raises(JobFailed, match="The next attempt: memory from"):
            taken_over(case, event, worker, **given)
    given["command"] = ["true"]
    outcome = case.make(task_id="s", deferrable=False, **given).execute(retried(worker))
    [change] = outcome["changes"]
    assert (change["attempt"], change["changed"]["memory"], len(case.started())) == (2, 2 * memory, 2)


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_retry_continues_with_a_job_that_was_started_in_the_triggerer(case: Case, worker: Any) -> None:
    """Nothing is recorded: the triggerer was lost, and Airflow has started another try."""
    crash(start_trigger(dag_of(case)), case)
    case.end()
    assert case.make(task_id="s", deferrable=False).execute(retried(worker))["job_id"] in case.started()
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_after_a_clear_the_job_is_stopped_and_another_one_is_started(case: Case, worker: Any) -> None:
    """The triggerer does not know how often the run was cleared, so any clear counts."""
    crash(start_trigger(dag_of(case)), case)
    [first] = case.started()
    deferred(case.make(task_id="s"), cleared(worker))
    assert len(case.started()) == 2
    assert case.status(first) == "FAILED"


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_deferral_timeout_stops_the_job(case: Case, worker: Any) -> None:
    """No triggerer was running when the deadline passed, and nothing is recorded."""
    crash(start_trigger(dag_of(case, job_timeout=60)), case)
    operator = case.make(task_id="s", job_timeout=60)
    failure = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(JobTimeout, match="It was stopped"):
        operator.resume_execution(TRIGGER_FAIL_REPR, failure, worker)
    [job_id] = case.started()
    assert case.status(job_id) == "FAILED"


# Starts on a worker.


@pytest.mark.parametrize(
    ("parameters", "error"),
    [({"job_timeout": "{{ params.typo }}"}, None), ({"job_timeout": "nonsense"}, InvalidParameter)],
)
@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_an_invalid_parameter_fails_on_a_worker(
    case: Case, worker: Any, parameters: dict[str, Any], error: type[Exception] | None
) -> None:
    """The template cannot be rendered, or the parameter is rejected."""
    event = fired(start_trigger(dag_of(case, **parameters)))
    assert event.payload == start.START_ON_WORKER
    if error:
        with pytest.raises(error):
            taken_over(case, event, worker, **parameters)
    assert not case.started()


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_rejected_submit_is_raised_on_a_worker(case: Case, worker: Any) -> None:
    """The worker submits it once more."""
    event = fired(start_trigger(dag_of(case, job_queue="nope")))
    assert event.payload["start_on_worker"]
    with pytest.raises(SubmissionRejected, match="nope"):
        taken_over(case, event, worker, job_queue="nope")


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_later_try_starts_on_a_worker(case: Case) -> None:
    """An earlier try may have a job."""
    event = fired(start_trigger(dag_of(case), try_number=2))
    assert event.payload == start.START_ON_WORKER
    assert not case.started()


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_worker_that_takes_over_finds_the_job_of_an_earlier_trigger(case: Case, worker: Any) -> None:
    """A later trigger of the same try gave up, for example because a variable was gone."""
    crash(start_trigger(dag_of(case)), case)
    case.end(well=False)
    event = TriggerEvent(start.START_ON_WORKER)  # type: ignore[no-untyped-call]  # Airflow's is untyped
    with pytest.raises(JobFailed, match=case.started()[0].rpartition("/")[2]):
        taken_over(case, event, worker)
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_worker_that_takes_over_starts_the_job_if_there_is_none(case: Case, worker: Any) -> None:
    """It starts as if there had been no trigger."""
    case.end()
    event = TriggerEvent(start.START_ON_WORKER)  # type: ignore[no-untyped-call]  # Airflow's is untyped
    assert taken_over(case, event, worker)["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


# Deadlines and kills.


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_deadline_counts_from_the_start_of_the_task(case: Case, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for any triggerer; the trigger stops the job some time before Airflow would end the deferral."""
    # A minute is left to start the job; it has passed by the clock of the wait.
    clock = SimpleNamespace(time=lambda: time.time() + 60, monotonic=time.monotonic)
    monkeypatch.setattr(job, "time", clock)
    event = fired(start_trigger(dag_of(case, job_timeout=600), began=540))
    assert event.payload["limit"] == "deadline"
    assert event.payload["stopped"] == case.started()
    with pytest.raises(JobTimeout, match="600 s"):
        taken_over(case, event, worker, job_timeout=600)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_kill_stops_the_job(case: Case, supervisor: KillableSupervisor) -> None:
    """It is the same as for a job that a worker has started."""
    trigger = start_trigger(dag_of(case, do_xcom_push=False))

    async def story() -> None:
        triggerer = Triggerer()
        triggerer.start(prepared(trigger), trigger.task_instance)
        await until_started(case)
        await triggerer.kill()

    asyncio.run(story())
    [job_id] = case.started()
    assert case.status(job_id) == "FAILED"


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.parametrize("state", ["failed", "deferred"])
def test_a_kill_during_the_submit_stops_the_job_once_it_is_known(
    case: Case, supervisor: KillableSupervisor, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It does not if another triggerer has taken over the trigger: the task is then still deferred."""
    supervisor.state = state
    trigger = start_trigger(dag_of(case, do_xcom_push=False))
    submit_once: Any = submission.submit_once
    loop_events: dict[str, asyncio.Event] = {}
    loops: list[asyncio.AbstractEventLoop] = []

    def slowly(*arguments: Any, **options: Any) -> Any:
        found = submit_once(*arguments, **options)
        asyncio.run_coroutine_threadsafe(loop_events["killed"].wait(), loops[0]).result(30)
        return found

    monkeypatch.setattr(submission, "submit_once", slowly)

    async def story() -> None:
        loops.append(asyncio.get_running_loop())
        loop_events["killed"] = asyncio.Event()
        triggerer = Triggerer()
        running = triggerer.start(prepared(trigger), trigger.task_instance)
        await until_started(case)
        killing = asyncio.create_task(triggerer.kill())
        await asyncio.sleep(0)
        loop_events["killed"].set()
        await asyncio.gather(killing, running, return_exceptions=True)

    asyncio.run(story())
    [job_id] = case.started()
    if state == "deferred":
        assert case.kit.look(job_id)["status"] not in ("SUCCEEDED", "FAILED")
    case.end()
    assert case.status(job_id) == ("FAILED" if state == "failed" else "SUCCEEDED")


@pytest.mark.parametrize("case", [Batch, GlueRun], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_kill_before_the_lookup_stops_the_job_of_an_earlier_trigger(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer had just taken the task over."""
    dag, ti_id = dag_of(case, do_xcom_push=False), uuid.uuid4()
    crash(start_trigger(dag, ti_id=ti_id), case)
    trigger = start_trigger(dag, ti_id=ti_id)
    monkeypatch.setattr(start, "LISTING_SHARED", 600.0)

    async def story() -> None:
        triggerer = Triggerer()
        triggerer.start(prepared(trigger), trigger.task_instance)
        await asyncio.to_thread(case.kit.eventually, lambda: trigger._prepared, "the preparation")
        await triggerer.kill()

    asyncio.run(story())
    [job_id] = case.started()
    assert case.status(job_id) == "FAILED"


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_kill_before_the_parameters_are_rendered_stops_the_job_of_an_earlier_trigger(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a takeover of a thousand triggers, the last ones wait for a while."""
    dag, ti_id = dag_of(case, do_xcom_push=False), uuid.uuid4()
    crash(start_trigger(dag, ti_id=ti_id), case)
    trigger = start_trigger(dag, ti_id=ti_id)
    prepare: Any = trigger._prepare
    calls: list[threading.Event] = []

    def wait_first() -> Any:
        calls.append(threading.Event())
        if len(calls) == 1:
            calls[0].wait(30)
        return prepare()

    monkeypatch.setattr(trigger, "_prepare", wait_first)

    async def story() -> None:
        triggerer = Triggerer()
        triggerer.start(prepared(trigger), trigger.task_instance)
        await asyncio.to_thread(case.kit.eventually, lambda: calls, "the preparation")
        await triggerer.kill()
        calls[0].set()

    asyncio.run(story())
    [job_id] = case.started()
    assert case.status(job_id) == "FAILED"


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.usefixtures("supervisor")
def test_a_trigger_that_is_cancelled_before_its_submit_submits_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that shuts down leaves its tasks to another one."""
    trigger = start_trigger(dag_of(case))
    find: Any = attempt_listing.find_attempt

    async def story() -> None:
        looking, cancelled, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        def slowly(*arguments: Any, **options: Any) -> Any:
            loop.call_soon_threadsafe(looking.set)
            asyncio.run_coroutine_threadsafe(cancelled.wait(), loop).result(30)
            return find(*arguments, **options)

        monkeypatch.setattr("airflow_jobflow.operators.trigger_start.find_attempt", slowly)
        running = asyncio.create_task(events(trigger))
        await looking.wait()
        running.cancel()
        await asyncio.wait({running})
        cancelled.set()
        starting: Any = trigger._starting
        with pytest.raises(NeedsWorker):
            await asyncio.wrap_future(starting)

    asyncio.run(story())
    assert not case.started()


# Many tasks.


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_instances_of_a_mapped_task_share_their_lookups(case: Any, supervisor: KillableSupervisor) -> None:
    """Twenty are looked up with a few calls, and each starts its own job."""
    commands = [["sh", "-c", f"echo {index}"] for index in range(20)]
    supervisor.xcoms["up", -1] = [{"index": str(index)} for index in range(20)]
    with DAG("d", schedule=None) as dag:
        up: Any = BaseOperator(task_id="up")
        BatchJobOperator.partial(
            task_id="s",
            aws_conn_id=None,
            job_name="many",
            job_queue=case.kit.queue,
            job_definition=case.kit.define(commands[0]),
            poll_interval=0.2,
            do_xcom_push=False,
        ).expand(parameters=up.output)
    before = Counter(case.kit.aws.calls)

    async def story() -> list[list[TriggerEvent]]:
        return await asyncio.gather(*(events(start_trigger(dag, index)) for index in range(20)))

    assert [type(event) for [event] in asyncio.run(story())] == [TaskSuccessEvent] * 20
    calls = case.kit.aws.calls - before
    assert calls["batch.SubmitJob"] == 20
    assert calls["batch.ListJobs"] < 20
    names = {case.kit.look(job_id)["jobName"].split("-")[1] for job_id in case.started()}
    assert len(names) == 20


def map_of(case: Any, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of a map of Batch jobs."""
    return {
        "task_id": "s",
        "aws_conn_id": None,
        "job_name": "map",
        "job_queue": case.kit.queue,
        "job_definition": case.definition,
        "items": items,
        "poll_interval": 0.2,
    }


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_map_starts_in_the_triggerer_and_ends_on_a_worker(
    case: Any, supervisor: KillableSupervisor, worker: Any
) -> None:
    """A trigger that replaces another one starts no item twice."""
    supervisor.state = "deferred"
    parameters = map_of(case, [{"environment": {"N": str(index)}} for index in range(3)])
    with DAG("d", schedule=None) as dag:
        BatchMapOperator(**parameters)
    ti_id = uuid.uuid4()

    crash(start_trigger(dag, ti_id=ti_id), case, 3)
    case.end()
    event = fired(start_trigger(dag, ti_id=ti_id))
    assert event.payload["statuses"] == "SSS"
    assert len(case.started()) == 3
    operator = BatchMapOperator(**parameters)
    result = operator.resume_execution("execute_complete", {"event": event.payload}, worker)
    assert result["array"]["succeeded"] == 3


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_map_whose_deferral_times_out_leaves_no_job_running(
    case: Any, supervisor: KillableSupervisor, worker: Any
) -> None:
    """Nothing is recorded about it."""
    supervisor.state = "deferred"
    parameters = {**map_of(case, [{}, {}]), "job_timeout": 60}
    with DAG("d", schedule=None) as dag:
        BatchMapOperator(**parameters)

    crash(start_trigger(dag), case, 2)
    failure = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(JobTimeout):
        BatchMapOperator(**parameters).resume_execution(TRIGGER_FAIL_REPR, failure, worker)
    assert [case.status(job_id) for job_id in case.started()] == ["FAILED", "FAILED"]
