"""The check for a supported Airflow: the only place that compares versions.

Every import of this package runs this first. So it imports neither Airflow, whose older versions lack modules that the
other modules import, nor ``airflow_compat``.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Final

OLDEST: Final = (3, 2)
"""The oldest Airflow that this package runs on."""


def require_supported_airflow(installed: str | None = None) -> None:
    """Check that this package runs on the installed Airflow.

    :param installed: Airflow's version. Default: from the metadata of its package; without any, nothing is checked.
    :raises ImportError: it is too old.
    """
    if installed is None:
        try:
            installed = importlib.metadata.version("apache-airflow-core")
        except importlib.metadata.PackageNotFoundError:  # before Airflow 3, or none
            try:
                installed = importlib.metadata.version("apache-airflow")
            except importlib.metadata.PackageNotFoundError:
                return
    if tuple(int(number) for number in re.findall(r"\d+", installed)[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ImportError(f"airflow-jobflow needs Airflow {oldest} or newer, and this is Airflow {installed}.")
