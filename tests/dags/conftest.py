"""A real Airflow, as far as `airflow dags test` has one: a database, the sample DAGs, and the local AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.samples import provision


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's metadata database, of this test process's own."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def samples() -> Iterator[LocalAws]:
    """A local AWS with what the sample DAGs need."""
    with LocalAws() as aws:
        provision(aws.endpoint_url)
        yield aws


@pytest.fixture
def dags(database: None) -> Any:
    """The sample DAGs, freshly imported."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag()
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture
def test_dag(dags: Any, samples: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a sample DAG as ``airflow dags test`` does, and return its DAG run."""
    for name, value in samples.environment().items():
        monkeypatch.setenv(name, value)
    return lambda dag_id, **conf: dags[dag_id].test(run_conf={"wait_time": 0.2, **conf})
