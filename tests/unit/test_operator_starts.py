"""Which operators start in the triggerer, how Airflow learns that, and what is logged if one cannot."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import EcsMapOperator, EcsTaskOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.waiting.trigger_start import NEVER, log_why_on_worker

pytestmark = pytest.mark.needs("starts")

BATCH: dict[str, Any] = {"job_name": "n-{{ ds }}", "job_queue": "q", "job_definition": "d"}
KINDS: list[tuple[Any, dict[str, Any]]] = [
    (BatchJobOperator, BATCH),
    (BatchMapOperator, {**BATCH, "items": [{}, {}]}),
    (EcsTaskOperator, {"cluster": "c", "task_definition": "t"}),
    (EcsMapOperator, {"cluster": "c", "task_definition": "t", "items": [{}]}),
    (FargateTaskOperator, {"cluster": "c", "task_definition": "t", "subnets": ["s"]}),
    (GlueJobRunOperator, {"job_name": "j"}),
]


def serialized(dag: DAG, task_id: str = "s") -> Any:
    """Return a task as the scheduler and a trigger see it."""
    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).get_task(task_id)


@pytest.mark.parametrize("each_kind", KINDS, ids=lambda each: each[0].__name__)
@pytest.mark.parametrize(("setting", "asked", "starts"), [
    ("sensors", None, False), ("all", None, True), ("none", None, False),
    ("none", True, True), ("sensors", True, True), ("all", False, False),
])  # fmt: skip
def test_the_setting_decides_if_the_task_does_not(
    each_kind: Any, setting: str, asked: bool | None, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This applies to operators, single and mapped, as the scheduler reads them."""
    kind, given = each_kind
    monkeypatch.setenv("AIRFLOW__JOBFLOW__START_FROM_TRIGGER", setting)
    of_task = {} if asked is None else {"start_from_trigger": asked}
    with DAG("d", schedule=None) as dag:
        kind(task_id="s", **given, **of_task)
        kind.partial(task_id="m", **given, **of_task).expand(poll_interval=[1, 2])
    for task_id in ("s", "m"):
        each = serialized(dag, task_id)
        assert each.start_from_trigger is starts
        assert (each.start_trigger_args is not None) is starts


def test_sensors_start_in_the_triggerer_unless_the_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is their default."""
    found = {}
    for setting in ("sensors", "all", "none", "nonsense"):
        monkeypatch.setenv("AIRFLOW__JOBFLOW__START_FROM_TRIGGER", setting)
        found[setting] = BatchJobSensor(task_id="s", job_id="a").start_from_trigger
    assert found == {"sensors": True, "all": True, "none": False, "nonsense": False}


def test_default_args_may_set_start_from_trigger() -> None:
    """Mapped tasks are included."""
    with DAG("d", schedule=None, default_args={"start_from_trigger": True}) as dag:
        BatchJobOperator(task_id="s", **BATCH)
        BatchJobOperator.partial(task_id="m", **BATCH).expand(array_size=[2, 3])
    assert serialized(dag).start_from_trigger
    assert serialized(dag, "m").start_from_trigger


@pytest.mark.parametrize("level", ["dag", "group", "task"])
def test_default_args_reach_the_triggerer(level: str) -> None:
    """Airflow itself merges only those into a mapped task that every operator has: the connection would be another."""
    defaults: Any = {name: {"default_args": {"aws_conn_id": name}} for name in ("dag", "group", "task")}
    none: dict[str, Any] = {}
    with (
        DAG("d", schedule=None, **defaults["dag"]) as dag,
        TaskGroup("g", **(defaults["group"] if level != "dag" else none)),
    ):
        of_task = defaults["task"] if level == "task" else none
        BatchJobSensor.partial(task_id="m", **of_task).expand(job_id=["a"])
    mapped: Any = dag.get_task("g.m")
    assert mapped.start_trigger_args.trigger_kwargs["arguments"]["aws_conn_id"] == level


def test_only_set_parameters_are_stored_with_each_trigger() -> None:
    """Thousands of triggers are decrypted on the triggerer's event loop."""
    start = BatchJobOperator(task_id="s", start_from_trigger=True, **BATCH).start_trigger_args
    assert start
    assert (start.trigger_kwargs or {})["arguments"] == BATCH
    assert start.next_method == "execute_complete"


