"""A sensor that Airflow starts in the triggerer, without a worker; created and run like in a triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, task
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import task_runner, xcom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.jobs.glue_crawl import Since
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor
from airflow_jobflow.triggers.start import START_ON_WORKER
from tests.local.starts import DAG_RUN, Supervisor, start_trigger

pytestmark = pytest.mark.needs("starts")


@pytest.fixture
def started(
    here: Callable[[Any], None], aws: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], list[TriggerEvent]]]:
    """Return a function that starts the task ``s`` of a DAG in the triggerer, and returns its XComs and events."""
    here(aws)

    def start(
        dag: DAG,
        map_index: int = -1,
        *,
        xcoms: dict[tuple[str, int | None], Any] | None = None,
        instances: dict[str, int] | None = None,
        began: float = 0.0,
        try_number: int = 1,
        deleted: set[str] | None = None,
    ) -> tuple[dict[str, Any], list[TriggerEvent]]:
        supervisor = Supervisor(xcoms or {}, instances or {})
        if deleted is not None:
            supervisor.deleted = deleted
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        trigger: Any = start_trigger(dag, map_index, began=began, try_number=try_number)

        async def run() -> list[TriggerEvent]:
            trigger.render_template_fields(trigger.task_instance.get_template_context())
            return [event async for event in trigger.run()]

        events = asyncio.run(run())
        return supervisor.left, events

    return start


def dag_of(job_id: Any, **options: Any) -> DAG:
    """Return a DAG with one sensor that polls often."""
    with DAG("d", schedule=None, params={"job_id": "unset"}) as dag:
        BaseOperator(task_id="up")
        BatchJobSensor(**{"task_id": "s", "job_id": job_id, "aws_conn_id": None, "poll_interval": 0.2, **options})
    return dag


def test_it_ends_without_a_worker(kit: Any, started: Any, context: Any) -> None:
    """The outcome and the buttons are the same as on a worker."""
    job_id = kit.sh("sleep 0.5")
    left, [event] = started(dag_of(job_id))
    assert isinstance(event, TaskSuccessEvent)
    worker = BatchJobSensor(task_id="s", job_id=job_id, aws_conn_id=None, deferrable=False)
    outcome = worker.execute(context)
    links = {link.xcom_key: link.get_link(worker, ti_key=None) for link in worker.operator_extra_links}  # type: ignore[arg-type]
    assert {**left, **(event.xcoms or {})} == {"return_value": outcome, **links}


def test_several_jobs_return_a_list(kit: Any, started: Any) -> None:
    """One job in a list returns a list, too."""
    left, _ = started(dag_of([kit.sh("true")]))
    assert [outcome["state"] for outcome in left["return_value"]] == ["SUCCEEDED"]


def test_a_list_that_a_template_renders_is_a_list(kit: Any, started: Any) -> None:
    """The result is the same as on a worker."""
    job_id = kit.sh("true")
    dag = dag_of("{{ ti.xcom_pull('up', map_indexes=-1) | tojson }}")
    left, _ = started(dag, xcoms={("up", -1): [job_id]})
    assert [outcome["job_id"] for outcome in left["return_value"]] == [job_id]


def test_an_empty_list_wakes_a_worker(started: Any) -> None:
    """A wait for nothing has no end that a trigger could report."""
    _, [event] = started(dag_of([]))
    assert event.payload == START_ON_WORKER


def test_do_xcom_push_false_pushes_no_xcoms(kit: Any, started: Any) -> None:
    """``do_xcom_push=False`` also applies in the triggerer."""
    left, [event] = started(dag_of(kit.sh("true"), do_xcom_push=False))
    assert isinstance(event, TaskSuccessEvent)
    assert not left


def test_a_custom_xcom_backend_is_used(kit: Any, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the backend fails, a worker tries again."""

    class Backend(BaseXCom):
        @staticmethod
        def serialize_value(value: Any, **_: Any) -> Any:
            return {"kept elsewhere": value}

    monkeypatch.setattr(xcom, "XCom", Backend)
    left, [event] = started(dag_of(kit.sh("true")))
    assert isinstance(event, TaskSuccessEvent)
    assert left["return_value"]["kept elsewhere"]["state"] == "SUCCEEDED"

    def fails(value: Any, **_: Any) -> Any:
        raise OSError("the backend is not there")

    monkeypatch.setattr(Backend, "serialize_value", fails)
    _, [event] = started(dag_of(kit.sh("true")))
    assert [job["state"] for job in event.payload["jobs"].values()] == ["SUCCEEDED"]


