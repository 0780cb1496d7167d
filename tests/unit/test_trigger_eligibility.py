"""Which tasks start and end in the triggerer, and which need a worker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator, task
from airflow.sdk.listener import get_listener_manager
from airflow.serialization.serialized_objects import DagSerialization
from jinja2 import Undefined

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.airflow_compat import features
from airflow_jobflow.airflow_compat.serialized_tasks import UnsupportedMapping, mapped_over
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN


def nothing(*_: Any) -> None:
    """Do nothing, as a callback or hook."""


class Derived(BatchJobSensor):
    """A user's sensor, which may do anything."""


@pytest.mark.parametrize(
    "value",
    [
        "job",
        None,
        3,
        timedelta(seconds=3),
        datetime(2026, 11, 22, tzinfo=UTC),
        ["a", {"job_id": "{{ run_id }}"}],
        "{{ params.job }} {{ dag_run.conf['x'] }} {{ var.value.x }} {{ conn.x.host }} {{ ds }}",
        "{{ ti.xcom_pull('x', map_indexes=-1)['job_id'] }}",
        "{{ task_instance.xcom_pull(task_ids='x', map_indexes=ti.map_index) }}",
        "{% for x in params.jobs %}{{ x }}{% endfor %}",
    ],
)
def test_a_value_that_the_triggerer_renders_correctly(value: object) -> None:
    """The sensor starts in the triggerer."""
    assert trigger_eligibility.renderable(value)


@pytest.mark.parametrize(
    "value",
    [
        "{{ ti.xcom_pull('x') }}",
        "{{ ti.xcom_pull('x', map_indexes=-1) }}{{ ti.xcom_pull('y') }}",
        "{{ ti['xcom_pull']('x') }}",
        "{% set pull = ti.xcom_pull %}{{ pull('x') }}",
        "{{ ti.get_dagrun() }}",
        "{% set instance = ti %}{{ instance.xcom_pull('x', map_indexes=-1) }}",
        "{{ my_macro(1) }}",
        "{{ triggering_asset_events }}",
        "{{ broken",
        "{{ logical_date | ds_nodash }}",
        "{{ params.job | my_filter }}",
        ["{{ ti.xcom_pull('x') }}"],
        {"a": "{{ ti.xcom_pull('x') }}"},
        {1: "a"},
        object(),
        nothing,
    ],
)
def test_a_value_that_only_a_worker_renders(value: object) -> None:
    """The sensor starts on a worker; in the triggerer, rendering would hang, fail, or return another value."""
    assert not trigger_eligibility.renderable(value)


@pytest.mark.parametrize(
    "template",
    [
        "n-{{ macros.uuid.uuid4() }}",
        "n-{{ macros.datetime.now() }}",
        "{{ [1, 2] | random }}",
        "{% set m = macros %}{{ m.random() }}",
    ],
)
def test_a_template_that_renders_differently_each_time_needs_a_worker(template: str) -> None:
    """A trigger that replaces another one would look for a job of another name, and start a second one."""
    assert not trigger_eligibility.renderable(template)
    assert trigger_eligibility.renderable("n-{{ macros.ds_add(ds, 1) }}-{{ logical_date + macros.timedelta(days=1) }}")


def test_native_rendering_needs_a_worker() -> None:
    """In the triggerer, a template renders to a string; a value without a template does not change."""
    assert not trigger_eligibility.renderable("{{ params.jobs }}", natively=True)
    assert trigger_eligibility.renderable(["a", "b"], natively=True)