@pytest.mark.parametrize(
    ("options", "timeout", "seconds"),
    [
        ({}, NEVER, NEVER),
        ({"job_timeout": "{{ params.x }}"}, NEVER, NEVER),
        ({"job_timeout": 100}, 160, 160),
        ({"job_timeout": 100, "execution_timeout": timedelta(seconds=70)}, 160, 70),
        ({"execution_timeout": timedelta(seconds=70)}, NEVER, 70),
    ],
)
def test_airflow_ends_the_deferral_a_while_after_the_deadline(
    options: dict[str, Any], timeout: float, seconds: float
) -> None:
    """The trigger computes the start of the task from that end, so there always is one."""
    start = BatchJobOperator(task_id="s", start_from_trigger=True, **BATCH, **options).start_trigger_args
    assert start
    assert start.timeout == timedelta(seconds=timeout)
    assert (start.trigger_kwargs or {})["seconds"] == seconds


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pool": "small"}, "uses pool"),
        ({"queue": "gpu"}, "uses queue"),
        ({"executor_config": {"a": 1}}, "uses executor_config"),
        ({"run_as_user": "u"}, "uses run_as_user"),
        ({"max_active_tis_per_dag": 1}, "uses max_active_tis_per_dag"),
        ({"max_active_tis_per_dagrun": 1}, "uses max_active_tis_per_dagrun"),
        ({"on_execute_callback": print}, "uses on_execute_callback"),
        ({"wait_for_completion": False}, "does not wait"),
        ({"durable": False}, "cannot be found again"),
        ({"deferrable": False}, "waits on a worker"),
        ({"command": ["{{ ti.xcom_pull('x') }}"]}, "can render command"),
        ({"parameters": {str(number): "a" for number in range(10_000)}}, "more than 10,000 values"),
    ],
)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_the_log_says_why_a_task_starts_on_a_worker(
    options: dict[str, Any], why: str, is_mapped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The task has start_from_trigger=True, single or mapped."""
    options = {"start_from_trigger": True, **BATCH, **options}
    with DAG("d", schedule=None) as dag:
        if is_mapped:
            BatchJobOperator.partial(task_id="s", **options).expand(vcpus=[1, 2])
        else:
            BatchJobOperator(task_id="s", **options)
    assert not serialized(dag).start_from_trigger
    with caplog.at_level(logging.INFO):
        log_why_on_worker(SimpleNamespace(dag=dag, task_id="s", log=logging.getLogger("task")))
    [line] = [record.getMessage() for record in caplog.records if record.name == "task"]
    assert line.startswith("start_from_trigger=True has no effect: ")
    assert why in line


def test_nothing_is_logged_without_start_from_trigger(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting ``all``, many tasks need a worker."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__START_FROM_TRIGGER", "all")
    with DAG("quiet", schedule=None) as dag:
        assert not BatchJobOperator(task_id="s", pool="small", **BATCH).start_from_trigger
    with caplog.at_level(logging.INFO):
        log_why_on_worker(SimpleNamespace(dag=dag, task_id="s", log=logging.getLogger("task")))
    assert not [record for record in caplog.records if record.name == "task"]


def test_a_crawl_starts_on_a_worker() -> None:
    """A trigger that replaces another one could not find the crawl."""
    assert not GlueCrawlOperator(task_id="s", crawler_name="c", start_from_trigger=True).start_from_trigger


def test_an_operator_with_an_xcomarg_starts_on_a_worker() -> None:
    """Only a worker resolves it."""
    with DAG("d", schedule=None):
        up: Any = BaseOperator(task_id="x").output
        assert not BatchJobOperator(task_id="s", start_from_trigger=True, **{**BATCH, "command": up}).start_from_trigger


def test_an_unknown_value_of_the_setting_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task that runs raises it."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__START_FROM_TRIGGER", "sometimes")
    with pytest.raises(InvalidParameter, match=r"\[jobflow\] start_from_trigger='sometimes': .*sensors.*all.*none"):
        BatchJobOperator(task_id="s", **{**BATCH, "job_name": "n"}).check()


def test_a_copy_for_an_instance_of_a_mapped_task_does_not_compute_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker or the triggerer creates it from resolved parameters."""
    monkeypatch.setattr("airflow_jobflow.waiting.trigger_start.StartRules._why_not", None)
    assert not BatchJobOperator(task_id="s", start_from_trigger=False, **BATCH).start_from_trigger
