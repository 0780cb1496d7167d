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


class Run:
    """What has become of a DAG run."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.state = str(run.state)
        """Of the run."""
        self.run_id = str(run.run_id)
        """As Airflow names it."""

    @property
    def states(self) -> dict[str, str]:
        """How each task ended; of a mapped one, each of its instances."""
        instances = self._run.get_task_instances()
        return {ti.task_id + ("" if ti.map_index < 0 else f"[{ti.map_index}]"): str(ti.state) for ti in instances}

    @property
    def tries(self) -> dict[str, int]:
        """How often each task was tried."""
        return {ti.task_id: ti.try_number for ti in self._run.get_task_instances()}

    def returned(self, task_id: str) -> Any:
        """What a task returned."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            query = XComModel.get_many(
                run_id=self._run.run_id, dag_ids=self._run.dag_id, task_ids=task_id, key="return_value"
            )
            value = session.scalars(query).first()
            return value and XComModel.deserialize_value(value)


@pytest.fixture
def run_on(dags: Any, here: Callable[[LocalAws], None]) -> Callable[..., Run]:
    """Run a sample DAG against an AWS, as ``airflow dags test`` does."""

    def run(aws: LocalAws, dag_id: str, **conf: Any) -> Run:
        here(aws)
        return Run(dags[dag_id].test(run_conf={"wait_time": 0.2, **conf}))

    return run


@pytest.fixture
def test_dag(run_on: Callable[..., Run], samples: LocalAws) -> Callable[..., Run]:
    """Run a sample DAG against the AWS that all tests share."""
    return lambda dag_id, **conf: run_on(samples, dag_id, **conf)
