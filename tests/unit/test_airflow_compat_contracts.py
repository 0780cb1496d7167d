"""What ``airflow_compat`` relies on for XComs, stores, deferrals, kills and mapped tasks, in the installed Airflow."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from airflow.executors import workloads
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.sdk import DAG, Asset, BaseOperator, BaseXCom, task
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType, TaskDeferralError, TaskDeferralTimeout
from airflow.sdk.execution_time import comms, task_runner, xcom
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.triggers.testing import SuccessTrigger

from airflow_jobflow.airflow_compat import features, xcoms
from airflow_jobflow.airflow_compat.deferrals import timed_out, timeout_of
from airflow_jobflow.airflow_compat.kills import may_be_kill
from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.airflow_compat.serialized_tasks import (
    MappedOver,
    UnsupportedMapping,
    dag_renders_natively,
    mapped_over,
)
from airflow_jobflow.airflow_compat.task_context import asset_state_store, clear_number, is_mapped, task_state_store
from tests.triggerer import Triggerer

TASK = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=3)

# XComs.


class Supervisor:
    """A supervisor that stores XComs."""

    def __init__(self) -> None:
        self.xcoms: dict[tuple[Any, ...], Any] = {}

    def send(self, msg: Any) -> Any:
        """Answer a message."""
        key = (msg.dag_id, msg.run_id, msg.task_id, msg.map_index, msg.key)
        if isinstance(msg, comms.SetXCom):
            self.xcoms[key] = msg.value
        elif isinstance(msg, comms.DeleteXCom):
            del self.xcoms[key]
        elif isinstance(msg, comms.GetXCom):
            return comms.XComResult(key=msg.key, value=self.xcoms.get(key))
        return None


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Connect Airflow to a supervisor that stores XComs."""
    made = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


class Backend(BaseXCom):
    """An XCom backend that stores values elsewhere."""

    @staticmethod
    def serialize_value(value: Any, **_: Any) -> Any:
        """Return a reference, which Airflow stores."""
        return f"elsewhere:{value}"

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return the value of a reference."""
        return result.value.removeprefix("elsewhere:")


def test_an_xcom_of_another_task_is_stored_read_and_deleted(supervisor: Supervisor) -> None:
    """A trigger's task has no process that could do it."""
    assert xcoms.get_xcom(TASK, "k") is None
    xcoms.set_xcom(TASK, "k", {"a": [1]})
    assert list(supervisor.xcoms) == [("d", "r", "t", 3, "k")]
    assert xcoms.get_xcom(TASK, "k") == {"a": [1]}
    xcoms.delete_xcom(TASK, "k")
    assert supervisor.xcoms == {}


