"""The example of ``docs/cosmos.md``, without cosmos: ``make test-clients ONLY=cosmos`` runs it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_jobflow.operators.batch import BatchJobOperator
from docs.dbt_shop import node_converters
from docs.dbt_shop.node_converters import batch_jobs
from tests.clients.test_cosmos import CONSTRAINTS, COSMOS, DBT

QUEUE = {"job_queue": "queue", "image": "dbt-shop", "retries": 2}
CAUTIOUS = ["--indirect-selection", "cautious"]


def node(name: str, kind: str = "model", *, ephemeral: bool = False, **own: Any) -> Any:
    """A node as cosmos passes it, with the attributes that the example uses."""
    return SimpleNamespace(
        name=name.replace(".", "_"),
        resource_name=name,
        resource_type=SimpleNamespace(value=kind),
        fqn=["shop", "marts", name.partition(".")[0]],
        has_ephemeral_materialization=ephemeral,
        operator_kwargs_to_override=own,
    )


DETACHED = node("orders_refer_to_customers.c6ec7f58f2", "test", memory=1024)


def converted(
    which: str, of: Any, task_id: str = "task", behavior: str = "after_each", parameters: Mapping[str, Any] = QUEUE
) -> Any:
    """The task that the example makes of a node, called as cosmos calls it."""
    run, test = batch_jobs(**parameters)
    return {"run": run, "test": test}[which](
        node=of,
        task_id=task_id,
        dag=DAG("dag", schedule=None),
        task_group=None,
        test_behavior=SimpleNamespace(value=behavior),
        detached_from_parent={"model.shop.orders": [DETACHED], "model.shop.customers": [DETACHED]},
        execution_mode="and other arguments",
    )


@pytest.mark.parametrize(
    ("which", "kind", "behavior", "expected"),
    [
        ("run", "model", "after_each", ["run", "--select", "fqn:shop.marts.orders"]),
        ("run", "seed", "after_all", ["seed", "--select", "fqn:shop.marts.orders"]),
        ("run", "snapshot", "none", ["snapshot", "--select", "fqn:shop.marts.orders"]),
        ("run", "seed", "build", ["build", "--select", "fqn:shop.marts.orders", *CAUTIOUS]),
        ("test", "model", "after_each", ["test", "--select", "fqn:shop.marts.orders", *CAUTIOUS]),
        ("test", "model", "after_all", ["test"]),
    ],
)
def test_a_node_becomes_the_job_that_runs_it(which: str, kind: str, behavior: str, expected: list[str]) -> None:
    """Another command would build or test something else."""
    task = converted(which, node("orders", kind), behavior=behavior)
    assert isinstance(task, BatchJobOperator)
    assert task.command == [*node_converters.DBT, *expected]
    assert task.retries == 2


def test_a_test_of_several_nodes_is_found_by_its_task_id() -> None:
    """The node that cosmos passes is another one: dbt would test that, or nothing."""
    task = converted("test", node("the_last_one"), f"{DETACHED.resource_name.partition('.')[0]}_test")
    assert task.command[4:] == ["test", "--select", "fqn:shop.marts.orders_refer_to_customers", *CAUTIOUS]
    assert task.memory == 1024


def test_a_node_has_its_own_size() -> None:
    """``operator_kwargs`` in its ``meta`` override the parameters of all."""
    task = converted("run", node("orders", memory=8192, retries=0))
    assert (task.memory, task.retries, task.job_queue) == (8192, 0, "queue")


def test_an_ephemeral_model_starts_no_job() -> None:
    """A job would do nothing. What depends on the model needs a task to depend on."""
    assert not isinstance(converted("run", node("base", ephemeral=True)), BatchJobOperator)


def test_the_name_of_a_job_is_not_too_long() -> None:
    """Batch rejects a name of more than 128 characters, and dbt does not."""
    assert len(converted("run", node("o" * 200)).job_name) == 100


def test_the_page_says_with_which_versions_it_is_tried(docs: Path) -> None:
    """Readers compare them with theirs."""
    tried = (docs / "cosmos.md").read_text().partition("## Tried with")[2]
    assert [each for each in (COSMOS, *DBT) if each.replace("==", " ") not in tried] == []
    assert [version for version in CONSTRAINTS if version not in tried] == []


def constants_of(dag: ast.Module) -> Mapping[str, Any]:
    """The parameters of all jobs, with None for those that are not constants."""
    [call] = [each for each in ast.walk(dag) if isinstance(each, ast.Call) and ast.unparse(each.func) == "batch_jobs"]
    constants = {each.arg: each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)}
    return {each.arg: constants.get(each.arg) for each in call.keywords if each.arg is not None}


def test_the_dag_passes_parameters_that_exist(docs: Path) -> None:
    """It is parsed only where cosmos is installed."""
    given = constants_of(ast.parse((docs / "dbt_shop" / "dag.py").read_text()))
    assert {"job_queue", "image"} <= set(given)
    assert converted("run", node("orders"), parameters=given).image == given["image"]
