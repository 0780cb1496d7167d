"""A worker of the small Airflow: a process that executes one try of a task, like Airflow's task runner."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

# The server from which children are forked imports here, once, all modules that a try needs.
import boto3  # noqa: F401
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DeferTask
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_jobflow.jobs import batch, ecs, glue_crawl, glue_run  # noqa: F401
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.triggers import job as _job  # noqa: F401
from airflow_jobflow.triggers import map as _map  # noqa: F401
from tests.chaos.lines import Begun, Ended, Line, Store, Try, prepare

log = logging.getLogger("chaos.worker")

BATCH: Final[dict[str, Any]] = {"job_queue": "hello-world-queue", "job_definition": "hello-world"}
ECS: Final[dict[str, Any]] = {"cluster": "jobflow", "task_definition": "process-item", "subnets": ["subnet-1"]}
MAP: Final[dict[str, Any]] = {"max_concurrency": 3, "tolerated_failure_percentage": 100}
ITEMS: Final = 5


def _shell(token: str, seconds: float, code: int, index: str = "") -> list[str]:
    return ["sh", "-c", f"echo {token}{index}; sleep {seconds}; exit {code}"]


def _python(token: str, seconds: float, code: int, index: str = "") -> list[str]:
    said = f"{token!r}{index}"
    return ["-c", f"import os, sys, time; print({said}, flush=True); time.sleep({seconds}); sys.exit({code})"]


def _batch(token: str, seconds: float, code: int, **more: Any) -> Any:
    return BatchJobOperator(job_name=token, command=_shell(token, seconds, code), **BATCH, **more)


def _fargate(token: str, seconds: float, code: int, **more: Any) -> Any:
    return FargateTaskOperator(command=_python(token, seconds, code), **ECS, **more)


def _glue(token: str, seconds: float, code: int, **more: Any) -> Any:
    arguments = {"--token": token, "--seconds": str(seconds), "--code": str(code)}
    return GlueJobRunOperator(job_name="stack-job", script_args=arguments, **more)


def _crawl(token: str, seconds: float, code: int, **more: Any) -> Any:
    return GlueCrawlOperator(crawler_name=f"{token}crawler", if_running="wait_then_start", **more)


def _batch_map(token: str, seconds: float, code: int, **more: Any) -> Any:
    command = _shell(token, seconds, code, "$JOBFLOW_MAP_INDEX")
    return BatchMapOperator(job_name=token, command=command, items=[{}] * ITEMS, **BATCH, **MAP, **more)


def _fargate_map(token: str, seconds: float, code: int, **more: Any) -> Any:
    command = _python(token, seconds, code, " + os.environ['JOBFLOW_MAP_INDEX']")
    return FargateMapOperator(command=command, items=[{}] * ITEMS, **ECS, **MAP, **more)


OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "batch": _batch,
    "fargate": _fargate,
    "glue": _glue,
    "crawl": _crawl,
    "batch_map": _batch_map,
    "fargate_map": _fargate_map,
}
"""Creates the operator of each kind of task: called with a token, and the seconds and exit code of its jobs."""


class TaskStateStore:
    """The task state store."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def get(self, key: str, default: Any = None) -> Any:
        """Read a value."""
        value = self._line.send(Store(key))
        return default if value is None else json.loads(value)

    def set(self, key: str, value: Any) -> None:
        """Write a value as JSON, like Airflow."""
        self._line.send(Store(key, json.dumps(value)))


def context_of(one: Try, line: Line) -> dict[str, Any]:
    """Return the parts of the context of ``execute`` that are used."""
    ti = SimpleNamespace(
        id=one.ti_id,
        dag_id=one.key.dag_id,
        run_id=one.key.run_id,
        task_id=one.key.task_id,
        map_index=one.key.map_index,
        is_mapped=one.key.map_index >= 0,
        try_number=one.try_number,
        max_tries=one.max_tries,
        xcom_push=lambda key, value: None,  # noqa: ARG005
        get_task_states=RuntimeTaskInstance.get_task_states,
    )
    began_at = datetime.fromtimestamp(one.run_started, tz=UTC)
    dag_run = SimpleNamespace(clear_number=one.clear_number, start_date=began_at, logical_date=None)
    return {"ti": ti, "dag_run": dag_run, "task_state_store": TaskStateStore(line)}


def work(one: Try, connection: Connection, environment: Mapping[str, str], log_file: Path) -> None:
    """Execute a try; the target of a process."""
    prepare(environment, log_file)
    line = Line(connection)
    if not line.send(Begun()):
        return
    log.info("Try %d of %s (%s), then %s", one.try_number, one.key, one.ti_id, one.next_method)
    runner: Any = task_runner
    runner.SUPERVISOR_COMMS = line
    operator = OPERATORS[one.kind](task_id=one.key.task_id, aws_conn_id=None, **one.parameters)
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    context = context_of(one, line)
    try:
        if one.next_method:
            returned = operator.resume_execution(one.next_method, dict(one.next_kwargs or {}), context)
        else:
            returned = operator.execute(context)
        end = Ended("success", json.loads(json.dumps(returned)))
    except TaskDeferred as deferral:
        classpath, kwargs = deferral.trigger.serialize()
        message = DeferTask(
            classpath=classpath,
            trigger_kwargs=json.loads(json.dumps(kwargs)),
            trigger_timeout=deferral.timeout,
            next_method=deferral.method_name,
            next_kwargs=json.loads(json.dumps(deferral.kwargs or {})),
        )
        try:
            runner.SUPERVISOR_COMMS.send(message)
        except Exception as error:  # noqa: BLE001 -- as in Airflow, the process logs it and ends
            log.error("The deferral was rejected: %s", error)  # noqa: TRY400
        os._exit(0)
    except AirflowFailException as error:
        log.exception("Failed for good")
        end = Ended("failed", error=str(error))
    except Exception as error:
        log.exception("Failed")
        end = Ended("retry", error=f"{type(error).__name__}: {error}")
    try:
        line.send(end)
    except Exception as error:  # noqa: BLE001 -- as in Airflow
        log.error("The end was rejected: %s", error)  # noqa: TRY400
    os._exit(0)


FAILED_TRIGGER: Final = TRIGGER_FAIL_REPR
"""The method with which Airflow resumes a task whose trigger has failed or timed out."""
