"""What a job used, with its cost at the prices in ``[jobflow] rates``."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from airflow.sdk import conf

from airflow_jobflow.jobs import usage as of_jobs

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot

log = logging.getLogger(__name__)


def job_usage(snapshot: Snapshot, service: str) -> of_jobs.Usage | None:
    """Return what a job used; None if that is not known.

    :param snapshot: the last one of a job that has ended.
    :param service: our name of the service, such as ``batch``.
    """
    return of_jobs.usage(snapshot, service, _rates(conf.get("jobflow", "rates", fallback="") or ""))


@functools.lru_cache(maxsize=4)
def _rates(text: str) -> of_jobs.Rates:
    """Return the rates in the setting. Rates that cannot be read count as none, and are logged once per process."""
    try:
        return of_jobs.parse_rates(text)
    except ValueError as error:
        log.warning("Costs are left out, because the setting [jobflow] rates cannot be read: it %s", error)
        return {}
