"""`make release-check`: the wheel in new environments, with each supported Python and Airflow.

An Airflow is the lowest or the newest that the package allows, or one with its official constraints. The program builds
the package, and for each pair it creates an environment in a temporary directory, installs the wheel with its extra,
and runs `use.py` there. A Python that is neither installed nor available is reported and skipped, unless it was
requested; the workflow `tests.yaml` has them all.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CONSTRAINTS: Final = {
    each.name.split("-")[1].rpartition(".")[0]: (
        *("--constraint", str(each)),
        f"apache-airflow=={each.name.split('-')[1]}",
    )
    for each in sorted((ROOT / "tests" / "constraints").iterdir())
}
"""By version, as 3.2. They are for Python 3.12, and work for the other ones."""
OURS: Final = re.compile(r"^apache-airflow(-core|-task-sdk|-providers-(amazon|standard))?==.*\n", re.MULTILINE)
"""The packages with a lower bound in pyproject.toml, as in a file of constraints."""
FLOORS: Final = "floors.txt"
"""The oldest constraints without these: the oldest Airflow does not run with the newest versions of its other
dependencies.
"""
AIRFLOWS: Final = {
    "lowest": ("--resolution", "lowest-direct", "--constraint", FLOORS),
    "newest": ("--resolution", "highest"),
    **CONSTRAINTS,
}
"""The options of uv for each Airflow: which versions of the dependencies to install."""
LOCAL_USE: Final = Path(__file__).with_name("use.py")


def main() -> int:
    """Try all requested pairs; return the exit code."""
    given = _parser().parse_args()
    failed = left_out = 0
    with tempfile.TemporaryDirectory(prefix="jobflow-release-") as name:
        place = Path(name)
        wheel = _wheel(place)
        shutil.copytree(ROOT / "dags", place / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(LOCAL_USE, place)
        oldest = min((ROOT / "tests" / "constraints").iterdir())
        (place / FLOORS).write_text(OURS.sub("", oldest.read_text()))
        for python in given.python or _supported():
            interpreter = _interpreter(python)
            if interpreter is None:
                _say(f"Python {python} is not to be had on this machine; tests.yaml has each that is supported.")
                left_out += 1
                continue
            for airflow in given.airflow or AIRFLOWS:
                began = time.monotonic()
                _say(f"Python {python}, {airflow} Airflow")
                good = _used(place, wheel, interpreter, AIRFLOWS[airflow])
                failed += not good
                _say(f"  {'good' if good else 'FAILED'} after {time.monotonic() - began:.0f} s")
    return 1 if failed or (left_out and given.python) else 0


def _supported() -> list[str]:
    """Return the versions of Python that the package supports."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("Programming Language :: Python")]
    return [version for version in versions if "." in version]


def _interpreter(python: str) -> str | None:
    """Return the path of a Python, which is downloaded if necessary; None if it is not available."""
    find = ("python", "find", "--no-project", "--system", python)
    found = _uv(*find, quiet=True)
    if found.returncode:
        _uv("python", "install", python, quiet=True)
        found = _uv(*find, quiet=True)
    return found.stdout.strip() if found.returncode == 0 else None


def _wheel(place: Path) -> Path:
    """Build the package: the sdist from the checkout, the wheel from the sdist."""
    built = _uv("build", "--quiet", "--out-dir", str(place / "dist"), str(ROOT))
    if built.returncode:
        raise SystemExit("The package could not be built")
    [wheel] = (place / "dist").glob("*.whl")
    return wheel


def _used(place: Path, wheel: Path, interpreter: str, versions: Sequence[str]) -> bool:
    """Return whether the package could be installed and used."""
    environment = place / "environment"
    python = environment / "bin" / "python"
    wanted = [str(wheel), "--requirements", str(ROOT / "pyproject.toml"), "--extra", "local"]
    try:
        return (
            _uv("venv", "--quiet", "--python", interpreter, str(environment)).returncode == 0
            and _uv("pip", "install", "--quiet", "--python", str(python), *versions, *wanted, cwd=place).returncode == 0
            and subprocess.run(
                [python, "-I", place / "use.py", place / "dags"],
                cwd=place,
                env=_environment(),
                check=False,
                stdout=subprocess.DEVNULL,
                timeout=600,
            ).returncode
            == 0
        )
    finally:
        shutil.rmtree(environment, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Return the environment variables without those of this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_", "PYTHON"))}


def _uv(*arguments: str, quiet: bool = False, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    uv = shutil.which("uv") or str(ROOT / ".venv/bin/uv")
    errors = subprocess.DEVNULL if quiet else None
    return subprocess.run([uv, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True, check=False, cwd=cwd)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make release-check", description="Use the package in empty environments.")
    parser.add_argument("--python", action="append", help="a version, as 3.12; may be given again (default: all)")
    parser.add_argument("--airflow", action="append", choices=AIRFLOWS, help="which Airflow (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
