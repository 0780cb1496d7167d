"""What starts and ends in the triggerer, and what needs a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, task
from airflow.sdk.listener import get_listener_manager
from airflow.serialization.serialized_objects import DagSerialization
from jinja2 import Undefined

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN


def nothing(*_: Any) -> None:
    """Do nothing, as a callback or a hook."""


class Derived(BatchJobSensor):
    """A sensor of somebody else, which may do anything."""


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
def test_what_the_triggerer_renders_as_a_worker_does(value: object) -> None:
    """Starts there."""
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
def test_what_only_a_worker_renders(value: object) -> None:
    """Starts on a worker: in the triggerer it would hang, fail, or come out otherwise."""
    assert not trigger_eligibility.renderable(value)


def test_what_is_rendered_natively_is_rendered_on_a_worker() -> None:
    """In the triggerer it would come out as text; what holds no template stays what it is."""
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
    """Also as a mapped task."""
    given = {"task_id": "s", "job_id": "a", **options}
    with DAG("d", schedule=None):
        assert not BatchJobSensor(**given).start_from_trigger
    if "job_id" not in options:
        del given["job_id"]
        with DAG("d", schedule=None):
            assert not BatchJobSensor.partial(**given).expand(job_id=["a"]).start_from_trigger


def test_a_sensor_with_an_xcomarg_starts_on_a_worker() -> None:
    """Airflow does not resolve it anywhere else."""
    with DAG("d", schedule=None):
        arg: Any = BaseOperator(task_id="x").output
        assert not BatchJobSensor(task_id="s", job_id=arg).start_from_trigger


def test_a_sensor_derived_from_ours_starts_and_ends_on_a_worker() -> None:
    """It may do anything in a method of its own."""
    assert not Derived(task_id="s", job_id="a").start_from_trigger
    assert not Derived.partial(task_id="s").expand(job_id=["a"]).start_from_trigger
    assert not trigger_eligibility.is_ours(Derived)


@pytest.mark.needs("starts")
def test_what_is_set_after_a_sensor_was_made_counts() -> None:
    """A DAG may set attributes later, such as in a policy."""
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
def test_the_start_of_a_task_can_be_reckoned_from_its_deadline(
    options: dict[str, Any], net: float, seconds: float
) -> None:
    """Airflow tells a trigger only when its time is over, which is the earlier of two moments."""
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
    """What Airflow has serialized of a task: what a trigger sees of it."""
    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task(task_id)


@pytest.mark.parametrize("options", [*LOST, *HOOKS], ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("operator", [BatchJobSensor, BatchJobOperator])
def test_what_a_worker_alone_brings_about_is_not_lost(operator: Any, options: dict[str, Any]) -> None:
    """Such a task ends on a worker."""
    required = {"job_id": "a"} if operator is BatchJobSensor else dict.fromkeys(
        ("job_name", "job_queue", "job_definition"), "a"
    )  # fmt: skip
    assert trigger_eligibility.may_end(operator(task_id="s", **required), is_mapped=False)
    assert not trigger_eligibility.may_end(operator(task_id="s", **required, **options), is_mapped=False)


@pytest.mark.parametrize("options", LOST, ids=lambda each: next(iter(each)))
def test_a_trigger_sees_that_something_would_be_lost(options: dict[str, Any]) -> None:
    """In what was serialized of a sensor that it starts, mapped or not. Hooks are not serialized: they need a worker
    from the start.
    """
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
    """Only a worker says how long the list is."""

    @task
    def use(outcome: Any) -> None: ...

    with DAG("d", schedule=None) as dag:
        sensor = BatchJobSensor(task_id="s", job_id=["a", "b"])
        use.expand(outcome=sensor.output)
    assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    assert not trigger_eligibility.may_end(serialized(dag), is_mapped=False)


def test_where_a_listener_listens_a_worker_tells_it() -> None:
    """Such as OpenLineage's: Airflow calls listeners on workers only."""
    sensor, listener = BatchJobSensor(task_id="s", job_id="a"), object()
    assert trigger_eligibility.may_end(sensor, is_mapped=False)
    get_listener_manager().pm.register(listener)
    try:
        assert not trigger_eligibility.may_end(sensor, is_mapped=False)
    finally:
        get_listener_manager().pm.unregister(listener)


def test_the_setting_has_every_task_end_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """``[jobflow] end_in_trigger = never``."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__END_IN_TRIGGER", "never")
    assert not trigger_eligibility.may_end(BatchJobSensor(task_id="s", job_id="a"), is_mapped=False)


@pytest.mark.parametrize(
    "options", [{"jinja_environment_kwargs": {"variable_start_string": "[["}}, {"template_undefined": Undefined}]
)
def test_a_dag_that_renders_by_rules_of_its_own_has_its_sensors_start_on_workers(options: dict[str, Any]) -> None:
    """The triggerer does not know them: it would take ``[[ params.x ]]`` for an id."""
    with DAG("d", schedule=None, **options):
        assert not BatchJobSensor(task_id="s", job_id="[[ params.x ]]").start_from_trigger
        assert not BatchJobSensor.partial(task_id="m").expand(job_id=["a"]).start_from_trigger


def test_where_triggerers_have_queues_a_sensor_starts_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow gives a trigger the queue of its task only if a worker defers it; without one nobody might run it."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    assert not BatchJobSensor(task_id="s", job_id="a").start_from_trigger


@pytest.mark.parametrize(
    "options", [{"on_execute_callback": nothing}, {"max_active_tis_per_dag": 1}, {"pool": "small"}]
)
def test_the_defaults_of_a_dag_count(options: dict[str, Any]) -> None:
    """Also for a mapped task."""
    with DAG("d", schedule=None, default_args=options):
        assert not BatchJobSensor(task_id="s", job_id="a").start_from_trigger
        assert not BatchJobSensor.partial(task_id="m").expand(job_id=["a"]).start_from_trigger
    with DAG("d", schedule=None, default_args={"on_success_callback": nothing}) as dag:
        BatchJobSensor(task_id="s", job_id="a")
        BatchJobSensor.partial(task_id="m").expand(job_id=["a"])
    for task_id in ("s", "m"):
        assert not trigger_eligibility.may_end(serialized(dag, task_id), is_mapped=task_id == "m")


def test_where_a_success_clears_the_state_of_a_task_a_worker_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow does not where a trigger ends it; sensors keep none."""
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    required: Any = dict.fromkeys(("job_name", "job_queue", "job_definition"), "a")
    assert not trigger_eligibility.may_end(BatchJobOperator(task_id="o", **required), is_mapped=False)
    assert trigger_eligibility.may_end(BatchJobSensor(task_id="s", job_id="a"), is_mapped=False)


@pytest.mark.needs("starts")
def test_a_sensor_whose_outcome_is_the_result_of_the_dag_starts_on_a_worker() -> None:
    """Airflow serializes nothing of it, so the triggerer would not know."""
    with DAG("d", schedule=None) as dag:
        sensor = BatchJobSensor(task_id="s", job_id="a")
        dag.add_result(sensor.output)
    assert not serialized(dag).start_from_trigger
