"""The examples of the documentation run as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_jobflow import exceptions
from airflow_jobflow.jobs import causes

EXAMPLES: Final = Path(__file__).parents[2] / "docs" / "examples"

RETURNED: Final[dict[str, tuple[str, Any]]] = {
    "batch_array": ("count", [3]),
    "batch_map": ("failed", [3]),
    "ecs_items": ("scored", 10),
    "ecs_task": ("report", "ecs"),
    "fargate_items": ("count", 5),
    "glue_crawl": ("changes", "se2_in0: "),
    "batch_job": ("report", "greet-"),
    "from_image": ("score", "batch"),
    "fargate_task": ("process", "ecs"),
    "glue_job_run": ("to_parquet", "glue_run"),
    "sensors": ("crawled", "glue_crawl"),
    "functions": ("describe", "2 times a, 2 times rose"),
    "functions_map": ("halve", [5.0, 2.5, 1.25]),
    "retries": ("by_batch", "batch"),
}
"""For each DAG of the examples, a task and its result: the value, the start of it, or the service of an outcome."""


@pytest.fixture(scope="module")
def dags(database: None) -> Any:
    """The DAGs of the examples."""
    from airflow.dag_processing.dagbag import DagBag

    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
        [
            {
                "name": "examples",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(EXAMPLES)},
            }
        ]
    )
    bag = DagBag(EXAMPLES)
    assert bag.import_errors == {}
    yield bag.dags
    del os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"]


FAILING: Final = {"alerting"}
"""The DAGs of the examples that fail on purpose; each has its own test."""


def test_no_example_is_forgotten(dags: Any) -> None:
    """An example that nobody runs breaks sooner or later."""
    assert set(dags) == set(RETURNED) | FAILING


@pytest.mark.parametrize("dag_id", RETURNED)
def test_an_example_does_what_its_page_says(dags: Any, samples: Any, here: Callable[[Any], None], dag_id: str) -> None:
    """Readers copy it."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    here(samples)
    run = dags[dag_id].test()
    states = {f"{each.task_id} {each.map_index}": str(each.state) for each in run.get_task_instances()}
    assert set(states.values()) == {"success"}, states
    task_id, expected = RETURNED[dag_id]
    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id, task_ids=task_id, key="return_value")
        returned = XComModel.deserialize_value(session.scalars(query).first())
    if isinstance(expected, str):
        returned = returned["service"] if isinstance(returned, dict) else returned
        assert returned.startswith(expected)
    else:
        assert returned == expected


def test_the_alert_of_the_example_names_who_has_to_act(
    dags: Any, samples: Any, here: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A callback without the diagnosis alerts the wrong team, or nobody."""
    here(samples)
    assert str(dags["alerting"].test().state) == "failed"
    [alert] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("To #")]
    assert re.fullmatch(r"To #data-team: command_failed: .+ https://\S+", alert)


@pytest.mark.parametrize(
    ("raised", "channel", "text"),
    [
        (ValueError("of another operator"), "#dag-owners", "t failed: of another operator"),
        (exceptions.JobTimeout("too late"), "#dag-owners", "JobTimeout: too late"),
        (
            exceptions.JobFailed("no memory", diagnosis=causes.OUT_OF_MEMORY),
            "#platform",
            "out_of_memory: The container",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["as it is", "as the cause of another"])
def test_the_alert_of_the_example_finds_the_error(
    raised: Exception, channel: str, text: str, *, is_wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.2 passes an AirflowFailException, whose cause is the error."""
    from docs.examples import alerting

    outer = raised
    if is_wrapped and isinstance(raised, exceptions.JobflowError):
        outer = AirflowFailException("no retry")
        outer.__cause__ = raised
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(alerting, "send", lambda *message: sent.append(message))
    alerting.alert({"exception": outer, "ti": SimpleNamespace(task_id="t")})
    [(to, said)] = sent
    assert to == channel
    assert said.startswith(text)


def test_the_example_of_a_test_passes(root: Path, tmp_path: Path) -> None:
    """It runs as a reader would run it, in a separate pytest and Airflow."""
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "docs/testing"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    assert "5 passed" in answer.stdout
