"""The source of a Python function that runs in a container, where nothing of its file exists. Pure.

A function is sent as the text of its definition. So it may refer to its arguments, to what it imports or defines in its
own body, and to Python's built-ins, but to nothing else in its file.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final

ADVICE: Final = (
    "Only the function itself is sent to the container: pass values as arguments, and put imports and helpers into the "
    "function's body."
)
"""What to do about a function that refers to its file."""

POSTPONED: Final = __future__.annotations.compiler_flag


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """The definition of a function.

    :param name: of the function.
    :param source: the text, from ``def`` on, without its decorators.
    :param file: where it is, for tracebacks.
    :param line: the number of the line with ``def``.
    :param postpones_annotations: whether the file has ``from __future__ import annotations``.
    """

    name: str
    source: str
    file: str
    line: int
    postpones_annotations: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the members that a job gets."""
        members = asdict(self)
        del members["name"]
        return members


@lru_cache(maxsize=1000)
def source_of(function: Callable[..., Any]) -> FunctionSource:
    """Return the source of a function that can run without its file.

    It is read once, when the DAG is parsed: by the time of the task's execution, the file may have changed.

    :param function: the function.
    :raises TypeError: it cannot; the message names the object that it needs.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise TypeError(f"{name} cannot run in a container: it must be a function that is defined with def")
    if hasattr(function, "__wrapped__"):
        raise TypeError(
            f"{name} cannot run in a container: it has a second decorator, which is not sent. Do what that "
            "decorator does in the function's body."
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} cannot run in a container: it must be neither async nor a generator")
    sent = {function.__name__, *(each.__name__ for each in getattr(function, "__type_params__", ()))}
    if free := [each for each in function.__code__.co_freevars if each not in sent]:
        raise TypeError(f"{name} cannot run in a container: it is a closure over {_listed(free)}. {ADVICE}")
    own = {function.__name__, *_names(function.__code__, "STORE_GLOBAL", "STORE_NAME")}
    used = dict.fromkeys(_names(function.__code__, "LOAD_GLOBAL", "LOAD_NAME"))
    if of_file := [each for each in used if each not in own and not hasattr(builtins, each)]:
        raise TypeError(f"{name} cannot run in a container: it uses {_listed(of_file)} from its file. {ADVICE}")
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError as error:
        raise TypeError(f"{name} cannot run in a container: its source cannot be read ({error})") from error
    text = "".join(lines)
    is_indented = text[:1] in " \t"
    [tree] = ast.parse(f"if 1:\n{text}" if is_indented else text).body
    node: Any = tree.body[0] if isinstance(tree, ast.If) else tree
    skipped = node.lineno - 1 - is_indented
    return FunctionSource(
        function.__name__,
        "".join(lines[skipped:]),
        function.__code__.co_filename,
        first + skipped,
        bool(function.__code__.co_flags & POSTPONED),
    )


def _names(code: CodeType, *operations: str) -> Iterator[str]:
    """Return the names that some operations of a function have, those of the functions inside it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in operations:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, *operations)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