def test_a_failure_wakes_a_worker(kit: Any, started: Any) -> None:
    """Airflow handles retries and callbacks there."""
    job_id = kit.sh("exit 3")
    _, [event] = started(dag_of(job_id))
    assert event.payload["jobs"][job_id]["exit_code"] == 3


def test_a_task_that_must_end_on_a_worker_wakes_one(kit: Any, started: Any) -> None:
    """Here, the asset event of an outlet would be lost."""
    job_id = kit.sh("true")
    _, [event] = started(dag_of(job_id, outlets=[Asset("x")]))
    assert event.payload["jobs"][job_id]["state"] == "SUCCEEDED"


def test_templates_are_rendered(kit: Any, started: Any) -> None:
    """The template uses the result of another task."""
    job_id = kit.sh("true")
    dag = dag_of("{{ ti.xcom_pull('up', map_indexes=-1)['job_id'] }}")
    left, _ = started(dag, xcoms={("up", -1): {"job_id": job_id}})
    assert left["return_value"]["job_id"] == job_id


@pytest.mark.parametrize("options", [{"poll_interval": "{{ params.job_id }}"}, {"region_name": "{{ 1 / 0 }}"}])
def test_an_invalid_parameter_fails_on_a_worker(kit: Any, started: Any, context: Any, options: dict[str, Any]) -> None:
    """The parameter is rejected, or its template cannot be rendered."""
    _, [event] = started(dag_of(kit.sh("true"), **options))
    assert event.payload == START_ON_WORKER
    sensor = BatchJobSensor(task_id="s", job_id="a", poll_interval="nonsense")
    with pytest.raises(InvalidParameter):
        sensor.execute_complete(context, event.payload)


def test_a_worker_starts_what_the_triggerer_could_not(kit: Any, here: Any, aws: Any, context: Any) -> None:
    """It starts the task as if there had been no trigger."""
    here(aws)
    sensor = BatchJobSensor(task_id="s", job_id=kit.sh("true"), aws_conn_id=None, deferrable=False)
    assert sensor.execute_complete(context, START_ON_WORKER)["state"] == "SUCCEEDED"


def test_a_crawl_counts_from_the_start_of_the_dag_run(started: Any) -> None:
    """The default of the sensor is a template."""
    with DAG("d", schedule=None) as dag:
        GlueCrawlSensor(task_id="s", crawler_name="c", aws_conn_id=None, job_timeout=0.3)
    _, [event] = started(dag)
    assert event.payload["job_ids"] == [str(Since("c", DAG_RUN["start_date"]))]


def mapped_dag(job_id: Any = None, **expand: Any) -> DAG:
    """Return a DAG with a mapped sensor, by default over the result of the task ``up``."""
    with DAG("d", schedule=None, params={"job_id": "unset"}) as dag:
        up = BaseOperator(task_id="up")
        partial = BatchJobSensor.partial(task_id="s", aws_conn_id=None, poll_interval=0.2)
        partial.expand(**(expand or {"job_id": job_id or up.output}))
    return dag


def test_an_instance_of_a_mapped_task_waits_for_its_item(kit: Any, started: Any) -> None:
    """The list is in the DAG, or the result of another task."""
    job_ids = [kit.sh("true"), kit.sh("true")]
    for dag, xcoms in ((mapped_dag(job_ids), {}), (mapped_dag(), {("up", -1): job_ids})):
        left, _ = started(dag, 1, xcoms=xcoms)
        assert left["return_value"]["job_id"] == job_ids[1]


def over_mapped() -> DAG:
    """Return a DAG with a sensor that is mapped over a mapped task."""

    @task
    def up(number: int) -> int:
        return number

    with DAG("d", schedule=None) as dag:
        numbers: Any = up.expand(number=[1, 2])
        BatchJobSensor.partial(task_id="s", aws_conn_id=None, poll_interval=0.2).expand(job_id=numbers)
    return dag


