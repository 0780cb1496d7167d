"""The package as it is released: built from this checkout, and once more from what was built."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    """What a build has made."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    where = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
        archive.extractall(where, **safely)  # type: ignore[arg-type]
    [top] = where.iterdir()
    return top


@pytest.fixture(scope="session")
def rebuilt(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What is built from the unpacked sdist: elsewhere, from files with other times."""
    for each in unpacked.rglob("*"):
        os.utime(each, (0, 1_000_000_000))
    return build(unpacked, tmp_path_factory.mktemp("rebuilt"))


def build(root: Path, into: Path) -> Built:
    """Build as a release does, at a fixed time."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    [wheel], [sdist] = into.glob("*.whl"), into.glob("*.tar.gz")
    return Built(wheel, sdist)
