"""Only ``airflow_compat`` uses parts of Airflow that are not public or differ between versions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import airflow.sdk
import pytest
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import DAG, BaseOperatorLink, BaseSensorOperator
from airflow.triggers.base import BaseEventTrigger

import airflow_jobflow

PACKAGE = Path(airflow_jobflow.__file__).parent

PUBLIC = ("airflow.sdk.exceptions", "airflow.triggers.base", "airflow.plugins_manager", "airflow.providers")
"""Modules whose names are public, beside ``airflow.sdk``: see "Public Interface" in Airflow's documentation. It lists
the exceptions as ``airflow.exceptions``, which imports them from ``airflow.sdk.exceptions``.
"""

NOT_PUBLIC = {
    # Members of a task, a task group or a mapped task for the scheduler.
    "expand_input", "iter_mapped_dependants", "iter_mapped_dependencies", "get_closest_mapped_task_group",
    "get_needs_expansion", "partial_kwargs", "get_serialized_fields", "has_dag",
    # Attributes that only some versions set on a trigger or on the context.
    "timeout_after", "asset_state_store", "task_state_store", "clear_number",
    # Modules that a dotted name or a string could use.
    "SUPERVISOR_COMMS", "execution_time", "get_listener_manager",
}  # fmt: skip
"""Names of Airflow that no other module may read, as attributes, keys, or strings for ``getattr``."""

OURS = {("jobs", "clear_number"), ("maps", "clear_number"), ("operators", "clear_number")}
"""Our own names that are spelled like one of them, by package: ``jobs.attempt.Attempt`` has a ``clear_number``."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Return all modules except those of ``airflow_compat`` and of the local AWS, which does not run inside Airflow."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(("airflow_compat/", "local/")):
            yield name, ast.parse(path.read_text())


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Return all nodes except those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def imported(node: ast.AST) -> list[tuple[str, str]]:
    """Return what an import statement imports from Airflow: modules, and names in them."""
    if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "airflow":
        return [(node.module or "", alias.name) for alias in node.names]
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "airflow"]
    return []


def is_public(module: str, name: str) -> bool:
    """Return whether Airflow documents a name as public."""
    if not name or name.startswith("_"):
        return False
    if module == "airflow.sdk":
        return name in airflow.sdk.__all__
    return any(module == each or module.startswith(f"{each}.") for each in PUBLIC)


def test_only_airflow_compat_imports_non_public_modules() -> None:
    """A minor version of Airflow may remove them. Then only one package must change."""
    found = [
        f"{path}: {module}.{name}"
        for path, tree in modules()
        for node in runtime_nodes(tree)
        for module, name in imported(node)
        if not is_public(module, name)
    ]
    assert found == []


def test_only_airflow_compat_reads_non_public_attributes() -> None:
    """They need no import, so no other check finds them."""
    found = [
        f"{path}:{getattr(node, 'lineno', 0)}: {name}"
        for path, tree in modules()
        for node in runtime_nodes(tree)
        for name in names_read(node)
        if name in NOT_PUBLIC and (path.split("/")[0], name) not in OURS
    ]
    assert found == []


PRIVATE = {
    name
    for base in (BaseSensorOperator, BaseEventTrigger, BaseOperatorLink, AirflowPlugin, DAG)
    for name in dir(base)
    if name.startswith("_") and not name.startswith("__")
}
"""Protected names of the base classes of our classes."""


def test_only_airflow_compat_uses_protected_names_of_airflows_classes() -> None:
    """No class of ours may define such a name by accident either, because it would replace Airflow's."""
    found = [
        f"{path}:{getattr(node, 'lineno', 0)}: {name}"
        for path, tree in modules()
        if path.split("/")[0] in ("operators", "sensors", "triggers", "ui", "waiting", "links.py")
        for node in runtime_nodes(tree)
        for name in [*names_read(node), *([node.name] if isinstance(node, ast.FunctionDef) else [])]
        if name in PRIVATE
    ]
    assert found == []


def names_read(node: ast.AST) -> list[str]:
    """Return the attribute or the string that a node reads."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return []


@pytest.mark.parametrize("line", ["import airflow.models", "from airflow.sdk.execution_time import xcom"])
def test_the_check_finds_non_public_names(line: str) -> None:
    """A check that finds nothing would always pass."""
    [found] = imported(ast.parse(line).body[0])
    assert not is_public(*found)


def test_the_check_finds_an_import_inside_a_function() -> None:
    """Most imports of Airflow are there, so that a DAG file is parsed quickly."""
    tree = ast.parse("def f():\n    from airflow.sdk.bases.xcom import BaseXCom\n")
    assert [each for node in runtime_nodes(tree) for each in imported(node)] == [("airflow.sdk.bases.xcom", "BaseXCom")]


def test_every_module_of_airflow_compat_names_the_checked_versions() -> None:
    """Otherwise nobody knows whether a new version of Airflow was checked."""
    without = [
        f"{path.stem}.{node.name}"
        for path in sorted((PACKAGE / "airflow_compat").glob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        if not any(version in f"{ast.get_docstring(node)} {module_docstring(path)}" for version in ("3.2.1", "3.3.2"))
    ]
    assert without == []


def module_docstring(path: Path) -> str:
    """Return the docstring of a module."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""