@pytest.mark.parametrize(
    "options",
    [
        {"on_execute_callback": nothing},
        {"pre_execute": nothing},
        {"post_execute": nothing},
        {"multiple_outputs": True},
        {"deferrable": False},
        {"start_from_trigger": False},
        {"job_id": "{{ ti.xcom_pull('x') }}"},
        {"region_name": "{{ my_macro() }}"},
        {"inlets": [Asset("x")]},
        {"pool": "small"},
        {"max_active_tis_per_dag": 1},
        {"max_active_tis_per_dagrun": 1},
        {"render_template_as_native_obj": True},
    ],
)
def test_a_sensor_that_needs_a_worker_starts_on_one(options: dict[str, Any]) -> None:
    """Mapped tasks are included."""
    given = {"task_id": "s", "job_id": "a", **options}
    with DAG("d", schedule=None):
        assert not BatchJobSensor(**given).start_from_trigger
    if "job_id" not in options:
        del given["job_id"]
        with DAG("d", schedule=None):
            assert not BatchJobSensor.partial(**given).expand(job_id=["a"]).start_from_trigger


def test_a_sensor_with_an_xcomarg_starts_on_a_worker() -> None:
    """Only a worker resolves it."""
    with DAG("d", schedule=None):
        arg: Any = BaseOperator(task_id="x").output
        assert not BatchJobSensor(task_id="s", job_id=arg).start_from_trigger


def test_a_sensor_derived_from_ours_starts_and_ends_on_a_worker() -> None:
    """Its own methods may do anything."""
    assert not Derived(task_id="s", job_id="a").start_from_trigger
    assert not Derived.partial(task_id="s").expand(job_id=["a"]).start_from_trigger
    assert not trigger_eligibility.is_ours(Derived)


@pytest.mark.needs("starts")
def test_an_attribute_that_is_set_later_counts() -> None:
    """A DAG file or a cluster policy may set it."""
    sensor = BatchJobSensor(task_id="s", job_id="a")
    assert sensor.start_from_trigger
    sensor.on_execute_callback = [nothing]
    assert not sensor.start_from_trigger


@pytest.mark.parametrize(
    ("options", "net", "seconds"),
    [
        ({"job_timeout": 100}, 100 + DEFERRAL_TIMEOUT_MARGIN, 100 + DEFERRAL_TIMEOUT_MARGIN),
        ({"job_timeout": "100", "execution_timeout": timedelta(seconds=70)}, 100 + DEFERRAL_TIMEOUT_MARGIN, 70),
        ({"timeout": 50, "job_timeout": "{{ params.x }}"}, 50 + DEFERRAL_TIMEOUT_MARGIN, 50 + DEFERRAL_TIMEOUT_MARGIN),
        ({"timeout": 50, "job_timeout": "nonsense"}, 50 + DEFERRAL_TIMEOUT_MARGIN, 50 + DEFERRAL_TIMEOUT_MARGIN),
        ({}, 7 * 86400 + DEFERRAL_TIMEOUT_MARGIN, 7 * 86400 + DEFERRAL_TIMEOUT_MARGIN),
    ],
)
@pytest.mark.needs("starts")
def test_the_start_of_a_task_can_be_computed_from_its_deadline(
    options: dict[str, Any], net: float, seconds: float
) -> None:
    """A trigger gets only the end of its wait, which is the earlier of two times."""
    start = BatchJobSensor(task_id="s", job_id="a", **options).start_trigger_args
    assert start is not None
    assert start.timeout == timedelta(seconds=net)
    assert start.trigger_kwargs is not None
    assert start.trigger_kwargs["seconds"] == seconds


LOST: list[dict[str, Any]] = [
    {"outlets": [Asset("x")]},
    {"on_success_callback": nothing},
    {"on_execute_callback": nothing},
    {"map_index_template": "{{ task.task_id }}"},
    {"multiple_outputs": True},
]
HOOKS: list[dict[str, Any]] = [{"pre_execute": nothing}, {"post_execute": nothing}]


def serialized(dag: DAG, task_id: str = "s") -> Any:
    """Return a task as Airflow has serialized it for a trigger."""
    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task(task_id)


