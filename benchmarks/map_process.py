"""The processes of a map, each measured separately: worker, triggerer, and worker again.

``python -m benchmarks.map_process worker|triggerer|resume SCENARIO FOLDER``. The data that one passes to the next is in
the folder, in Airflow's format. Airflow's own part on a worker is done by its own functions: rendering, the rendered
fields for the UI, the message that defers, the XCom; there is no database and no supervisor.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from benchmarks.figures import MapPart, Scenario
from benchmarks.meters import Meters

if TYPE_CHECKING:
    from airflow_jobflow.operators.batch import BatchMapOperator

STATE, DEFERRED, EVENT, RESULT = "state.json", "deferred.json", "event.json", "result.json"

TASK_INSTANCE = UUID(int=7, version=4)
"""The id of the task instance, the same in all processes of a map."""

WORKER = (
    "airflow.sdk",
    "airflow.sdk.execution_time.comms",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.serde",
    "airflow.serialization.serialized_objects",
)
"""The modules that every worker process has loaded, without ours, whose import counts."""

TRIGGERER = (
    "airflow.models.trigger",
    "airflow.serialization.decoders",
    "airflow.serialization.serialized_objects",
    "airflow_jobflow.triggers.map",
    "airflow_jobflow.jobs.batch_map",
    "airflow.providers.amazon.aws.hooks.base_aws",
    "boto3.session",
    "botocore.handlers",
)


class Store(dict[str, Any]):
    """A task state store with the methods that an operator uses, in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self._path = path

    def set(self, key: str, value: Any) -> None:
        """Store a value of at most 64 KB, like Airflow."""
        assert len(json.dumps(value)) <= 64 * 1024
        self[key] = value
        self._path.write_text(json.dumps(self))


def operator(scenario: Scenario) -> BatchMapOperator:
    """Return the operator, in a DAG whose file lists all items."""
    from airflow.sdk import DAG

    from airflow_jobflow.operators.batch import BatchMapOperator

    with DAG("bench", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        return BatchMapOperator(
            task_id="map",
            job_name="nightly-model",
            job_queue="nightly",
            job_definition="nightly-model:17",
            items=items(scenario),
            max_concurrency=scenario.waits,
            tolerated_failure_percentage=10,
            poll_interval=scenario.interval,
            aws_conn_id=None,
        )


def items(scenario: Scenario) -> list[dict[str, Any]]:
    """Return items, each with its own command and environment."""
    return [
        {
            "command": ["python", "-m", "nightly_model", "--part", f"part-{index:05}"],
            "environment": {"INPUT": f"s3://a-bucket/input/{index:05}/", "OUTPUT": f"s3://a-bucket/output/{index:05}/"},
        }
        for index in range(scenario.waits)
    ]


def rendered(scenario: Scenario, folder: Path) -> tuple[BatchMapOperator, Any]:
    """Return the operator and its context, rendered like on a worker, with the rendered fields for the UI."""
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    context: Any = {
        "ti": SimpleNamespace(
            id=TASK_INSTANCE,
            dag_id="bench",
            task_id="map",
            run_id="manual",
            map_index=-1,
            try_number=1,
            max_tries=0,
            xcom_push=lambda **_: None,
        ),
        "dag_run": SimpleNamespace(clear_number=0, logical_date=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)),
        "task_state_store": Store(folder / STATE),
    }
    task = operator(scenario)
    task.render_template_fields(context, task.dag.get_template_env())
    _serialize_rendered_fields(task)
    return task, context


def worker(scenario: Scenario, folder: Path) -> None:
    """Run the operator until it defers, and write the message that a worker then sends."""
    from airflow.sdk.exceptions import TaskDeferred
    from airflow.sdk.execution_time.comms import DeferTask
    from airflow.sdk.serde import serialize

    task, context = rendered(scenario, folder)
    try:
        task.execute(context)
    except TaskDeferred as deferred:
        classpath, arguments = deferred.trigger.serialize()
        message = DeferTask(
            classpath=classpath,
            trigger_kwargs=serialize(arguments),
            trigger_timeout=deferred.timeout,
            next_method=deferred.method_name,
            next_kwargs=serialize(deferred.kwargs or {}),
        )
        (folder / DEFERRED).write_text(message.model_dump_json())


def triggerer(scenario: Scenario, folder: Path, meters: Meters) -> None:  # noqa: ARG001
    """Make the trigger as a triggerer does, run it, and write its event."""
    from airflow.models.trigger import Trigger
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    message = json.loads((folder / DEFERRED).read_text())
    arguments = Trigger._decrypt_kwargs(json.dumps(message["trigger_kwargs"]))  # noqa: SLF001 -- like the triggerer
    module, _, name = message["classpath"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    decode: Callable[[Any], Any] = smart_decode_trigger_kwargs
    trigger = kind(**{key: decode(value) for key, value in arguments.items()})

    async def run() -> None:
        async for event in trigger.run():
            (folder / EVENT).write_text(json.dumps(event.payload))

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meters.selector)) as runner:
        runner.run(run())


def resume(scenario: Scenario, folder: Path) -> None:
    """Resume the operator with the event, and write the result in the format of XComs."""
    from airflow.sdk.serde import serialize

    message = json.loads((folder / DEFERRED).read_text())
    task, context = rendered(scenario, folder)
    event = {**message["next_kwargs"], "event": json.loads((folder / EVENT).read_text())}
    result = task.resume_execution(message["next_method"], event, context)
    (folder / RESULT).write_text(json.dumps(serialize(result)))


def main(part: str, scenario: Scenario, folder: Path) -> MapPart:
    """Import the existing modules, run the part and measure it."""
    for module in TRIGGERER if part == "triggerer" else WORKER:
        importlib.import_module(module)
    meters = Meters()
    parts: dict[str, tuple[Callable[[], None], str]] = {
        "worker": (lambda: worker(scenario, folder), DEFERRED),
        "triggerer": (lambda: triggerer(scenario, folder, meters), EVENT),
        "resume": (lambda: resume(scenario, folder), RESULT),
    }
    do, hands_on = parts[part]
    do()
    return MapPart(part, meters.read(), (folder / hands_on).stat().st_size)


if __name__ == "__main__":
    done = main(sys.argv[1], Scenario(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    (Path(sys.argv[3]) / f"{done.name}.part.json").write_text(json.dumps(asdict(done)))
