"""Why a job cannot be watched any longer. Delivered to the waits for that job."""

from __future__ import annotations

from airflow_jobflow.faults import CallError, Fault


class WatchError(Exception):
    """The job cannot be watched any longer. The job itself may still run."""


class NotFound(WatchError):
    """The service has not known the job for longer than the grace period.

    :param job_id: the job's id.
    :param seconds: for how long.
    """

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(job_id, seconds)
        self.job_id = job_id
        self.seconds = seconds

    def __str__(self) -> str:
        return f"not found in AWS for {self.seconds:.0f} s"


class DescribeRejected(WatchError):
    """Describe calls for the job were refused, without an answer in between, for longer than the grace period.

    :param job_id: the job's id.
    :param seconds: for how long.
    :param refusals: how many calls were refused.
    :param last: the last refusal.
    """

    def __init__(self, job_id: str, seconds: float, refusals: int, last: CallError) -> None:
        super().__init__(job_id, seconds, refusals, last)
        self.job_id = job_id
        self.seconds = seconds
        self.refusals = refusals
        self.last = last

    @property
    def fault(self) -> Fault:
        """What the last refusal means."""
        return self.last.fault

    def __str__(self) -> str:
        if self.refusals == 1:
            return f"the describe call failed: {self.last}"
        return f"{self.refusals} describe calls in {self.seconds:.0f} s failed, the last one with: {self.last}"