def test_xcoms_go_through_the_configured_backend(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next task, which reads through the backend, could not read them."""
    assert xcoms.are_in_database()
    monkeypatch.setattr(xcom, "XCom", Backend)
    assert not xcoms.are_in_database()
    xcoms.set_xcom(TASK, "k", "v")
    assert list(supervisor.xcoms.values()) == ["elsewhere:v"]
    assert xcoms.get_xcom(TASK, "k") == "v"


@pytest.fixture
def _database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Return an API server's database with XComs of two instances of a task."""
    from airflow import settings
    from sqlalchemy import create_engine, insert
    from sqlalchemy.orm import sessionmaker
    from sqlalchemy.pool import StaticPool

    table: Any = XComModel.__table__
    engine = create_engine("sqlite://", poolclass=StaticPool)
    table.create(engine)
    rows = [
        {"dag_run_id": 1, "dag_id": "d", "task_id": "t", "run_id": "r", "map_index": index, "key": key, "value": value}
        for index, key, value in ((3, "k", {"a": 1}), (3, "other", 2), (4, "k", 3))
    ]
    with engine.begin() as connection:
        connection.execute(insert(table), rows)
    monkeypatch.setattr(settings, "Session", sessionmaker(engine), raising=False)
    yield
    engine.dispose()


@pytest.mark.usefixtures("_database")
def test_the_api_server_reads_xcoms_from_the_database() -> None:
    """Buttons need this to find their URLs."""
    key: Any = TASK
    assert xcoms.read_from_database(key, ["k", "absent"]) == [("k", {"a": 1})]


# Contexts.


def test_a_dag_run_has_its_clear_number() -> None:
    """An equal number proves that a task was not cleared."""
    from airflow.sdk.api.datamodels._generated import DagRun

    assert "clear_number" in DagRun.model_fields
    run = DagRun.model_construct(clear_number=2)
    context: Any = {"dag_run": run}
    assert clear_number(context) == 2
    context = {"dag_run": SimpleNamespace()}
    assert clear_number(context) == 0


@pytest.mark.parametrize("is_one_of_several", [False, True])
def test_a_task_instance_shows_whether_its_task_is_mapped(is_one_of_several: bool) -> None:
    """Another task may be mapped over the result of an unmapped one."""
    context: Any = {"ti": task_runner.RuntimeTaskInstance.model_construct(is_mapped=is_one_of_several)}
    assert "is_mapped" in task_runner.RuntimeTaskInstance.model_fields
    assert is_mapped(context) is is_one_of_several


def test_without_a_task_state_store_there_is_none() -> None:
    """Airflow 3.2 has no task state store."""
    context: Any = {}
    assert task_state_store(context) is None


@pytest.mark.needs("starts")
def test_a_task_state_store_raises_if_airflow_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that looked like an empty store would start a second job."""
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor

    class Failing:
        def send(self, _: Any) -> Any:
            raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Failing(), raising=False)
    assert "task_state_store" in Context.__annotations__
    accessor: Any = TaskStateStoreAccessor
    context: Any = {"task_state_store": accessor(ti_id=uuid4(), scope=None)}
    store: Any = task_state_store(context)
    with pytest.raises(AirflowRuntimeError):
        store.get("k")


@pytest.mark.needs("starts")
def test_several_assets_of_a_trigger_share_the_store_of_one() -> None:
    """After a restart, the trigger must find its stored data; the order of its assets is not fixed."""
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    stores = [
        asset_state_store(SimpleNamespace(asset_state_store=AssetStateStoreAccessors(inlets=[Asset(n) for n in names])))
        for names in ("ab", "ba", "a")
    ]
    assert len({vars(store)["_name"] for store in stores if store}) == 1


def test_outside_a_triggerer_an_asset_has_no_store() -> None:
    """This is also the case in Airflow 3.2."""
    assert asset_state_store(SimpleNamespace()) is None
    assert asset_state_store(SimpleNamespace(asset_state_store=None)) is None


# Deferrals and kills.


@pytest.mark.parametrize(
    ("next_method", "next_kwargs", "error"),
    [
        ("__fail__", {"error": "Trigger timeout"}, TaskDeferralTimeout),
        ("__fail__", {"error": "Trigger failure"}, TaskDeferralError),
        ("__fail__", None, TaskDeferralError),
        ("execute", {"error": "Trigger timeout"}, None),
    ],
)
def test_a_deferral_timeout_is_recognized(next_method: str, next_kwargs: Any, error: type[Exception] | None) -> None:
    """A task whose deferral timed out must look for its job, but not one whose trigger failed."""

    class Task(BaseOperator):
        def execute(self, context: Any, error: object = None) -> None: ...

    context: Any = {}
    if error is None:
        Task(task_id="t").resume_execution(next_method, next_kwargs, context)
    else:
        with pytest.raises(error):
            Task(task_id="t").resume_execution(next_method, next_kwargs, context)
    assert timed_out(next_method, next_kwargs) == (error is TaskDeferralTimeout)


@pytest.mark.parametrize("end", [None, datetime(2026, 11, 28, 12, tzinfo=UTC)])
def test_the_triggerer_knows_the_end_of_a_deferral(end: datetime | None) -> None:
    """The start of a sensor is computed from it; without it, a timeout looks like a kill."""
    found: list[datetime | None] = []

    async def run() -> None:
        runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped

        async def run_trigger(_: int, trigger: BaseTrigger, *__: object) -> None:
            found.append(timeout_of(trigger))

        runner.run_trigger = run_trigger
        runner.to_create.append(
            cast("Any", workloads).RunTrigger(
                id=1,
                ti=None,
                classpath=f"{SuccessTrigger.__module__}.{SuccessTrigger.__qualname__}",
                encrypted_kwargs=Trigger.encrypt_kwargs({}),
                timeout_after=end,
            )
        )
        await runner.create_triggers()
        await runner.triggers[1]["task"]

    asyncio.run(run())
    assert found == [end]


def test_a_time_without_a_zone_is_in_utc() -> None:
    """MySQL and SQLite return such times."""
    trigger = SimpleNamespace(timeout_after=datetime(2026, 11, 28, 12))  # noqa: DTZ001 -- on purpose
    assert timeout_of(trigger) == datetime(2026, 11, 28, 12, tzinfo=UTC)


class Waiting(BaseTrigger):
    """A trigger that waits, and records how it was cancelled."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.started = asyncio.Event()
        self.was_killed: bool | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return no arguments."""
        return "Waiting", {}

    async def run(self) -> Any:
        """Wait."""
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            self.was_killed = may_be_kill(error)
            raise
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # Airflow's is untyped


def cancelled_by(act: Any) -> bool | None:
    """Return whether a trigger treats its cancellation as a kill.

    :param act: called with the triggerer and the trigger's task.
    """

    async def run() -> bool | None:
        triggerer, trigger = Triggerer(), Waiting()
        running = triggerer.start(trigger)
        await trigger.started.wait()
        await act(triggerer, running)
        await asyncio.wait({running})
        return trigger.was_killed

    return asyncio.run(run())


def test_a_killed_task_cancels_its_trigger_as_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its job would keep running."""
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)

    async def kill(triggerer: Triggerer, running: asyncio.Task[None]) -> None:
        [number] = triggerer.runner.triggers
        triggerer.runner.to_cancel.append(number)
        await triggerer.runner.cancel_triggers()

    assert cancelled_by(kill) is True


