"""Why a call gave no answer, and why a job cannot be watched any longer."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """What a describe call that gave no answer means for the jobs it asked about."""

    THROTTLED = "throttled"
    """Too many calls: slow down and ask again."""
    PASSING = "passing"
    """5xx, time-out, lost connection: ask again after a pause."""
    EXPIRED = "expired"
    """The credentials have run out: fetch them anew and ask again."""
    REJECTED = "rejected"
    """The call was refused as it stands: one of its ids is to blame."""
    NOWHERE = "nowhere"
    """What the call is confined to, such as a cluster, is not there: every wait in the call fails."""
    DENIED = "denied"
    """This caller may not or cannot ask at all: every wait in the call fails."""


class WatchError(Exception):
    """Why a job cannot be watched any longer. Delivered to the waits on that job."""


class DescribeError(WatchError):
    """A describe call failed. Raised by ``describe``; delivered where no further look can mend it.

    :param fault: what it means for the jobs in the call.
    :param message: which call, on what, and why; for people.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(fault, message)
        self.fault = fault
        self.message = message

    def __str__(self) -> str:
        return self.message


class Vanished(WatchError):
    """The service has not known the job for longer than the grace."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(job_id, seconds)
        self.job_id = job_id
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.job_id} has been unknown to the service for {self.seconds:.0f} s"
