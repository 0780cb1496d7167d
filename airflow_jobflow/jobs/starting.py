"""What a start that came to nothing means, for all who start jobs. Pure."""

from __future__ import annotations

from airflow_jobflow.faults import Fault

LOOKUPS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each look for a job whose submit got no answer: what was just submitted shows up late."""


class NotStarted(Exception):
    """The service answered a start without an error, and started nothing.

    :param message: why, in the service's words.
    :param fault: what that means.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message, fault)
        self.fault = fault

    @property
    def may_pass(self) -> bool:
        """Whether a later start may start something."""
        return self.fault in (Fault.NO_CAPACITY, Fault.THROTTLED, Fault.TRANSIENT)

    def __str__(self) -> str:
        return str(self.args[0])
