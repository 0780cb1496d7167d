"""Which functions can run without the file that they are defined in, and what is sent of them."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_jobflow.jobs.function_source import source_of

LIMIT = 3


def counts(words: list[str]) -> int:
    """Use something of the file, directly."""
    return len(json.dumps(words)) + LIMIT


def counts_deeper(words: list[str]) -> list[int]:
    """Use something of the file in an inner function."""

    def limited(word: str) -> int:
        return min(len(word), LIMIT)

    return [limited(word) for word in words]


def closure() -> Callable[[], int]:
    """Return a function that uses a variable of another one."""
    number = 1

    def inner() -> int:
        return number

    return inner


@functools.cache
def cached() -> int:
    """Return something that is cached."""
    return 1


def wrapped() -> Callable[[], int]:
    """Return a function that a decorator has replaced."""

    @functools.wraps(counts)
    def wrapper() -> int:
        return 1

    return wrapper


async def coroutine() -> None:
    """Do nothing."""


def generator() -> Any:
    """Yield something."""
    yield 1


def from_text() -> Any:
    """Return a function without a source."""
    namespace: dict[str, Any] = {}
    exec("def made(): return 1", namespace)
    return namespace["made"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (counts, r"counts cannot run .* it uses 'json', 'LIMIT' from its file"),
        (counts_deeper, "it uses 'LIMIT' from its file"),
        (closure(), "it is a closure over 'number'"),
        (lambda: 1, "it must be a function that is defined with def"),
        (len, "len cannot run in a container: it must be a function"),
        (cached, "cached cannot run in a container: it must be a function"),
        (functools.partial(counts, []), "it must be a function"),
        (wrapped(), "it has a second decorator"),
        (coroutine, "it must be neither async nor a generator"),
        (generator, "it must be neither async nor a generator"),
        (from_text(), "its source cannot be read"),
        (str.upper, "it must be a function"),
    ],
)
def test_a_function_that_cannot_run_elsewhere_is_rejected(function: Any, why: str) -> None:
    """When the DAG is parsed; the error names what is missing there, and says what to do."""
    with pytest.raises(TypeError, match=why):
        source_of(function)


def test_a_function_may_use_what_it_imports_and_defines() -> None:
    """Itself included, and built-ins."""

    def fact(number: int) -> int:
        import math

        class Known:
            one = 1
            alias = one

        return number * fact(number - 1) + math.floor(number) if number > Known.alias else len(__name__)

    assert source_of(fact).name == "fact"


def decorator(**_: Any) -> Callable[[Any], Any]:
    """Return a decorator that changes nothing."""
    return lambda function: function


@decorator(
    given={"several": "lines"},
)
@decorator()
def decorated(number: int = LIMIT) -> str:
    """Have decorators and a text that looks like something else."""
    return f"""
# not a comment
  {number}"""


def test_what_is_sent_begins_with_def() -> None:
    """With the line that it has in its file."""
    source = source_of(decorated)
    assert source.source.startswith("def decorated(number: int = LIMIT) -> str:\n")
    assert source.source.endswith('# not a comment\n  {number}"""\n')
    assert source.file == __file__
    assert Path(__file__).read_text().split("\n")[source.line - 1] == "def decorated(number: int = LIMIT) -> str:"
    assert source.postpones_annotations


def test_a_file_that_changes_after_the_dag_was_parsed_changes_nothing(tmp_path: Path) -> None:
    """Otherwise the lines of another function could be sent."""
    file = tmp_path / "dag_file.py"
    file.write_text("def first():\n    return 1\n")
    first = runpy.run_path(str(file))["first"]
    parsed = source_of(first).source
    file.write_text("import os\n\n\ndef removes_all():\n    os.abort()\n")
    assert source_of(first).source == parsed == "def first():\n    return 1\n"


def test_a_function_may_use_its_type_parameters() -> None:
    """They are part of its definition: ``def empty[Item](…)`` in Python 3.12."""
    Item = TypeVar("Item")

    def empty() -> list[Any]:
        return list[Item]()  # type: ignore[valid-type]

    empty.__type_params__ = (Item,)  # type: ignore[attr-defined]
    assert source_of(empty).name == "empty"