@pytest.mark.parametrize("options", [*LOST, *HOOKS], ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("operator", [BatchJobSensor, BatchJobOperator])
def test_a_feature_that_only_a_worker_has_is_not_lost(operator: Any, options: dict[str, Any]) -> None:
    """The task ends on a worker."""
    required = {"job_id": "a"} if operator is BatchJobSensor else dict.fromkeys(
        ("job_name", "job_queue", "job_definition"), "a"
    )  # fmt: skip
    assert trigger_eligibility.may_end(operator(task_id="s", **required), is_mapped=False)
    assert not trigger_eligibility.may_end(operator(task_id="s", **required, **options), is_mapped=False)


@pytest.mark.parametrize("options", LOST, ids=lambda each: next(iter(each)))
def test_a_trigger_sees_that_a_feature_would_be_lost(options: dict[str, Any]) -> None:
    """The feature is in the serialized task, mapped or not. Hooks are not, so a sensor with one starts on a worker."""
    with DAG("d", schedule=None) as dag:
        BatchJobSensor(task_id="s", job_id="a", **options)
        BatchJobSensor.partial(task_id="m", **options).expand(job_id=["a"])
        BatchJobSensor(task_id="fine", job_id="a")
        BatchJobSensor.partial(task_id="also_fine").expand(job_id=["a"])
    for task_id in ("s", "m"):
        each = serialized(dag, task_id)
        assert not each.start_from_trigger or not trigger_eligibility.may_end(each, is_mapped=each.is_mapped)
    for task_id in ("fine", "also_fine"):
        each = serialized(dag, task_id)
        assert trigger_eligibility.may_end(each, is_mapped=each.is_mapped)


def test_a_task_that_another_is_mapped_over_ends_on_a_worker() -> None:
    """Only a worker records the length of the list."""

    @task
    def use(outcome: Any) -> None: ...

    with DAG("d", schedule=None) as dag:
        sensor = BatchJobSensor(task_id="s", job_id=["a", "b"])
        use.expand(outcome=sensor.output)
    assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    assert not trigger_eligibility.may_end(serialized(dag), is_mapped=False)


def test_a_listener_needs_a_worker() -> None:
    """Airflow calls listeners, such as OpenLineage's, only on workers."""
    sensor, listener = BatchJobSensor(task_id="s", job_id="a"), object()
    assert trigger_eligibility.may_end(sensor, is_mapped=False)
    get_listener_manager().pm.register(listener)
    try:
        assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    finally:
        get_listener_manager().pm.unregister(listener)
    assert trigger_eligibility.may_end(sensor, is_mapped=False)


def test_every_task_ends_on_a_worker_if_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is ``[jobflow] end_in_trigger = never``."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__END_IN_TRIGGER", "never")
    assert not trigger_eligibility.may_end(BatchJobSensor(task_id="s", job_id="a"), is_mapped=False)


@pytest.mark.parametrize(
    "options",
    [
        {"jinja_environment_kwargs": {"variable_start_string": "[["}},
        {"template_undefined": Undefined},
        {"user_defined_filters": {"upper": str.lower}},
        {"user_defined_macros": {"ds": "yesterday"}},
    ],
    ids=lambda each: next(iter(each)),
)
def test_sensors_of_a_dag_that_customizes_rendering_start_on_workers(options: dict[str, Any]) -> None:
    """Airflow does not serialize the rules: the triggerer would use ``[[ params.x ]]`` as an id."""
    with DAG("d", schedule=None, **options):
        assert not BatchJobSensor(task_id="s", job_id="[[ params.x ]]").start_from_trigger
        assert not BatchJobSensor.partial(task_id="m").expand(job_id=["a"]).start_from_trigger


def test_with_trigger_queues_a_sensor_starts_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow sets a trigger's queue only if a worker defers the task; without one, no triggerer might run it."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    assert not BatchJobSensor(task_id="s", job_id="a").start_from_trigger


