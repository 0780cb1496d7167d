"""Node converters for astronomer-cosmos: each node of a dbt project becomes a Batch job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.empty import EmptyOperator

from airflow_jobflow.operators.batch import BatchJobOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from cosmos.constants import TestBehavior
    from cosmos.dbt.graph import DbtNode

# Without the option, dbt succeeds if the project in the image does not have the node.
DBT = ["dbt", "--no-use-colors", "--warn-error-options", '{"error": ["NoNodesForSelectionCriteria"]}']
COMMANDS = {"seed": "seed", "snapshot": "snapshot", "model": "run"}
ONLY_ITS_TESTS = ["--indirect-selection", "cautious"]  # not those that need other nodes, too


def batch_jobs(**parameters: Any) -> tuple[Callable[..., BaseOperator], Callable[..., BaseOperator]]:
    """Return the converter of seeds, snapshots and models, and the converter of tests.

    :param parameters: of every job. ``operator_kwargs`` in a node's ``meta`` override them.
    """

    def run(*, node: DbtNode, test_behavior: TestBehavior, **given: Any) -> BaseOperator:
        if node.has_ephemeral_materialization:  # it is a part of the models that use it
            return EmptyOperator(**place(given))
        if test_behavior.value == "build":
            return job(node, ["build", *selection(node), *ONLY_ITS_TESTS], given)
        return job(node, [COMMANDS[node.resource_type.value], *selection(node)], given)

    def test(
        *,
        node: DbtNode,
        test_behavior: TestBehavior,
        detached_from_parent: Mapping[str, Sequence[DbtNode]],
        **given: Any,
    ) -> BaseOperator:
        if test_behavior.value == "after_all":
            return BatchJobOperator(job_name="dbt-test", command=[*DBT, "test"], **parameters, **place(given))
        # For a test of several nodes, cosmos 1.15 passes an unrelated node. The id of the task is right.
        detached = {test_id(each): each for tests in detached_from_parent.values() for each in tests}
        node = detached.get(given["task_id"], node)
        return job(node, ["test", *selection(node), *ONLY_ITS_TESTS], given)

    def job(node: DbtNode, arguments: Sequence[str], given: Mapping[str, Any]) -> BaseOperator:
        return BatchJobOperator(
            job_name=f"dbt-{node.name}"[:100],
            command=[*DBT, *arguments],
            **{**parameters, **node.operator_kwargs_to_override, **place(given)},
        )

    return run, test


def place(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that say where a task is."""
    return {name: given[name] for name in ("task_id", "dag", "task_group")}


def selection(node: DbtNode) -> list[str]:
    """Return the arguments of dbt that select a node."""
    return ["--select", "fqn:" + ".".join(node.fqn or [node.resource_name])]


def test_id(node: DbtNode) -> str:
    """Return the id of the task of a test of several nodes."""
    return f"{node.resource_name.partition('.')[0]}_test"
