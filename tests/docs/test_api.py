"""The API reference is complete: it has every public class, with every parameter."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_jobflow.provider_info import get_provider_info

BESIDES: Final = ("airflow_jobflow.exceptions", "airflow_jobflow.links", "airflow_jobflow.retry_policy")
"""Modules that users import from, and that ``provider_info`` does not list."""

SINGLE: Final = (
    "airflow_jobflow.jobs.model.Outcome",
    "airflow_jobflow.jobs.model.JobState",
    "airflow_jobflow.jobs.model.LogStream",
    "airflow_jobflow.jobs.model.ArrayOutcome",
    "airflow_jobflow.jobs.causes.Diagnosis",
    "airflow_jobflow.jobs.causes.Blame",
    "airflow_jobflow.aws.Access",
)
"""Classes that users get or pass, of modules that they need not import."""


def modules() -> list[str]:
    """The modules that users import from."""
    info = get_provider_info()
    kinds = [entry for kind in ("operators", "sensors", "triggers") for entry in info[kind]]
    return [*BESIDES, *(module for entry in kinds for module in entry["python-modules"])]


def public() -> Iterator[str]:
    """The names of all public classes."""
    yield from SINGLE
    local = importlib.import_module("airflow_jobflow.local")
    yield from (f"airflow_jobflow.local.{name}" for name in local.__all__)
    for module in modules():
        imported = importlib.import_module(module)
        for name, cls in inspect.getmembers(imported, inspect.isclass):
            is_ours = cls.__module__.startswith(module) and name in getattr(imported, "__all__", ())
            if (cls.__module__ == module and not name.startswith("_")) or is_ours:
                yield f"{module}.{name}"


def class_of(name: str) -> Any:
    """The class of a name."""
    module, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(module), cls)


@pytest.fixture(scope="module")
def listed(docs: Path) -> set[str]:
    """Return what the reference documents: names, and modules with all of their members."""
    text = "\n".join(page.read_text() for page in sorted((docs / "api").glob("*.rst")))
    names = set(re.findall(r"^\.\. auto(?:class|exception|function):: (\S+)", text, re.MULTILINE))
    for module, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n?)*)", text, re.MULTILINE):
        if members := re.search(r":members:(.*)", options):
            names |= {f"{module}.{name.strip()}" for name in members[1].split(",") if name.strip()} or {module}
    return names


@pytest.mark.parametrize("name", public())
def test_a_public_class_is_in_the_reference(listed: set[str], name: str) -> None:
    """Readers do not find a class that is missing."""
    assert class_of(name).__doc__
    assert {name, name.rpartition(".")[0]} & listed


def parameters(cls: Any) -> Iterator[tuple[str, str]]:
    """Return the parameters of a class, each with the docstrings that may document it."""
    documented = ""
    for each in cls.__mro__:
        if not each.__module__.startswith("airflow_jobflow"):
            continue
        documented += each.__doc__ or ""
        if "__dataclass_fields__" in vars(each):  # not of a base: Airflow's operators are data classes
            names = [field.name for field in dataclasses.fields(each)]
        else:
            init = inspect.unwrap(vars(each).get("__init__", lambda: None))  # Airflow wraps those of operators
            code = init.__code__
            is_own = init.__qualname__ == f"{each.__qualname__}.__init__"
            names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) if is_own else []
        yield from ((name, documented) for name in names if name != "self")


@pytest.mark.parametrize("name", [name for name in public() if not issubclass(class_of(name), Enum)])
def test_every_parameter_is_documented(name: str) -> None:
    """With its meaning, and its unit and default where these are not obvious."""
    fields = r":param[^:]*?\b{}\b[^:]*:"
    missing = [one for one, documented in parameters(class_of(name)) if not re.search(fields.format(one), documented)]
    assert missing == []