def test_a_triggerer_that_stops_cancels_no_trigger_as_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each restart would stop all jobs."""
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    async def stop(triggerer: Triggerer, running: asyncio.Task[None]) -> None:
        signal.signal(signal.SIGTERM, triggerer.runner._handle_signal)
        signal.raise_signal(signal.SIGTERM)
        running.cancel()

    try:
        assert cancelled_by(stop) is False
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_triggerer_that_has_lost_its_supervisor_is_recognized() -> None:
    """The stream from which it reads the supervisor's messages has ended."""
    from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder

    decoder: Any = TriggerCommsDecoder
    assert "_async_reader" in {field.name for field in decoder.__attrs_attrs__}


# Tasks.


class Single(BaseOperator):
    """An operator with one or two parameters."""

    template_fields = ("a", "b")

    def __init__(self, *, a: Any = None, b: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a, self.b = a, b


def mapped(make: Any) -> Any:
    """Return the task ``t`` of a DAG as Airflow has serialized it."""
    with DAG("d", schedule=None) as dag:
        make()
    again: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    return again.get_task("t")


def listing() -> Any:
    """Return a list."""
    return Single(task_id="list").output


def item_of(value: Any) -> Any:
    """Return an item that a task is mapped over, for an item that another task has returned."""
    return value


def listings() -> Any:
    """Return an item from each mapped instance."""
    return Single.partial(task_id="lists").expand(a=[1, 2]).output


@pytest.mark.needs("starts")
@pytest.mark.parametrize(
    ("make", "over"),
    [
        (lambda: Single(task_id="t", a=1), None),
        (lambda: Single.partial(task_id="t").expand(a=[1, 2]), MappedOver("a", [1, 2])),
        (
            lambda: Single.partial(task_id="t").expand(a=listing()),
            MappedOver("a", task_id="list", key="return_value"),
        ),
        (
            lambda: Single.partial(task_id="t").expand(a=listings()),
            MappedOver("a", task_id="lists", key="return_value", is_mapped=True),
        ),
    ],
    ids=["not mapped", "a list", "a task", "a mapped task"],
)
def test_a_trigger_learns_what_its_task_is_mapped_over(make: Any, over: MappedOver | None) -> None:
    """Airflow does not resolve it in a triggerer."""
    assert mapped_over(mapped(make)) == over


@pytest.mark.needs("starts")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Single.partial(task_id="t").expand(a=[1], b=[2]), "more than one parameter"),
        (lambda: Single.partial(task_id="t").expand_kwargs([{"a": 1}]), "more than one parameter, or by expand_kwargs"),
        (lambda: Single.partial(task_id="t").expand(a={"x": 1}), "over a dict"),
        (lambda: Single.partial(task_id="t").expand(a=listing().map(item_of)), "not a list"),
    ],
    ids=["two", "kwargs", "dict", "a map of a task"],
)
def test_a_mapping_that_only_a_worker_resolves_is_recognized(make: Any, reason: str) -> None:
    """Otherwise a trigger would wait for the wrong item."""
    with pytest.raises(UnsupportedMapping, match=reason):
        mapped_over(mapped(make))


