"""The interface of the package: entry points, settings, public names, and the cost of its imports."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator, task
from airflow.sdk.configuration import conf

from airflow_jobflow.decorators.batch import batch_map_task, batch_task
from airflow_jobflow.decorators.ecs import ecs_map_task, ecs_task, fargate_map_task, fargate_task
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.batch_parameters import PARAMETERS
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.operators.glue_spec import CRAWL_PARAMETERS, RUN_PARAMETERS
from airflow_jobflow.provider_info import get_provider_info
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor

PUBLIC = [
    "airflow_jobflow.operators.batch",
    "airflow_jobflow.operators.ecs",
    "airflow_jobflow.operators.glue",
    "airflow_jobflow.sensors.batch",
    "airflow_jobflow.sensors.ecs",
    "airflow_jobflow.sensors.glue",
    "airflow_jobflow.decorators.batch",
    "airflow_jobflow.decorators.ecs",
    "airflow_jobflow.links",
    "airflow_jobflow.reaper",
    "airflow_jobflow.retry_policy",
]


def test_airflow_finds_the_provider() -> None:
    """The name must equal the distribution's, or `airflow dags list` crashes."""
    [entry] = [e for e in entry_points(group="apache_airflow_provider") if e.dist and e.dist.name == "airflow-jobflow"]
    assert entry.load()()["package-name"] == "airflow-jobflow"


def test_the_provider_info_matches_airflows_schema() -> None:
    """Airflow ignores a provider whose info does not match."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_name_in_the_provider_info_exists() -> None:
    """A wrong name would only show in a user's UI."""
    info = get_provider_info()
    for kind in ("operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    for name in (*info["extra-links"], *(each["class-name"] for each in info["task-decorators"])):
        module, _, cls = name.rpartition(".")
        assert getattr(importlib.import_module(module), cls)


def test_airflow_finds_the_decorators() -> None:
    """Under the names of the documentation; a provider that is loaded earlier could have taken one."""
    found = {name: getattr(task, name) for name in ("batch", "batch_map", "fargate", "fargate_map", "ecs", "ecs_map")}
    assert found == {
        "batch": batch_task,
        "batch_map": batch_map_task,
        "fargate": fargate_task,
        "fargate_map": fargate_map_task,
        "ecs": ecs_task,
        "ecs_map": ecs_map_task,
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("describe_calls_per_second", 5), ("poll_interval", 10), ("missing_grace", 300), ("request_timeout", 20)],
)
def test_settings_have_the_defaults_of_the_documentation(option: str, value: float) -> None:
    """`airflow config get-value jobflow …` works without a line in airflow.cfg."""
    assert conf.getfloat("jobflow", option) == value


IMPORT_EACH = """
import importlib, json, os, sys
import airflow.sdk

before = set(sys.modules)
heavy = ("boto3", "botocore", "airflow.providers.amazon", "airflow.models", "airflow.triggers", "moto")
for name in sys.argv[1:]:
    if not os.fork():
        importlib.import_module(name)
        print(json.dumps([name, [new for new in set(sys.modules) - before if new.startswith(heavy)]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Return the heavy modules that each public module imports, in a process that has only imported Airflow."""
    command = [sys.executable, "-c", IMPORT_EACH, *PUBLIC]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(line) for line in answer.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("module", PUBLIC)
def test_importing_a_public_module_loads_neither_boto3_nor_the_amazon_provider(
    module: str, loaded: dict[str, list[str]]
) -> None:
    """Otherwise every worker process would need half a second more."""
    assert loaded[module] == []


def own_parameters(cls: type[Any], base: type[Any]) -> set[str]:
    """Return the parameters of a class that its Airflow base class does not have."""
    names: set[str] = set()
    for each in cls.__mro__[: cls.__mro__.index(base)]:
        if "__init__" in vars(each) and "airflow_compat" not in each.__module__:
            init = vars(each)["__init__"]
            names |= {name for name in init.__wrapped__.__annotations__ if name not in ("return", "kwargs")}
    return names


COMMON = {
    "aws_conn_id",
    "region_name",
    "verify",
    "botocore_config",
    "deferrable",
    "poll_interval",
    "raise_on_failure",
    "job_timeout",
    "number_logs_exception",
    "start_from_trigger",
    "start_trigger_args",
    "stream_logs",
    "max_log_lines",
    "number_logs_success",
}
OPERATORS = {
    "wait_for_completion",
    "queued_timeout",
    "cancel_on_kill",
    "cancel_on_timeout",
    "durable",
    "tolerated_failure_count",
    "tolerated_failure_percentage",
    "redrive",
    "pass_context",
    "result",
    "result_required",
    "skip_on_exit_code",
    "fail_on_exit_code",
}
SENSORS = {"poke_interval", "timeout"}