@pytest.mark.parametrize(
    "options", [{"on_execute_callback": nothing}, {"max_active_tis_per_dag": 1}, {"pool": "small"}]
)
def test_default_args_of_a_dag_count(options: dict[str, Any]) -> None:
    """Mapped tasks are included."""
    with DAG("d", schedule=None, default_args=options):
        assert not BatchJobSensor(task_id="s", job_id="a").start_from_trigger
        assert not BatchJobSensor.partial(task_id="m").expand(job_id=["a"]).start_from_trigger
    with DAG("d", schedule=None, default_args={"on_success_callback": nothing}) as dag:
        BatchJobSensor(task_id="s", job_id="a")
        BatchJobSensor.partial(task_id="m").expand(job_id=["a"])
    for task_id in ("s", "m"):
        assert not trigger_eligibility.may_end(serialized(dag, task_id), is_mapped=task_id == "m")


def test_a_task_whose_state_is_cleared_on_success_ends_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow does not clear the state when a trigger ends the task. Sensors have no state."""
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    required: Any = dict.fromkeys(("job_name", "job_queue", "job_definition"), "a")
    assert not trigger_eligibility.may_end(BatchJobOperator(task_id="o", **required), is_mapped=False)
    assert trigger_eligibility.may_end(BatchJobSensor(task_id="s", job_id="a"), is_mapped=False)


@pytest.mark.needs("starts")
def test_a_sensor_whose_outcome_is_the_result_of_the_dag_starts_on_a_worker() -> None:
    """Airflow does not serialize this, so a triggerer would not know it."""
    with DAG("d", schedule=None) as dag:
        sensor = BatchJobSensor(task_id="s", job_id="a")
        dag.add_result(sensor.output)
    assert not serialized(dag).start_from_trigger


# Features of a newer Airflow.

FIELDS = {"hand_over": None, "notify_at_end": False}
"""Features that no Airflow has: a parameter and an attribute."""


@pytest.fixture
def newer_airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulate an Airflow whose operators have an unknown parameter, under another name, and an unknown attribute."""
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator

    original: Callable[..., None] = BaseOperator.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, hand_over: object = None, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._handing_over = hand_over
        if hand_over is not None:
            self._BaseOperator__init_kwargs["hand_over"] = hand_over

    parameters = inspect.signature(original).parameters
    more = inspect.Parameter("hand_over", inspect.Parameter.KEYWORD_ONLY, default=None)
    *positional, last = parameters.values()
    init.__signature__ = inspect.Signature([*positional, more, last])  # type: ignore[attr-defined]
    serialized_base: Any = SerializedBaseOperator
    fields = serialized_base.get_serialized_fields() | {"hand_over"}
    monkeypatch.setattr(BaseOperator, "__init__", init)
    monkeypatch.setattr(BaseOperator, "notify_at_end", False, raising=False)
    monkeypatch.setattr(SerializedBaseOperator, "get_serialized_fields", classmethod(lambda _: fields))
    monkeypatch.setattr(SerializedBaseOperator, "notify_at_end", False, raising=False)
    for cached in (features._declared, features._declared_by_serialized):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (features._declared, features._declared_by_serialized):
        cached.cache_clear()


@pytest.mark.usefixtures("newer_airflow")
@pytest.mark.needs("starts")
def test_a_task_that_does_not_use_an_unknown_feature_needs_no_worker() -> None:
    """Otherwise, every task would need one with the next Airflow."""
    sensor = BatchJobSensor(task_id="s", job_id="a")
    assert sensor.start_from_trigger
    assert trigger_eligibility.may_end(sensor, is_mapped=False)


@pytest.mark.usefixtures("newer_airflow")
@pytest.mark.parametrize("operator", [BatchJobSensor, BatchJobOperator])
def test_a_task_with_an_unknown_parameter_starts_and_ends_on_a_worker(operator: Any) -> None:
    """The triggerer might ignore it. Mapped tasks are included."""
    required = {"job_id": "a"} if operator is BatchJobSensor else dict.fromkeys(
        ("job_name", "job_queue", "job_definition"), "a"
    )  # fmt: skip
    made = operator(task_id="s", hand_over="x", **required)
    assert not trigger_eligibility.may_end(made, is_mapped=False)
    assert trigger_eligibility.why_not_start(operator, vars(made), {})
    assert trigger_eligibility.why_not_start(operator, {"task_id": "s", "hand_over": "x", **required}, {})


