"""Copies of tasks that were executed or used, and their next execution."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.sensors.batch import BatchJobSensor

BATCH = {"job_name": "load", "job_queue": "queue", "job_definition": "definition"}


def _pickled(task: Any) -> Any:
    return pickle.loads(pickle.dumps(task))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, _pickled])
@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchJobOperator(task_id="load", **BATCH),
        lambda: BatchMapOperator(task_id="load", items=[], **BATCH),
        lambda: BatchJobSensor(task_id="load", job_id="1"),
    ],
)
def test_a_copy_of_a_used_task_makes_its_own_objects(make: Callable[[], Any], copied: Callable[[Any], Any]) -> None:
    """Airflow copies a task before each execution; a copy must not report for the original."""
    with DAG("flow", schedule=None):
        task = make()
    used = {name: getattr(task, name) for name in ("_report", "_execution", "_wait") if hasattr(task, name)}
    assert len(used) == 2
    other = copied(task)
    assert other.task_id == task.task_id
    assert other._report.task is other
    assert not any(getattr(other, name) is made for name, made in used.items())
    assert all(getattr(task, name) is made for name, made in used.items())


def test_a_dag_with_a_used_task_can_be_copied() -> None:
    """``DAG.partial_subset`` copies tasks that refer to modules and loggers."""
    with DAG("flow", schedule=None) as dag:
        task: Any = BatchJobOperator(task_id="load", **BATCH)
        task >> BatchJobSensor(task_id="wait", job_id="1")
    assert task._execution
    other: Any = copy.deepcopy(dag)
    assert other.task_dict["load"] is not task
    assert other.task_dict["load"].dag is other


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: BatchJobOperator(task_id="load", **BATCH), "job_name"),
        (lambda: BatchMapOperator(task_id="load", items=[], **BATCH), "job_name"),
        (lambda: BatchJobSensor(task_id="load", job_id="1"), "region_name"),
    ],
)
def test_the_next_execution_uses_the_current_parameters(make: Callable[[], Any], parameter: str) -> None:
    """A subclass may execute in a loop, with other parameters each time."""
    task = make()
    context: Any = {}

    def check() -> None:
        jobs = (task._wait if isinstance(task, BatchJobSensor) else task._execution).jobs
        raise Checked(jobs.outcome_builder.name, jobs.access.region_name)

    task.check = check
    for value in ("one", "other"):
        setattr(task, parameter, value)
        with pytest.raises(Checked) as checked:
            task.execute(context)
        assert value in checked.value.args


class Checked(Exception):
    """Ends an execution, and carries the parameters of the created objects."""
