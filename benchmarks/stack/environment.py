"""The Amazon provider's environment, with the packages that a whole Airflow on Postgres and Redis also needs."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.environment import FOLDER, amazon_python

PACKAGES = ("apache-airflow-providers-celery", "asyncpg", "celery", "kombu", "psycopg2-binary", "redis")
"""In the versions of our own environment; the other packages exist."""


def amazon_stack_python() -> Path:
    """Return the Python of the Amazon provider's environment, with the missing packages installed."""
    python = amazon_python()
    added = FOLDER / "stack.txt"
    wanted = "".join(f"{package}=={version(package)}\n" for package in PACKAGES)
    if not added.exists() or added.read_text() != wanted:
        print(f"Adding to {FOLDER.name}: {', '.join(wanted.split())}", flush=True)
        if uv := shutil.which("uv"):
            install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        else:
            install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *wanted.split()], check=True)
        added.write_text(wanted)
    return python