def test_the_parameters_are_pinned() -> None:
    """Renaming a parameter breaks DAGs."""
    assert own_parameters(BatchJobOperator, BaseOperator) == COMMON | OPERATORS | set(PARAMETERS)
    sensor = own_parameters(BatchJobSensor, BaseSensorOperator)
    assert sensor == COMMON | SENSORS | {"job_id"}
    assert own_parameters(GlueCrawlOperator, BaseOperator) == COMMON | OPERATORS | set(CRAWL_PARAMETERS)
    assert own_parameters(GlueJobRunOperator, BaseOperator) == COMMON | OPERATORS | set(RUN_PARAMETERS)
    crawls, runs = (own_parameters(each, BaseSensorOperator) for each in (GlueCrawlSensor, GlueJobRunSensor))
    assert crawls == COMMON | SENSORS | {"crawler_name", "since"}
    assert runs == COMMON | SENSORS | {"job_name", "run_id"}


def test_everything_that_reaches_aws_is_templated() -> None:
    """Intervals and timeouts are templated too."""
    reaching = {"aws_conn_id", "region_name", "verify", "botocore_config", "poll_interval", "job_timeout"}
    assert set(BatchJobOperator.template_fields) >= reaching | {"queued_timeout"} | set(PARAMETERS)
    assert set(BatchJobSensor.template_fields) >= reaching | {"job_id"}
    assert set(GlueCrawlOperator.template_fields) >= reaching | {"queued_timeout"} | set(CRAWL_PARAMETERS)
    assert set(GlueJobRunOperator.template_fields) >= reaching | {"queued_timeout"} | set(RUN_PARAMETERS)
    assert set(GlueCrawlSensor.template_fields) >= reaching | {"crawler_name", "since"}
    assert set(GlueJobRunSensor.template_fields) >= reaching | {"job_name", "run_id"}


def test_a_dag_survives_serialization() -> None:
    """The scheduler and the UI read only serialized DAGs; mapped tasks are included."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    good = {"job_name": "n", "job_queue": "q", "job_definition": "d"}
    with DAG("d", schedule=None) as dag:
        BatchJobOperator(task_id="one", job_timeout=timedelta(hours=1), **good)
        BatchJobOperator.partial(task_id="many", **good).expand(array_size=[2, 3])
        BatchJobSensor.partial(task_id="waits").expand(job_id=["a", "b"])
        crawl = GlueCrawlOperator(task_id="crawl", crawler_name="c")
        GlueCrawlOperator.partial(task_id="crawls").expand(crawler_name=["c", "d"])
        output: Any = crawl.output
        GlueCrawlSensor(task_id="crawled", crawler_name=output, since=datetime(2026, 1, 1, tzinfo=UTC))
        GlueJobRunOperator.partial(task_id="runs", job_name="j").expand(script_args=[{"--a": "1"}, {"--a": "2"}])
        GlueJobRunSensor.partial(task_id="ran", job_name="j").expand(run_id=["jr_1", "jr_2"])
    data = DagSerialization.to_dict(dag)
    again = DagSerialization.from_dict(json.loads(json.dumps(data)))
    glue = {"crawl", "crawls", "crawled", "runs", "ran"}
    assert set(again.task_ids) == {"one", "many", "waits"} | glue
    links = {link.name for name in glue for link in again.get_task(name).operator_extra_links}
    assert links == {"Glue crawler", "Glue job run", "Job log", "Jobs"}
    one: Any = again.get_task("one")
    assert {link.name for link in one.operator_extra_links} >= {"Batch job", "Job log"}


def test_default_args_reach_every_parameter() -> None:
    """Users set a connection once for a whole DAG."""
    from airflow.sdk import DAG

    with DAG("d", schedule=None, default_args={"aws_conn_id": "mine", "poll_interval": 3, "durable": False}):
        task = BatchJobOperator(task_id="t", job_name="n", job_queue="q", job_definition="d")
        sensor = BatchJobSensor(task_id="s", job_id="a")
    assert (task.aws_conn_id, task.poll_interval, task.durable) == ("mine", 3, False)
    assert (sensor.aws_conn_id, sensor.poll_interval) == ("mine", 3)
