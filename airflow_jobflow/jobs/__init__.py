"""Remote jobs, one module for each AWS service. Plain Python: no Airflow, no I/O except through the passed ``call``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow_jobflow.jobs.interface import Service


def service(name: str) -> Service:
    """Return the module of a service.

    :param name: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :raises ModuleNotFoundError: there is no such service.
    """
    return cast("Service", import_module(f"{__name__}.{name}"))
