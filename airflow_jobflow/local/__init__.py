"""AWS on this machine: moto's server, in which Batch jobs, Fargate tasks and Glue job runs run as local processes, and
crawlers read S3.

Use ``with LocalAws() as aws:`` in tests, and ``python -m airflow_jobflow.local`` for a separate process. It needs the
extra ``local``. The names below are imported lazily, so that importing a pure module of this package loads no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_jobflow.local.client import LocalAwsClient
    from airflow_jobflow.local.faults import CannedResponse, Faults, StartFailure
    from airflow_jobflow.local.server import LocalAws
    from airflow_jobflow.local.settings import Settings

__all__ = ["CannedResponse", "Faults", "LocalAws", "LocalAwsClient", "Settings", "StartFailure"]

_MODULES = {
    "CannedResponse": "faults",
    "Faults": "faults",
    "LocalAws": "server",
    "LocalAwsClient": "client",
    "Settings": "settings",
    "StartFailure": "faults",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
