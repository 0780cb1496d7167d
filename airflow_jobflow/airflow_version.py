"""Which Airflow this package needs: the only place that compares versions.

Every import of this package runs this first. So it imports nothing of Airflow, of which an older one lacks the
modules that others import, and nothing of ``airflow_compat``, which is heavier.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Final

OLDEST: Final = (3, 2)
"""The oldest Airflow that this package runs on."""


def require_supported_airflow(installed: str | None = None) -> None:
    """Check that the installed Airflow is one that this package runs on.

    :param installed: the version of Airflow. Default: as its metadata say; where there are none, nothing is checked.
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