@pytest.mark.usefixtures("newer_airflow")
def test_a_task_with_an_unknown_attribute_starts_and_ends_on_a_worker() -> None:
    """A DAG or a policy sets it after the task was created."""
    sensor: Any = BatchJobSensor(task_id="s", job_id="a")
    sensor.notify_at_end = True
    assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    assert not sensor.start_from_trigger


@pytest.mark.usefixtures("newer_airflow")
@pytest.mark.parametrize("task_id", ["s", "m"])
@pytest.mark.parametrize("feature", FIELDS)
def test_a_trigger_sees_an_unknown_feature_of_its_task(task_id: str, feature: str) -> None:
    """The feature is in the serialized task, mapped or not."""
    with DAG("d", schedule=None) as dag:
        BatchJobSensor(task_id="s", job_id="a")
        BatchJobSensor.partial(task_id="m").expand(job_id=["a"])
    each = serialized(dag, task_id)
    assert features.features_in_use(each, besides=trigger_eligibility.MAY_END_WITH) == set()
    if each.is_mapped:
        each.partial_kwargs[feature] = True
    else:
        setattr(each, feature, True)
    assert features.features_in_use(each, besides=trigger_eligibility.MAY_END_WITH) == {feature}
    assert not trigger_eligibility.may_end(each, is_mapped=each.is_mapped)


def test_a_trigger_sees_an_unknown_way_of_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would wait for the wrong item."""
    from airflow.serialization.definitions.mappedoperator import SerializedMappedOperator

    base: Any = SerializedMappedOperator
    fields = base.get_serialized_fields() | {"map_order"}
    monkeypatch.setattr(base, "get_serialized_fields", classmethod(lambda _: fields))
    with DAG("d", schedule=None) as dag:
        BatchJobSensor.partial(task_id="m").expand(job_id=["a"])
    each = serialized(dag, "m")
    assert trigger_eligibility.may_end(each, is_mapped=True)
    assert mapped_over(each)
    each.map_order = "reversed"
    assert not trigger_eligibility.may_end(each, is_mapped=True)
    with pytest.raises(UnsupportedMapping, match="map_order"):
        mapped_over(each)


@pytest.mark.parametrize("method", ["execute", "on_kill", "post_execute"])
def test_a_method_that_a_dag_replaces_needs_a_worker(method: str) -> None:
    """The triggerer would not call it."""
    sensor = BatchJobSensor(task_id="s", job_id="a")
    setattr(sensor, method, nothing)
    assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    assert not sensor.start_from_trigger


NEED_A_WORKER = {
    "inlets", "max_active_tis_per_dag", "max_active_tis_per_dagrun", "multiple_outputs", "on_execute_callback", "pool",
    "post_execute", "pre_execute", "render_template_as_native_obj",
}  # fmt: skip
"""Parameters with which a sensor does not start in the triggerer."""


def test_each_parameter_of_airflow_is_classified() -> None:
    """A new one needs a worker until someone reads what it does, and adds it here or to a list."""
    parameters = {
        name
        for base in (BaseOperator, BaseSensorOperator)
        for name, each in inspect.signature(base).parameters.items()
        if each.kind is not each.VAR_KEYWORD
    }
    assert parameters - trigger_eligibility.MAY_START_WITH == NEED_A_WORKER


def test_the_lists_contain_only_features_of_airflow() -> None:
    """A misspelled one would leave the real one unclassified."""
    declared = features._declared(BaseSensorOperator).keys() | features._declared_by_serialized().keys()
    later = {"retry_policy", "has_retry_policy"}  # Airflow 3.3
    assert declared | later >= trigger_eligibility.MAY_END_WITH | trigger_eligibility.MAY_START_WITH
