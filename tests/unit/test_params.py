"""Invalid input is rejected with the parameter, the value and the rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_jobflow import params
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor
from tests.unit.scripted_aws import map_requests


def operator(**parameters: Any) -> BatchJobOperator:
    """Return an operator that is valid except for the given parameters."""
    good = {"task_id": "t", "job_name": "hello", "job_queue": "q", "job_definition": "d"}
    return BatchJobOperator(**{**good, **parameters})


@pytest.mark.parametrize(
    "parameters",
    [
        {"array_size": 0},
        {"array_size": 10_001},
        {"array_size": "seven"},
        {"array_size": 2.5},
        {"array_properties": {"size": 0}},
        {"job_name": "-hello"},
        {"job_name": "hello world"},
        {"job_name": "x" * 129},
        {"job_name": ""},
        {"job_name": None},
        {"job_queue": " "},
        {"job_definition": "None"},
        {"attempt_timeout": 59},
        {"attempt_timeout": timedelta(seconds=1)},
        {"poll_interval": 0},
        {"poll_interval": "-1"},
        {"poll_interval": float("nan")},
        {"job_timeout": 0},
        {"job_timeout": "soon"},
        {"job_timeout": "inf"},
        {"queued_timeout": float("inf")},
        {"botocore_config": "fast"},
        {"job_name": 2024},
        {"queued_timeout": -5},
        {"tolerated_failure_count": -1},
        {"tolerated_failure_count": 1.5},
        {"tolerated_failure_percentage": 101},
        {"tolerated_failure_percentage": "-1"},
        {"number_logs_exception": -1},
        {"number_logs_success": -1},
        {"max_log_lines": 0},
        {"stream_logs": "sometimes"},
        {"container_overrides": "command"},
        {"container_overrides": ["command"]},
        {"command": "echo hello"},
        {"depends_on": {"jobId": "a"}},
        {"depends_on": ["a"]},
        {"propagate_tags": "perhaps"},
        {"scheduling_priority_override": 10_000},
        {"retry_strategy": 3},
    ],
    ids=str,
)
def test_the_error_names_the_parameter_the_value_and_the_rule(parameters: dict[str, Any]) -> None:
    """Without them, the reader must search."""
    task = operator(**parameters)
    with pytest.raises(InvalidParameter) as error:
        task.check()
    [(name, value)] = parameters.items()
    assert str(error.value).startswith((f"{name}={value!r}: must", f"{name}["))


@pytest.mark.parametrize("nothing", ["", "None", " ", "null"])
@pytest.mark.parametrize("name", ["job_queue", "command", "container_overrides", "depends_on", "items"])
def test_the_error_for_an_empty_value_mentions_templates(name: str, nothing: str) -> None:
    """An empty template is the most frequent cause."""
    if name == "job_queue" and nothing == "null":
        nothing = "None"
    parameters: dict[str, Any] = {
        "job_name": "n",
        "job_queue": "q",
        "job_definition": "d",
        "items": [{}],
        name: nothing,
    }
    task = BatchMapOperator(task_id="t", **parameters)
    with pytest.raises(InvalidParameter, match=rf"{name}=.*must be .*\(did a template render to nothing\?\)"):
        map_requests(task)


def test_the_error_for_items_describes_their_format() -> None:
    """AWS has no items."""
    task = BatchMapOperator(task_id="t", job_name="n", job_queue="q", job_definition="d", items="None")
    with pytest.raises(InvalidParameter) as error:
        task._execution.spec.items(task.items)
    assert str(error.value) == (
        "items='None': must be a list of dicts with the parameters of one job, or the same as JSON (did a template "
        "render to nothing?)"
    )


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"memory": "2GB"}, "must be a number of at least 4 (MiB)"),
        ({"stream_logs": "fail"}, "must be true, false or 'failed'"),
        (
            {"environment": [{"name": "A", "value": "1"}]},
            "must be a dict with a value for each name, such as {'NAME': 'value'}, or the same as JSON",
        ),
    ],
)
def test_the_rule_says_what_to_write(parameters: dict[str, Any], rule: str) -> None:
    """The unit, each allowed value, and the format where it is not AWS's."""
    with pytest.raises(InvalidParameter) as error:
        operator(**parameters).check()
    assert str(error.value).endswith(rule)


def test_the_rule_for_cpu_names_its_unit() -> None:
    """Batch counts vCPUs, and Fargate CPU units."""
    task = FargateTaskOperator(task_id="t", cluster="c", subnets=["s"], task_definition="d", cpu=1)
    with pytest.raises(
        InvalidParameter, match=r"cpu=1: must be a number of at least 256 \(CPU units; 1024 are a vCPU\)"
    ):
        task.check()


