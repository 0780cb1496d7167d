"""astronomer-cosmos: a dbt project on DuckDB, each node of which is a Batch job of ours. See ``docs/cosmos.md``."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.clients.environments import ROOT, python_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local import LocalAws

COSMOS: Final = "astronomer-cosmos==1.15.1"
DBT: Final = ("dbt-core==1.11.16", "dbt-duckdb==1.11.1")
CONSTRAINTS: Final = {
    path.name.removeprefix("airflow-").partition("-")[0]: path
    for path in sorted((ROOT / "tests" / "constraints").glob("airflow-*.txt"))
}
"""By the version of Airflow."""
NEWEST: Final = list(CONSTRAINTS)[-1]

PROGRAMS: Final = Path(__file__).parent / "programs" / "dbt_shop"
EXAMPLE: Final = ROOT / "docs" / "dbt_shop"

RELATIONSHIPS: Final = "relationships_orders_customer__customer__ref_customers_"
EACH: Final = {
    "raw_orders_seed": "seed --select fqn:shop.raw_orders",
    "orders.run": "run --select fqn:shop.orders",
    "orders.test": "test --select fqn:shop.orders --indirect-selection cautious",
    "customers_run": "run --select fqn:shop.customers",
    "order_history_snapshot": "snapshot --select fqn:shop.order_history",
    f"{RELATIONSHIPS}_test": f"test --select fqn:shop.{RELATIONSHIPS} --indirect-selection cautious",
}
"""What dbt does in each task, with tests after each node."""
BUILDS: Final = {
    "raw_orders_seed_build": "build --select fqn:shop.raw_orders --indirect-selection cautious",
    "orders_model_build": "build --select fqn:shop.orders --indirect-selection cautious",
    "customers_model_build": "build --select fqn:shop.customers --indirect-selection cautious",
    "order_history_snapshot_build": "build --select fqn:shop.order_history --indirect-selection cautious",
    f"{RELATIONSHIPS}_test": EACH[f"{RELATIONSHIPS}_test"],
}
"""The same, with tests in the jobs of their nodes."""


@dataclass(frozen=True)
class Done:
    """What a run of the DAG did."""

    states: Mapping[str, str]
    """The state of each task."""
    commands: Mapping[str, str]
    """For each task that started a job, what dbt did, without its general options."""
    printed: str
    """All logs."""


class Shop:
    """A copy of the dbt project and of its DAG, and a database.

    :param directory: for the copies.
    :param aws: where the jobs run.
    :param run: runs a client.
    """

    def __init__(self, directory: Path, aws: LocalAws, run: Callable[..., str]) -> None:
        self.project = directory / "project"
        self._dags = directory / "dags"
        self._aws = aws
        self._run = run
        self._dbt = python_environment("dbt", *DBT)
        self._database = directory / "shop.duckdb"
        self._image = {
            "PATH": f"{self._dbt}:/usr/bin:/bin",
            "DBT_PROJECT_DIR": str(self.project),
            "DBT_PROFILES_DIR": str(self.project),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "SHOP_DATABASE": str(self._database),
        }
        shutil.copytree(PROGRAMS / "project", self.project)
        shutil.copytree(EXAMPLE, self._dags)
        self._run([self._dbt / "dbt", "parse"], self._image)
        shutil.copy(self.project / "target" / "manifest.json", self._dags)

    def run(self, airflow: str = NEWEST, *, test_behavior: str = "AFTER_EACH") -> Done:
        """Run the DAG."""
        earlier = len(self._aws.started("batch"))
        dag = self._dags / "dag.py"
        dag.write_text(dag.read_text().replace("TestBehavior.AFTER_EACH", f"TestBehavior.{test_behavior}"))
        python = python_environment(
            f"cosmos-airflow-{airflow}",
            *(COSMOS, f"apache-airflow=={airflow}", "--constraint", str(CONSTRAINTS[airflow]), "--editable", str(ROOT)),
        )
        environment = {
            "AIRFLOW_HOME": str(self.project.parent / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
            "AIRFLOW__JOBFLOW__POLL_INTERVAL": "0.5",
            "IMAGE_ENVIRONMENT": json.dumps(self._image),
        }
        printed = self._run([python / "python", PROGRAMS / "run_dag.py", self._dags], environment)
        ids = [job["jobId"] for job in self._aws.started("batch")[earlier:]]
        containers = [job["container"] for job in self._aws.client("batch").describe_jobs(jobs=ids)["jobs"]]
        return Done(
            states=dict(re.findall(r"^state of (\S+): (\w+)$", printed, re.MULTILINE)),
            commands={task_of(each): " ".join(each["command"][4:]) for each in containers},
            printed=printed,
        )

    def totals(self) -> str:
        """Return what the last model made of the seed."""
        query = "select customer, total from customers order by customer"
        program = f"import duckdb; print(dict(duckdb.connect({str(self._database)!r}).sql({query!r}).fetchall()))"
        return self._run([self._dbt / "python", "-c", program]).strip()


@pytest.fixture
def shop(tmp_path: Path, aws: LocalAws, run: Callable[..., str]) -> Shop:
    """The dbt project and its DAG."""
    return Shop(tmp_path, aws, run)


def task_of(container: Any) -> str:
    """Return the id of the task that started a container."""
    [task] = [each["value"] for each in container["environment"] if each["name"] == "AIRFLOW_CTX_TASK_ID"]
    return str(task)


@pytest.mark.parametrize("airflow", CONSTRAINTS)
def test_each_node_is_a_job(airflow: str, shop: Shop) -> None:
    """The test of two models runs after both."""
    done = shop.run(airflow)
    assert done.commands == EACH
    assert done.states == dict.fromkeys(EACH, "success")
    assert shop.totals() == "{'Ada': 42, 'Grace': 20}"


def test_a_build_runs_the_tests_of_a_node_in_its_job(shop: Shop) -> None:
    """Half as many containers are started."""
    done = shop.run(test_behavior="BUILD")
    assert done.commands == BUILDS
    assert set(done.states.values()) == {"success"}


def test_one_job_tests_all_at_the_end(shop: Shop) -> None:
    """The node that cosmos passes then is any one, and the job must test all."""
    done = shop.run(test_behavior="AFTER_ALL")
    assert done.commands["shop_test"] == "test"
    assert done.printed.count("PASS=2 ") == 1
    assert set(done.states.values()) == {"success"}


def test_a_failed_test_stops_what_depends_on_the_model(shop: Shop) -> None:
    """The task's log has what dbt printed."""
    with (shop.project / "seeds" / "raw_orders.csv").open("a") as seed:
        seed.write("3,Grace,5\n")
    done = shop.run()
    assert done.states["orders.run"] == "success"
    assert done.states["orders.test"] == "failed"
    assert done.states["customers_run"] == "upstream_failed"
    assert "Got 1 result, configured to fail if != 0" in done.printed


def test_a_node_that_the_image_lacks_fails(shop: Shop) -> None:
    """By default, dbt finds nothing to do and succeeds."""
    (shop.project / "snapshots" / "order_history.yml").unlink()
    done = shop.run()
    assert {task for task, state in done.states.items() if state != "success"} == {"order_history_snapshot"}
    assert "The selection criterion 'fqn:shop.order_history' does not match any enabled nodes" in done.printed
