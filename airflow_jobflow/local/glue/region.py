"""What the parts of the local Glue share in one region."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_jobflow.local.fault_box import FaultBox
    from airflow_jobflow.local.glue.events import Events
    from airflow_jobflow.local.glue.store import Store
    from airflow_jobflow.local.moto_backends import Resources
    from airflow_jobflow.local.processes import Processes
    from airflow_jobflow.local.service import Ledger
    from airflow_jobflow.local.settings import Settings


def now() -> float:
    """Return the time in seconds since the epoch, to the millisecond, as Glue does."""
    return round(time.time(), 3)


@dataclass(frozen=True, slots=True)
class Region:
    """What the parts of Glue share in one account and region."""

    resources: Resources
    store: Store
    processes: Processes
    events: Events
    ledger: Ledger
    settings: Settings
    faults: FaultBox