def test_two_array_sizes_are_rejected() -> None:
    """``array_size`` and ``array_properties`` contradict each other."""
    with pytest.raises(InvalidParameter, match="array_size=7"):
        operator(array_size=7, array_properties={"size": 8}).check()


def test_numbers_and_objects_may_arrive_as_strings() -> None:
    """Templates render to strings unless a DAG requests native objects."""
    task = operator(
        array_size="7",
        attempt_timeout="60",
        poll_interval="1.5",
        job_timeout="3600",
        container_overrides='{"environment": []}',
        command='["echo", "hello"]',
        depends_on='[{"jobId": "a"}]',
        tolerated_failure_percentage="12.5",
        propagate_tags="true",
    )
    task.check()
    assert task._job_spec().request == {
        "jobName": "hello",
        "jobQueue": "q",
        "jobDefinition": "d",
        "arrayProperties": {"size": 7},
        "timeout": {"attemptDurationSeconds": 60},
        "containerOverrides": {"environment": [], "command": ["echo", "hello"]},
        "dependsOn": [{"jobId": "a"}],
        "propagateTags": True,
    }


def test_creating_a_task_validates_nothing() -> None:
    """An invalid value may become valid by rendering."""
    operator(array_size="{{ params.size }}", poll_interval="{{ params.wait_time }}")
    BatchJobSensor(task_id="s", job_id="{{ params.id }}", mode="reschedule")


@pytest.mark.parametrize(
    "job_id", ["", ["a", ""], '["a", ""]', "['a']", "[1]", "None", [None], None, 5, {"state": "S"}, '{"state": "S"}']
)
def test_a_sensor_needs_ids(job_id: Any) -> None:
    """An empty template must not wait for nothing."""
    with pytest.raises(InvalidParameter, match="job_id="):
        BatchJobSensor(task_id="s", job_id=job_id).job_ids()


@pytest.mark.parametrize(
    ("job_id", "ids"),
    [
        ("a", ["a"]),
        ("[a", ["[a"]),
        ('["a", "b"]', ["a", "b"]),
        (' ["a"]\n', ["a"]),
        ('{"job_id": "a"}', ["a"]),
        ('["a", {"job_id": "b"}]', ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        ([], []),
        ("[]", []),
    ],
)
def test_a_list_as_text_is_parsed(job_id: Any, ids: list[str]) -> None:
    """A template that renders a list returns text."""
    assert BatchJobSensor(task_id="s", job_id=job_id).job_ids() == ids
    assert FargateTaskSensor(task_id="s", cluster="c", task_arn=job_id).job_ids() == ids
    assert GlueJobRunSensor(task_id="s", job_name="j", run_id=job_id).job_ids() == ids
    crawls = (
        GlueCrawlSensor(task_id="s", crawler_name=job_id, since="2026-01-02") if "job_id" not in str(job_id) else None
    )
    assert crawls is None or crawls.job_ids() == [f"{each}@2026-01-02T00:00:00+00:00" for each in ids]


def test_an_outcome_of_a_crawl_may_arrive_as_text() -> None:
    """An id without a crawl is not mistaken for the name of a crawler."""
    crawl = "c@2026-01-02T00:00:00+00:00"
    assert GlueCrawlSensor(task_id="s", crawler_name=f'[{{"job_id": "{crawl}"}}]', since="2026-01-02").job_ids() == [
        crawl
    ]
    with pytest.raises(InvalidParameter, match="is not the outcome of a crawl"):
        GlueCrawlSensor(task_id="s", crawler_name='{"job_id": "c"}', since="2026-01-02").job_ids()


@pytest.mark.parametrize("nothing", [[], (), "[]"])
@pytest.mark.parametrize(
    "sensor",
    [
        lambda nothing: BatchJobSensor(task_id="s", job_id=nothing),
        lambda nothing: FargateTaskSensor(task_id="s", cluster="c", task_arn=nothing),
        lambda nothing: GlueJobRunSensor(task_id="s", job_name="j", run_id=nothing),
        lambda nothing: GlueCrawlSensor(task_id="s", crawler_name=nothing, since="2026-01-02"),
    ],
)
def test_an_empty_list_is_a_success(sensor: Any, nothing: Any) -> None:
    """A map without items succeeds too; a call to AWS would fail here."""
    assert sensor(nothing).execute({}) == []


def test_mode_reschedule_is_rejected() -> None:
    """A sensor that defers does not need it."""
    with pytest.raises(InvalidParameter, match="mode='reschedule': is not supported, because deferring replaces it"):
        BatchJobSensor(task_id="s", job_id="a", mode="reschedule").check()


@pytest.mark.parametrize(("value", "seconds"), [(90, 90), ("90", 90), (timedelta(minutes=1.5), 90), (0.5, 0.5)])
def test_durations_have_several_formats(value: Any, seconds: float) -> None:
    """Seconds, text and timedelta are accepted."""
    assert params.seconds("p", value) == seconds
