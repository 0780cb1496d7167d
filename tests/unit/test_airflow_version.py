"""The first import rejects an Airflow that is too old."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_jobflow.airflow_version import require_supported_airflow

SENTENCE = "airflow-jobflow needs Airflow 3.2 or newer, and this is Airflow 3.1.8."


@pytest.mark.parametrize("version", ["3.2.0", "3.2.1", "3.2.0rc1", "3.3.2", "3.10.0", "4.0.0"])
def test_an_airflow_that_is_new_enough_is_not_rejected(version: str) -> None:
    """Release candidates and later major versions count as new enough."""
    require_supported_airflow(version)


@pytest.mark.parametrize("version", ["2.11.0", "3.0.6", "3.1.8"])
def test_an_airflow_that_is_too_old_is_rejected(version: str) -> None:
    """The error names its version and the required one."""
    with pytest.raises(ImportError, match=rf"needs Airflow 3\.2 or newer, and this is Airflow {version}\."):
        require_supported_airflow(version)


@pytest.mark.parametrize("module", ["airflow_jobflow", "airflow_jobflow.operators.batch"])
def test_importing_the_package_checks_the_version_first(module: str) -> None:
    """An older Airflow lacks modules that the operators import, whose error would not explain the cause."""
    code = f"import importlib.metadata; importlib.metadata.version = lambda _: '3.1.8'; import {module}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert answer.stderr.strip().splitlines()[-1] == f"ImportError: {SENTENCE}"
