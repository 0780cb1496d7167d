"""The environments of clients: one for each in ``.venv-clients``, with the packages that its module names.

Invariants:

- An environment is created again when the named packages change, and reused otherwise.
- A client that cannot be installed fails its tests: none is skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / ".venv-clients"
INSTALL_TIMEOUT: Final = 600.0
"""Seconds."""


def python_environment(name: str, *packages: str) -> Path:
    """Install Python packages into their own environment, with this Python.

    :param name: of the environment.
    :param packages: in pip's format, each with a version.
    :returns: its ``bin`` directory.
    """

    def install(place: Path) -> None:
        _run([_uv(), "venv", "--quiet", "--python", sys.executable, str(place)], packages)
        _run([_uv(), "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), *packages], packages)

    return _created(name, packages, install) / "bin"


def node_environment(name: str, *packages: str) -> Path:
    """Install npm packages into their own directory.

    :param name: of the environment.
    :param packages: in npm's format, each with a version.
    :returns: its ``node_modules`` directory, for ``NODE_PATH``.
    """

    def install(place: Path) -> None:
        place.mkdir()
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *packages], packages)

    return _created(name, packages, install) / "node_modules"


def source(name: str, package: str) -> Path:
    """Unpack a source distribution from PyPI, which has tests that the wheel does not have.

    :param name: of the directory.
    :param package: with its version: ``moto==5.2.5``.
    :returns: the unpacked directory.
    """

    def install(place: Path) -> None:
        options = ["--quiet", "--no-deps", "--no-binary", package.partition("==")[0], "--dest", str(place)]
        _run([str(python_environment("pip", "pip") / "pip"), "download", *options, package], [package])
        [archive] = place.glob("*.tar.gz")
        with tarfile.open(archive) as content:
            content.extractall(place, filter="data")
        archive.unlink()

    [unpacked] = (each for each in _created(name, [package], install).iterdir() if each.is_dir())
    return unpacked


def _created(name: str, packages: Sequence[str], install: Callable[[Path], None]) -> Path:
    """The directory of an environment; the file beside it says what it was made of."""
    place, made_of = PLACE / name, PLACE / f"{name}.json"
    wanted = json.dumps([sys.version, *packages])
    if not (made_of.exists() and made_of.read_text() == wanted):
        made_of.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        PLACE.mkdir(exist_ok=True)
        install(place)
        made_of.write_text(wanted)
    return place


def _uv() -> str:
    """Return the uv that `make` uses."""
    return shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def _run(command: Sequence[str], packages: Sequence[str]) -> None:
    what = f"{', '.join(packages)} could not be installed by {Path(command[0]).name}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.fail(f"{what}: {error}", pytrace=False)
    if done.returncode:
        pytest.fail(f"{what}:\n{done.stderr or done.stdout}", pytrace=False)
