"""The content of the wheel and the sdist, and reproducible builds."""

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
"""What `make test` would miss first. A few names, to detect a rule of .gitignore that matches too much."""


def ignored() -> list[str]:
    """Return the patterns of .gitignore."""
    return [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]


def files(directory: Path, patterns: list[str]) -> set[str]:
    """Return all files below a directory that match no pattern, by their path from the root of the checkout."""
    found: set[str] = set()
    for each in directory.iterdir():
        path = each.relative_to(ROOT).as_posix()
        if any(fnmatch.fnmatch(each.name, pattern) or path == pattern for pattern in patterns):
            continue
        found |= files(each, patterns) if each.is_dir() else {path}
    return found


def in_wheel(wheel: Path) -> set[str]:
    """Return the names of its files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_sdist(sdist: Path) -> set[str]:
    """Return the names of its files, below its only directory."""
    with tarfile.open(sdist) as archive:
        return {PurePosixPath(*PurePosixPath(each.name).parts[1:]).as_posix() for each in archive if each.isfile()}


def metadata(wheel: Path) -> Any:
    """Return the metadata that an index shows."""
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_a_second_build_elsewhere_gives_the_same_bytes(built: Any, rebuilt: Any) -> None:
    """Anyone can compare the files of an index with the sources."""
    assert built.wheel.read_bytes() == rebuilt.wheel.read_bytes()
    assert built.sdist.read_bytes() == rebuilt.sdist.read_bytes()


def test_the_wheel_has_the_package_and_nothing_else(built: Any) -> None:
    """It has no file in Airflow's namespace, no tests and no other files, and all data files."""
    names = in_wheel(built.wheel)
    assert {name.split("/")[0] for name in names} == {PACKAGE, INFO}
    assert {name for name in names if name.startswith(f"{PACKAGE}/")} == files(ROOT / PACKAGE, ignored())


def test_the_wheel_has_all_data_files(built: Any) -> None:
    """These are types, the data of the samples, and the files of the page."""
    data = {name for name in in_wheel(built.wheel) if name.startswith(f"{PACKAGE}/") and not name.endswith(".py")}
    page = {f"{PACKAGE}/ui/page/{name}" for name in ("index.html", "jobs.css", "jobs.js")}
    assert data >= {f"{PACKAGE}/py.typed", f"{PACKAGE}/local/glue/sample_data/se2_in0.csv"} | page


def test_the_sdist_is_the_checkout(built: Any) -> None:
    """`make test` and `make demo` run in it."""
    names = in_sdist(built.sdist)
    assert names >= set(NEEDED)
    own = {"PKG-INFO"}  # which also exists here if the checkout is an unpacked sdist
    assert names - own == files(ROOT, ignored()) - own


@pytest.mark.parametrize("secret", [".env", ".home", ".venv"])
def test_private_files_are_not_in_the_sdist(secret: str) -> None:
    """The sdist contains all files that .gitignore does not match."""
    assert secret in ignored()


def test_the_metadata_have_the_supported_versions(built: Any) -> None:
    """An index shows them, and pip uses them."""
    told = metadata(built.wheel)
    assert (told["Name"], told["Version"]) == ("airflow-jobflow", __version__)
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    classifiers = told.get_all("Classifier")
    assert "Framework :: Apache Airflow :: Provider" in classifiers
    assert "Typing :: Typed" in classifiers


def test_only_moto_has_an_upper_bound(built: Any) -> None:
    """The package is installed beside the user's packages; internals of moto are used, and only in the extra."""
    pinned = [each for each in metadata(built.wheel).get_all("Requires-Dist") if "==" in each.split(";")[0]]
    assert [each.split("[")[0] for each in pinned] == ["moto"]
