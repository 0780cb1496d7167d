"""The sample DAGs in the UI: their documentation, and clear graphs."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

FILES = {
    name: file
    for file in sorted((Path(__file__).parents[2] / "dags").glob("*.py"))
    for name in [each.name for each in ast.parse(file.read_text()).body if isinstance(each, ast.FunctionDef)]
    if f"\n{name}()\n" in file.read_text()
}
"""The files by the id of their DAG."""
AT_A_GLANCE = 4
"""The maximum number of boxes in a graph with closed groups, as the UI opens it."""


def test_every_dag_is_tested(dags: Any) -> None:
    """A DAG that is missing here is not checked."""
    assert set(FILES) == set(dags)


@pytest.mark.parametrize("name", FILES)
def test_a_dag_has_its_documentation_in_the_ui(dags: Any, name: str) -> None:
    """Users of the UI do not see the file. It is Markdown, with a heading, the flow's name, and what to replace."""
    doc = ast.get_docstring(ast.parse(FILES[name].read_text()), clean=False)
    assert dags[name].doc_md == doc
    assert doc
    assert doc.startswith("### ")
    assert "**" in doc


def test_the_branches_of_a_graph_have_labels(dags: Any) -> None:
    """Otherwise users must read the code to distinguish them."""
    branches = [(dag, task) for dag in dags.values() for task in dag.tasks if task.inherits_from_skipmixin]
    assert {task.task_id for _, task in branches} == {"job_complete", "crawl_complete", "has_rows"}
    for dag, task in branches:
        labels = [dag.get_edge_info(task.task_id, after).get("label") for after in task.downstream_task_ids]
        assert len(labels) > 1
        assert all(labels), f"{task.task_id}: {labels}"
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", FILES)
def test_a_graph_is_small(dags: Any, name: str) -> None:
    """Tasks that are many are in groups, and the graph has one root."""
    dag = dags[name]
    assert len(dag.task_group.children) <= AT_A_GLANCE
    assert len(dag.roots) == 1
