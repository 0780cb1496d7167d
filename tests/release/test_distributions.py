"""What is in the wheel and in the sdist, and that anybody can build the same."""

from __future__ import annotations

import fnmatch
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from airflow_jobflow import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_jobflow"
INFO = f"{PACKAGE}-{__version__}.dist-info"

NEEDED = [
    ".ci/environment",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks/waits.svg",
    "dags/fargate_map.py",
    "docker-compose.yaml",
    "infra/jobflow.yaml",
    "pyproject.toml",
    "tests/conftest.py",
    "tests/stack/overlay.yaml",
    "uv.lock",
]
"""What `make test` would miss first. A few names, so that a rule of .gitignore that takes too much is noticed."""


def ignored() -> list[str]:
    """The patterns of what git does not keep."""
    return [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]


def files(directory: Path, patterns: list[str]) -> set[str]:
    """All files below, by their path from the checkout's root, but those of a pattern."""
    found: set[str] = set()
    for each in directory.iterdir():
        path = each.relative_to(ROOT).as_posix()
        if any(fnmatch.fnmatch(each.name, pattern) or path == pattern for pattern in patterns):
            continue
        found |= files(each, patterns) if each.is_dir() else {path}
    return found


def in_wheel(wheel: Path) -> set[str]:
    """The names of its files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_sdist(sdist: Path) -> set[str]:
    """The names of its files, below its one directory."""
    with tarfile.open(sdist) as archive:
        return {PurePosixPath(*PurePosixPath(each.name).parts[1:]).as_posix() for each in archive if each.isfile()}


def metadata(wheel: Path) -> Any:
    """What an index shows of it."""
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_a_second_build_elsewhere_gives_the_same_bytes(built: Any, rebuilt: Any) -> None:
    """Anybody can check what an index holds against the sources."""
    assert built.wheel.read_bytes() == rebuilt.wheel.read_bytes()
    assert built.sdist.read_bytes() == rebuilt.sdist.read_bytes()


def test_the_wheel_has_the_package_and_nothing_else(built: Any) -> None:
    """Neither a file in Airflow's namespace, nor tests, nor what lies about here; and no data file is forgotten."""
    names = in_wheel(built.wheel)
    assert {name.split("/")[0] for name in names} == {PACKAGE, INFO}
    assert {name for name in names if name.startswith(f"{PACKAGE}/")} == files(ROOT / PACKAGE, ignored())


def test_the_wheel_has_what_is_no_python(built: Any) -> None:
    """Types, the samples' data, and the files of the page."""
    data = {name for name in in_wheel(built.wheel) if name.startswith(f"{PACKAGE}/") and not name.endswith(".py")}
    page = {f"{PACKAGE}/ui/page/{name}" for name in ("index.html", "jobs.css", "jobs.js")}
    assert data >= {f"{PACKAGE}/py.typed", f"{PACKAGE}/local/glue/sample_data/se2_in0.csv"} | page


def test_the_sdist_is_the_checkout(built: Any) -> None:
    """`make test` runs in it, and `make demo`."""
    names = in_sdist(built.sdist)
    assert names >= set(NEEDED)
    own = {"PKG-INFO"}  # which is here, too, where the checkout is an sdist
    assert names - own == files(ROOT, ignored()) - own


@pytest.mark.parametrize("secret", [".env", ".home", ".venv"])
def test_what_is_private_stays_here(secret: str) -> None:
    """The sdist takes all that .gitignore does not name."""
    assert secret in ignored()


def test_the_metadata_say_whom_it_is_for(built: Any) -> None:
    """An index shows these, and pip goes by them."""
    told = metadata(built.wheel)
    assert (told["Name"], told["Version"]) == ("airflow-jobflow", __version__)
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    classifiers = told.get_all("Classifier")
    assert "Framework :: Apache Airflow :: Provider" in classifiers
    assert "Typing :: Typed" in classifiers


def test_no_requirement_is_a_version_of_its_own_but_motos(built: Any) -> None:
    """It is installed beside what the user has; moto is replaced in part, and only in the extra."""
    pinned = [each for each in metadata(built.wheel).get_all("Requires-Dist") if "==" in each.split(";")[0]]
    assert [each.split("[")[0] for each in pinned] == ["moto"]
