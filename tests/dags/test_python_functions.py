"""The sample of Python functions in containers, run like `airflow dags test`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_python_functions_get_their_arguments_and_return_their_values(test_dag: Callable[..., Any]) -> None:
    """From task to task, as functions on workers do; a mapped one gets one task instance for each argument."""
    run = test_dag("python_functions", steps=1000)
    assert run.state == "success"
    assert run.states == {
        **{f"integrate[{index}]": "success" for index in range(3)},
        "add": "success",
        "report": "success",
    }
    assert run.returned("report") == "π is about 3.141593"
