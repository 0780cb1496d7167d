"""The sample DAGs in the UI: what each says of itself, and a graph that is read at a glance."""

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
"""By the DAG's id, the file that it is in."""
AT_A_GLANCE = 4
"""The most boxes of a graph whose groups are closed, as the UI opens it."""


def test_no_dag_is_forgotten(dags: Any) -> None:
    """One that is not found here is not looked at."""
    assert set(FILES) == set(dags)


@pytest.mark.parametrize("name", FILES)
def test_a_dag_says_in_the_ui_what_its_file_says(dags: Any, name: str) -> None:
    """Who opens it there sees no file. It is Markdown, with a heading, the flow's name, and what to replace."""
    doc = ast.get_docstring(ast.parse(FILES[name].read_text()), clean=False)
    assert dags[name].doc_md == doc
    assert doc
    assert doc.startswith("### ")
    assert "**" in doc


def test_a_branch_says_on_each_way_when_it_is_taken(dags: Any) -> None:
    """Otherwise one has to read the code to know which is which."""
    branches = [(dag, task) for dag in dags.values() for task in dag.tasks if task.inherits_from_skipmixin]
    assert {task.task_id for _, task in branches} == {"job_complete", "crawl_complete", "has_rows"}
    for dag, task in branches:
        labels = [dag.get_edge_info(task.task_id, after).get("label") for after in task.downstream_task_ids]
        assert len(labels) > 1
        assert all(labels), f"{task.task_id}: {labels}"
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", FILES)
def test_a_graph_is_read_at_a_glance(dags: Any, name: str) -> None:
    """What is many is in groups; no arrow comes from nowhere."""
    dag = dags[name]
    assert len(dag.task_group.children) <= AT_A_GLANCE
    assert len(dag.roots) == 1
