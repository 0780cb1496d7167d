"""Starts of jobs that started nothing, or whose response was lost. Pure."""

from __future__ import annotations

from airflow_jobflow.faults import Fault

LOOKUPS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each lookup of a job whose submit response was lost: AWS lists new jobs with a delay."""


class NotStarted(Exception):
    """The service responded to a start without an error, and started nothing.

    :param message: the service's reason.
    :param fault: what the reason means.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message, fault)
        self.fault = fault

    @property
    def may_pass(self) -> bool:
        """Whether a later start may succeed."""
        return self.fault in (Fault.NO_CAPACITY, Fault.THROTTLED, Fault.TRANSIENT)

    def __str__(self) -> str:
        return str(self.args[0])
