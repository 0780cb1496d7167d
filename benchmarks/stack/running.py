"""The stack of docker-compose.yaml as the tests run it, without what would disturb or distort a measurement.

Differences from the tests: heartbeats and timeouts are those of docker-compose.yaml, only the benchmark's DAGs exist,
and the AWS is the metered stand-in.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # it comes with the group "stack", its stubs do not

from benchmarks.runs import ROOT
from tests.stack import compose
from tests.stack.airflow_api import Airflow
from tests.stack.instance import Instance
from tests.stack.stack import GATED, Stack

HEALTH = "import sys, urllib.request as web; web.urlopen(sys.argv[1], timeout=8)"
"""The healthcheck of the stand-in."""


class BenchStack(Stack):
    """A whole Airflow with a stand-in for AWS: a context manager.

    :param directory: the directory of all of its files.
    :param dags: the folder of the DAGs.
    :param settings: environment variables for Airflow in addition to those of docker-compose.yaml.
    :param scale: the number of instances of services that have more than one.
    """

    def __init__(self, directory: Path, dags: Path, settings: Mapping[str, str], scale: Mapping[str, int]) -> None:
        self._settings = settings
        self._faster = compose.read(compose.OVERLAY)["x-airflow"]["environment"]
        super().__init__(directory, scale, [dags])
        self.airflow = Airflow(self.url)

    def _mounted(self, dags: Sequence[Path]) -> dict[str, str]:
        volumes = super()._mounted(dags)
        for link in Path(volumes["./dags"]).iterdir():
            if link.readlink() == compose.ROOT / "dags":
                link.unlink()
        return volumes

    def _instance(self, service: compose.Service, number: int) -> Instance:
        made = super()._instance(service, number)
        if service.name == GATED:
            url = f"{self.aws_url}/health"
            command = ["python", "-m", "benchmarks.stack.standin", self.ports[GATED]]
            environment = {**made.environment, "PYTHONPATH": str(ROOT)}
            return replace(made, command=command, health=["python", "-c", HEALTH, url], environment=environment)
        if "AIRFLOW_HOME" not in made.environment:
            return made
        gate, direct = (
            f"127.0.0.1:{self.gate.port}",
            f"127.0.0.1:{self.ports[GATED]}",
        )  # a gate would be another process
        environment = {
            name: value.replace(gate, direct) for name, value in made.environment.items() if name not in self._faster
        }
        return replace(made, environment={**environment, "PYTHONPATH": str(ROOT), **self._settings})

    def prepare(self, dag_ids: Sequence[str]) -> None:
        """Wait until DAGs exist, and unpause them."""
        self.airflow.prepare(dag_ids)

    def ask_aws(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a plan to the stand-in, or request its counts."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.aws_url}{path}", data=data, timeout=60) as answer:
            return json.load(answer)

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Query Airflow's database: unlike the API, this uses no resources of Airflow that would be measured."""
        service = self.services["postgres"]
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.ports["postgres"],
            dbname=service.environment["POSTGRES_DB"],
            user=service.environment["POSTGRES_USER"],
            password=service.environment["POSTGRES_PASSWORD"],
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()
