"""The released package: built from this checkout, and built again from the result."""

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
    """The results of a build."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    where = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        archive.extractall(where, **safely)  # type: ignore[arg-type]
    [top] = where.iterdir()
    return top


@pytest.fixture(scope="session")
def rebuilt(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A build from the unpacked sdist, in another directory and with other file times."""
    for each in unpacked.rglob("*"):
        os.utime(each, (0, 1_000_000_000))
    return build(unpacked, tmp_path_factory.mktemp("rebuilt"))


def build(root: Path, into: Path) -> Built:
    """Build like a release, at a fixed time."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    [wheel], [sdist] = into.glob("*.whl"), into.glob("*.tar.gz")
    return Built(wheel, sdist)
