"""Every public function documents each of its parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[2] / "airflow_jobflow"

Function = ast.FunctionDef | ast.AsyncFunctionDef

INHERITED: Final = {"log_message"}
"""Methods of classes of the standard library, which documents them."""


def classes() -> dict[str, ast.ClassDef]:
    """All classes of the package, by name."""
    trees = (ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py"))
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def is_inherited(function: Function, owner: ast.ClassDef | None, known: dict[str, ast.ClassDef]) -> bool:
    """Return whether a base class of the package has, and so documents, this method."""
    for base in owner.bases if owner else ():
        name = base.value if isinstance(base, ast.Subscript) else base
        parent = known.get(name.id) if isinstance(name, ast.Name) else None
        if parent and (
            any(getattr(each, "name", None) == function.name for each in parent.body)
            or is_inherited(function, parent, known)
        ):
            return True
    return False


def public_functions(
    body: list[ast.stmt], owner: ast.ClassDef | None = None
) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    """Return the public functions of a module and the public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, node)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node, owner


def undocumented(function: Function) -> list[str]:
    """Return the parameters that a docstring does not name."""
    documented: set[str] = set()
    for names in re.findall(r":param ([\w, \n]+?):", ast.get_docstring(function) or ""):
        documented.update(name.strip() for name in names.split(","))
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = [each.arg for each in arguments if each.arg not in ("self", "cls") and not each.arg.startswith("_")]
    return [name for name in names if name not in documented]


def test_each_parameter_of_a_public_function_is_documented() -> None:
    """Readers should not have to find the caller to learn what is passed, and in which unit."""
    known = classes()
    missing = [
        f"{path.relative_to(PACKAGE)}: {function.name}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for function, owner in public_functions(ast.parse(path.read_text()).body)
        if function.name not in INHERITED
        and not any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in function.decorator_list)
        and not is_inherited(function, owner, known)
        for name in undocumented(function)
    ]
    assert missing == []