@pytest.mark.needs("starts")
def test_a_mapped_task_in_a_mapped_task_group_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.3 rejects one when the DAG is parsed; a later one may not."""
    inside = mapped(lambda: Single.partial(task_id="t").expand(a=[1]))
    monkeypatch.setattr(type(inside), "get_closest_mapped_task_group", lambda _: object())
    with pytest.raises(UnsupportedMapping, match="mapped task group"):
        mapped_over(inside)


@pytest.mark.needs("starts")
@pytest.mark.parametrize("natively", [False, True])
def test_a_trigger_learns_how_its_dag_renders(natively: bool) -> None:
    """Native rendering happens on a worker."""
    with DAG("d", schedule=None, render_template_as_native_obj=natively) as dag:
        Single(task_id="t")
    again: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert dag_renders_natively(again.get_task("t")) is natively


@pytest.mark.parametrize("of_dag", [False, True])
@pytest.mark.parametrize("of_task", [None, False, True])
def test_an_operator_knows_how_it_renders(of_task: bool | None, of_dag: bool) -> None:
    """The task's own parameter takes precedence."""
    with DAG("d", schedule=None, render_template_as_native_obj=of_dag):
        made = Single(task_id="t", render_template_as_native_obj=of_task)
    assert features.renders_natively(made) is (of_dag if of_task is None else of_task)
    assert features.renders_natively(Single(task_id="t", render_template_as_native_obj=of_task)) is bool(of_task)


def test_a_task_uses_only_features_that_are_set() -> None:
    """Default values are not features; values from a policy or ``default_args`` are."""
    with DAG("d", schedule=None, default_args={"retries": 2}):
        made = Single(task_id="t", a=1, retry_delay=timedelta(seconds=300), outlets=[Asset("x")], on_retry_callback=[])
    used = {"task_id", "dag", "_dag", "task_group", "retries", "outlets"}
    assert features.features_in_use(made) == used
    made.pool = "small"
    assert features.features_in_use(made) == used | {"pool"}
    assert features.features_in_use(made, besides=frozenset(used)) == {"pool"}


def test_a_value_that_cannot_be_compared_counts_as_used() -> None:
    """For example, comparing an array raises an error."""

    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]

    assert features.features_in_use({"executor_config": Incomparable()}) == {"executor_config"}


def test_a_task_that_another_is_mapped_over_is_recognized() -> None:
    """Only a worker records the length of its list."""

    @task
    def use(item: Any) -> None: ...

    with DAG("d", schedule=None):
        first, second, third = (Single(task_id=name) for name in "abc")
        use.expand(item=first.output)
        use.override(task_id="plain")(second.output)
    found = [features.feeds_mapped_task(each) for each in (first, second, third, Single(task_id="alone"))]
    assert found == [True, False, False, False]


@pytest.mark.parametrize("name", ["incr", "gauge", "timing"])
def test_metrics_have_the_functions_that_are_called(name: str) -> None:
    """A missing function would end a wait."""
    getattr(stats, name)("jobflow.test", 1)
