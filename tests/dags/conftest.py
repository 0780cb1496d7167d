"""A real Airflow, as far as `airflow dags test` has one: a database, the sample DAGs, and the local AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.samples import provision


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's metadata database of this test process."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def samples() -> Iterator[LocalAws]:
    """A local AWS with the resources of the sample DAGs."""
    with LocalAws() as aws:
        provision(aws.endpoint_url)
        yield aws


@pytest.fixture
def dags(database: None) -> Any:
    """The sample DAGs, newly imported."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag()
    assert bag.import_errors == {}
    return bag.dags


class Run:
    """The result of a DAG run."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.state = str(run.state)
        """The state of the run."""
        self.run_id = str(run.run_id)
        """The run id of Airflow."""

    @property
    def states(self) -> dict[str, str]:
        """Return the final state of each task; for a mapped one, of each instance."""
        instances = self._run.get_task_instances()
        return {ti.task_id + ("" if ti.map_index < 0 else f"[{ti.map_index}]"): str(ti.state) for ti in instances}

    @property
    def tries(self) -> dict[str, int]:
        """Return the number of tries of each task."""
        return {ti.task_id: ti.try_number for ti in self._run.get_task_instances()}

    def returned(self, task_id: str) -> Any:
        """Return the result of a task."""
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
    """Return a function that runs a sample DAG with an AWS, like ``airflow dags test``."""

    def run(aws: LocalAws, dag_id: str, **conf: Any) -> Run:
        here(aws)
        return Run(dags[dag_id].test(run_conf={"wait_time": 0.2, **conf}))

    return run


@pytest.fixture
def test_dag(run_on: Callable[..., Run], samples: LocalAws) -> Callable[..., Run]:
    """Return a function that runs a sample DAG with the AWS that all tests share."""
    return lambda dag_id, **conf: run_on(samples, dag_id, **conf)
