"""A sensor that Airflow starts in the triggerer, without a worker, made and run as the triggerer does."""

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
    """Start the task ``s`` of a DAG in the triggerer, as one of its instances; what it pushes, and what it fires."""
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
    """A DAG of one sensor that looks often."""
    with DAG("d", schedule=None, params={"job_id": "unset"}) as dag:
        BaseOperator(task_id="up")
        BatchJobSensor(**{"task_id": "s", "job_id": job_id, "aws_conn_id": None, "poll_interval": 0.2, **options})
    return dag


def test_it_ends_without_a_worker_and_leaves_what_one_would(kit: Any, started: Any, context: Any) -> None:
    """The outcome and the buttons, as a worker leaves them."""
    job_id = kit.sh("sleep 0.5")
    left, [event] = started(dag_of(job_id))
    assert isinstance(event, TaskSuccessEvent)
    worker = BatchJobSensor(task_id="s", job_id=job_id, aws_conn_id=None, deferrable=False)
    outcome = worker.execute(context)
    links = {link.xcom_key: link.get_link(worker, ti_key=None) for link in worker.operator_extra_links}  # type: ignore[arg-type]
    assert {**left, **(event.xcoms or {})} == {"return_value": outcome, **links}


def test_several_jobs_come_to_a_list(kit: Any, started: Any) -> None:
    """Also one, named as a list."""
    left, _ = started(dag_of([kit.sh("true")]))
    assert [outcome["state"] for outcome in left["return_value"]] == ["SUCCEEDED"]


def test_a_list_that_a_template_renders_is_a_list(kit: Any, started: Any) -> None:
    """As on a worker."""
    job_id = kit.sh("true")
    dag = dag_of("{{ ti.xcom_pull('up', map_indexes=-1) | tojson }}")
    left, _ = started(dag, xcoms={("up", -1): [job_id]})
    assert [outcome["job_id"] for outcome in left["return_value"]] == [job_id]


def test_an_empty_list_wakes_a_worker(started: Any) -> None:
    """A wait for nothing has no end that a trigger could report."""
    _, [event] = started(dag_of([]))
    assert event.payload == START_ON_WORKER


def test_nothing_is_pushed_where_nothing_is_to_be(kit: Any, started: Any) -> None:
    """``do_xcom_push=False``."""
    left, [event] = started(dag_of(kit.sh("true"), do_xcom_push=False))
    assert isinstance(event, TaskSuccessEvent)
    assert not left


