"""Python functions that run in jobs, with the decorators, on the local AWS."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_jobflow import exceptions, results
from airflow_jobflow.aws import ONCE
from airflow_jobflow.decorators.batch import batch_task


@pytest.fixture
def bucket(kit: Any) -> str:
    """A new bucket."""
    name = f"functions-{uuid.uuid4().hex}"
    kit.aws.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def task(kit: Any, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make the operator of a decorated function, which waits here, and calls it with some arguments."""
    here(kit.aws)
    monkeypatch.setattr(results, "ARRIVAL", 0.0)
    monkeypatch.setattr(results, "READ", ONCE)

    def make(function: Callable[..., Any], *args: Any, parameters: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        given = {"job_name": "hello", "job_queue": kit.queue, "job_definition": kit.define()}
        given |= {"aws_conn_id": None, "deferrable": False, **(parameters or {})}
        with DAG("dag", schedule=None):
            return batch_task(**given)(function)(*args, **kwargs).operator

    return make


def test_a_function_returns_its_value(task: Any, context: Any) -> None:
    """Not the outcome of its job."""

    def add(first: int, second: int = 2) -> dict[str, int]:
        return {"sum": first + second}

    assert task(add, 1).execute(context) == {"sum": 3}


def test_an_exception_of_the_function_fails_the_task_with_its_traceback(task: Any, context: Any) -> None:
    """In the file and the line of the function."""

    def divide(number: int) -> float:
        return number / 0

    with pytest.raises(exceptions.JobFailed) as raised:
        task(divide, 1).execute(context)
    assert str(raised.value) == 1
