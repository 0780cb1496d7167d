"""What remote jobs are, service by service. Plain Python: no Airflow, no I/O except the calls it is handed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Service


def service(name: str) -> Service:
    """Return the module that knows a service, such as ``batch``.

    :raises ModuleNotFoundError: there is no such service.
    """
    return cast("Service", import_module(f"{__name__}.{name}"))