def test_an_xcom_backend_of_ones_own_is_not_passed_by(kit: Any, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what is pushed; where it fails, a worker tries it again."""

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
    """Retries and callbacks are Airflow's own."""
    job_id = kit.sh("exit 3")
    _, [event] = started(dag_of(job_id))
    assert event.payload["jobs"][job_id]["exit_code"] == 3


def test_what_needs_a_worker_to_end_wakes_one(kit: Any, started: Any) -> None:
    """Here an outlet, whose asset event would be lost."""
    job_id = kit.sh("true")
    _, [event] = started(dag_of(job_id, outlets=[Asset("x")]))
    assert event.payload["jobs"][job_id]["state"] == "SUCCEEDED"


def test_templates_are_rendered(kit: Any, started: Any) -> None:
    """From what another task has returned."""
    job_id = kit.sh("true")
    dag = dag_of("{{ ti.xcom_pull('up', map_indexes=-1)['job_id'] }}")
    left, _ = started(dag, xcoms={("up", -1): {"job_id": job_id}})
    assert left["return_value"]["job_id"] == job_id


@pytest.mark.parametrize("options", [{"poll_interval": "{{ params.job_id }}"}, {"region_name": "{{ 1 / 0 }}"}])
def test_what_is_wrong_is_told_on_a_worker(kit: Any, started: Any, context: Any, options: dict[str, Any]) -> None:
    """A parameter that is refused, a template that cannot be rendered."""
    _, [event] = started(dag_of(kit.sh("true"), **options))
    assert event.payload == START_ON_WORKER
    sensor = BatchJobSensor(task_id="s", job_id="a", poll_interval="nonsense")
    with pytest.raises(InvalidParameter):
        sensor.execute_complete(context, event.payload)


def test_a_worker_starts_what_the_triggerer_could_not(kit: Any, here: Any, aws: Any, context: Any) -> None:
    """As if it had been asked first."""
    here(aws)
    sensor = BatchJobSensor(task_id="s", job_id=kit.sh("true"), aws_conn_id=None, deferrable=False)
    assert sensor.execute_complete(context, START_ON_WORKER)["state"] == "SUCCEEDED"


def test_a_crawl_counts_from_the_start_of_the_dag_run(started: Any) -> None:
    """By the sensor's own default, which is a template."""
    with DAG("d", schedule=None) as dag:
        GlueCrawlSensor(task_id="s", crawler_name="c", aws_conn_id=None, job_timeout=0.3)
    _, [event] = started(dag)
    assert event.payload["job_ids"] == [str(Since("c", DAG_RUN["start_date"]))]


def mapped_dag(job_id: Any = None, **expand: Any) -> DAG:
    """A DAG of a mapped sensor, by default over what the task ``up`` returns."""
    with DAG("d", schedule=None, params={"job_id": "unset"}) as dag:
        up = BaseOperator(task_id="up")
        partial = BatchJobSensor.partial(task_id="s", aws_conn_id=None, poll_interval=0.2)
        partial.expand(**(expand or {"job_id": job_id or up.output}))
    return dag


def test_an_instance_of_a_mapped_task_waits_for_its_item(kit: Any, started: Any) -> None:
    """Of a list in the DAG, and of one that another task returned."""
    job_ids = [kit.sh("true"), kit.sh("true")]
    for dag, xcoms in ((mapped_dag(job_ids), {}), (mapped_dag(), {("up", -1): job_ids})):
        left, _ = started(dag, 1, xcoms=xcoms)
        assert left["return_value"]["job_id"] == job_ids[1]


def over_mapped() -> DAG:
    """A DAG of a sensor that is mapped over a mapped task."""

    @task
    def up(number: int) -> int:
        return number

    with DAG("d", schedule=None) as dag:
        numbers: Any = up.expand(number=[1, 2])
        BatchJobSensor.partial(task_id="s", aws_conn_id=None, poll_interval=0.2).expand(job_id=numbers)
    return dag


def test_an_instance_waits_for_what_the_instance_before_it_returned(kit: Any, started: Any) -> None:
    """Where all of them have returned something, indexes are the same."""
    job_id = kit.sh("true")
    left, _ = started(over_mapped(), 1, xcoms={("up", 1): {"job_id": job_id}}, instances={"up": 2, "s": 2})
    assert left["return_value"]["job_id"] == job_id


def test_where_an_instance_before_has_returned_nothing_a_worker_finds_out_what_is_meant(kit: Any, started: Any) -> None:
    """Those after it move up."""
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
def test_a_mapping_that_only_a_worker_resolves_is_left_to_one(
    started: Any, dag: DAG, xcoms: dict[tuple[str, int | None], Any]
) -> None:
    """It costs a worker, and nothing else."""
    _, [event] = started(dag, 0, xcoms=xcoms)
    assert event.payload == START_ON_WORKER


def test_expand_kwargs_is_left_to_a_worker(started: Any) -> None:
    """Likewise."""
    with DAG("d", schedule=None) as dag:
        BatchJobSensor.partial(task_id="s").expand_kwargs([{"job_id": "a"}])
    _, [event] = started(dag, 0)
    assert event.payload == START_ON_WORKER


def test_its_deadline_is_reckoned_from_the_tasks_start(kit: Any, started: Any, gate: Any) -> None:
    """A triggerer that takes it over later does not begin anew."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    before = time.monotonic()
    _, [event] = started(dag_of(job_id, job_timeout=600), began=599.5)
    assert event.payload["limit"] == "deadline"
    assert time.monotonic() - before < 60  # and not ten minutes
    gate.touch()


# Tried before: Airflow starts such a task in the triggerer without tidying up, as it does where a worker starts it.


def test_what_an_earlier_try_has_pushed_is_forgotten(kit: Any, started: Any) -> None:
    """Or a task that fails when it is cleared would show, and hand on, the outcome of its success."""
    first: set[str] = set()
    started(dag_of(kit.sh("true")), deleted=first)
    assert not first
    again: set[str] = set()
    _, [event] = started(dag_of(kit.sh("false")), try_number=2, deleted=again)
    assert event.payload["limit"] is None
    assert again == {"return_value", "jobflow_jobs", "jobflow_links"}


def test_what_an_earlier_try_has_pushed_is_forgotten_also_where_a_worker_starts(started: Any) -> None:
    """It does not, for it takes the task for one that is resumed."""
    again: set[str] = set()
    _, [event] = started(mapped_dag(), 0, xcoms={("up", -1): []}, try_number=2, deleted=again)
    assert event.payload == START_ON_WORKER
    assert "return_value" in again


def test_a_later_try_ends_on_a_worker(kit: Any, started: Any) -> None:
    """Airflow would take the end of the try before for its end, and show a duration below zero."""
    job_id = kit.sh("true")
    left, [event] = started(dag_of(job_id), try_number=2)
    assert event.payload["jobs"][job_id]["state"] == "SUCCEEDED"
    assert not left


def test_what_a_template_asks_for_in_vain_is_told_on_a_worker(started: Any) -> None:
    """There it is an error; here it would be an empty text, and the wait one for another job."""
    for job_id in ("job-{{ params.typo }}", "job-{{ dag_run.conf.typo }}"):
        _, [event] = started(dag_of(job_id))
        assert event.payload == START_ON_WORKER


def test_params_of_a_task_go_before_those_of_its_dag(kit: Any, started: Any) -> None:
    """As on a worker."""
    job_id = kit.sh("true")
    left, _ = started(dag_of("{{ params.job_id }}", params={"job_id": job_id}))
    assert left["return_value"]["job_id"] == job_id
