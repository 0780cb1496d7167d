"""Every name by which Airflow finds a part of the package exists."""

from __future__ import annotations

import configparser
import importlib
import inspect
import pkgutil
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator, BaseOperatorLink

import airflow_jobflow
from airflow_jobflow import links
from airflow_jobflow.local.call import texts
from airflow_jobflow.provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
PREFIX = f"{airflow_jobflow.__name__}."
SERVICES = ("Batch", "Fargate", "Glue")
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]


def names(value: Any) -> Iterator[str]:
    """Return all modules and classes of this package in the provider info, at any depth."""
    return (text for text in texts(value) if text.startswith(PREFIX))


def resolve(name: str) -> Any:
    """Return the object with a dotted name."""
    module, _, attribute = name.rpartition(".")
    parent = importlib.import_module(module)
    return getattr(parent, attribute) if hasattr(parent, attribute) else importlib.import_module(name)


def modules(package: str) -> set[str]:
    """Return the modules of a package with an operator or a sensor of a service; base classes are in other modules."""
    found = set()
    for each in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        held = inspect.getmembers(importlib.import_module(each.name), inspect.isclass)
        if any(
            cls.__module__ == each.name and issubclass(cls, BaseOperator) and name.startswith(SERVICES)
            for name, cls in held
        ):
            found.add(each.name)
    return found


def test_the_entry_points_of_the_wheel_are_those_of_pyproject(built: Any) -> None:
    """Airflow reads those of the wheel."""
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(built.wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/entry_points.txt")]
        parser.read_string(archive.read(name).decode())
    assert {group: dict(parser[group]) for group in parser.sections()} == DECLARED
    assert set(DECLARED) == {"apache_airflow_provider", "airflow.plugins"}


@pytest.mark.parametrize(
    ("group", "name", "value"), [(group, *each) for group, entries in DECLARED.items() for each in entries.items()]
)
def test_an_entry_point_exists(group: str, name: str, value: str) -> None:
    """Otherwise there is only a line in a log, and the provider or the tab is missing."""
    assert callable(EntryPoint(name, value, group).load())


@pytest.mark.parametrize("name", sorted(set(names(get_provider_info()))))
def test_a_name_in_the_provider_info_exists(name: str) -> None:
    """A wrong name would only show in a user's UI."""
    assert resolve(name) is not None


@pytest.mark.parametrize("kind", ["operators", "sensors"])
def test_every_module_of_operators_and_sensors_is_in_the_provider_info(kind: str) -> None:
    """Airflow's lists contain only what is in the provider info."""
    told = {module for each in get_provider_info()[kind] for module in each["python-modules"]}
    assert told == modules(f"airflow_jobflow.{kind}")


def test_every_link_is_in_the_provider_info() -> None:
    """A missing link is lost when the DAG is serialized."""
    classes = [cls for name, cls in inspect.getmembers(links, inspect.isclass) if not name.startswith("_")]
    ours = [cls for cls in classes if issubclass(cls, BaseOperatorLink) and cls.__module__ == links.__name__]
    assert set(get_provider_info()["extra-links"]) == {f"{cls.__module__}.{cls.__name__}" for cls in ours}