def test_an_instance_waits_for_the_result_of_the_upstream_instance(kit: Any, started: Any) -> None:
    """If all of them have returned a value, the indexes are the same."""
    job_id = kit.sh("true")
    left, _ = started(over_mapped(), 1, xcoms={("up", 1): {"job_id": job_id}}, instances={"up": 2, "s": 2})
    assert left["return_value"]["job_id"] == job_id


def test_a_missing_upstream_result_needs_a_worker(kit: Any, started: Any) -> None:
    """The indexes of later instances are shifted."""
    _, [event] = started(over_mapped(), 0, xcoms={("up", 0): kit.sh("true")}, instances={"up": 2, "s": 1})
    assert event.payload == START_ON_WORKER


@pytest.mark.parametrize(
    ("dag", "xcoms"),
    [
        (mapped_dag(job_id=["{{ ti.xcom_pull('up') }}"]), {}),
        (mapped_dag(job_id=["a"], region_name=["x"]), {}),
        (mapped_dag(), {("up", -1): {"a": 1}}),
        (mapped_dag(), {("up", -1): None}),
        (mapped_dag(), {("up", -1): []}),
    ],
    ids=["a plain xcom_pull", "two parameters", "a dict", "nothing", "too short a list"],
)
def test_a_mapping_that_only_a_worker_resolves_starts_on_a_worker(
    started: Any, dag: DAG, xcoms: dict[tuple[str, int | None], Any]
) -> None:
    """It needs a worker, but works."""
    _, [event] = started(dag, 0, xcoms=xcoms)
    assert event.payload == START_ON_WORKER


def test_expand_kwargs_starts_on_a_worker(started: Any) -> None:
    """It needs a worker, but works."""
    with DAG("d", schedule=None) as dag:
        BatchJobSensor.partial(task_id="s").expand_kwargs([{"job_id": "a"}])
    _, [event] = started(dag, 0)
    assert event.payload == START_ON_WORKER


def test_the_deadline_counts_from_the_start_of_the_task(kit: Any, started: Any, gate: Any) -> None:
    """A triggerer that takes over the trigger later does not restart it."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    before = time.monotonic()
    _, [event] = started(dag_of(job_id, job_timeout=600), began=599.5)
    assert event.payload["limit"] == "deadline"
    assert time.monotonic() - before < 60  # and not ten minutes
    gate.touch()


# Airflow starts a retry in the triggerer without deleting the XComs of the earlier try.


def test_xcoms_of_an_earlier_try_are_deleted(kit: Any, started: Any) -> None:
    """Otherwise, a task that fails after a clear would show and return the outcome of its success."""
    first: set[str] = set()
    started(dag_of(kit.sh("true")), deleted=first)
    assert not first
    again: set[str] = set()
    _, [event] = started(dag_of(kit.sh("false")), try_number=2, deleted=again)
    assert event.payload["limit"] is None
    assert again == {"return_value", "jobflow_jobs", "jobflow_links", "jobflow_log_position"}


def test_xcoms_of_an_earlier_try_are_deleted_on_a_worker_too(started: Any) -> None:
    """Airflow does not, because it believes that the task is resumed."""
    again: set[str] = set()
    _, [event] = started(mapped_dag(), 0, xcoms={("up", -1): []}, try_number=2, deleted=again)
    assert event.payload == START_ON_WORKER
    assert "return_value" in again


def test_a_later_try_ends_on_a_worker(kit: Any, started: Any) -> None:
    """Airflow would use the end of the previous try, and show a negative duration."""
    job_id = kit.sh("true")
    left, [event] = started(dag_of(job_id), try_number=2)
    assert event.payload["jobs"][job_id]["state"] == "SUCCEEDED"
    assert not left


def test_an_undefined_template_variable_fails_on_a_worker(started: Any) -> None:
    """Here, it would render to an empty text, and the sensor would wait for another job."""
    for job_id in ("job-{{ params.typo }}", "job-{{ dag_run.conf.typo }}"):
        _, [event] = started(dag_of(job_id))
        assert event.payload == START_ON_WORKER


def test_params_of_a_task_take_precedence_over_those_of_its_dag(kit: Any, started: Any) -> None:
    """The result is the same as on a worker."""
    job_id = kit.sh("true")
    left, _ = started(dag_of("{{ params.job_id }}", params={"job_id": job_id}))
    assert left["return_value"]["job_id"] == job_id
