"""One run of a Glue job, and how GetJobRun shows it.

What always holds: a `JobRun` is changed by `glue_executions.Executions` only, under its lock. What is shown is built
afresh for every answer.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobflow.local.glue import model
from airflow_jobflow.local.glue.region import now

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_jobflow.local.processes import Process

Json = dict[str, Any]


def new_id() -> str:
    """The id of a run."""
    return f"jr_{secrets.token_hex(32)}"


@dataclass(slots=True, eq=False)
class JobRun:
    """A run, or another attempt at one (which has an `attempt` and a `previous` run)."""

    job: Mapping[str, Any]
    """The job as it was when the run was started."""
    request: Mapping[str, Any]
    number: int
    """Runs are numbered as they come: newest first is highest first."""
    run_id: str = field(default_factory=new_id)
    attempt: int = 0
    previous: str | None = None
    state: str = model.STARTING
    started_at: float = field(default_factory=now)
    changed_at: float = field(default_factory=now)
    ended_at: float | None = None
    ran_from: float | None = None
    """When its script began."""
    clock: float = field(default_factory=time.monotonic)
    error: str | None = None
    ending: tuple[str, str | None] | None = None
    """State and error it is being ended with from outside."""
    process: Process | None = None
    timer: threading.Timer | None = None
    script: Path | None = None
    """Where the script lies until its process takes it over."""
    errors: list[str] = field(default_factory=list)
    """The last lines it wrote to standard error."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in model.ENDED

    @property
    def name(self) -> str:
        """Of its job."""
        name: str = self.job["Name"]
        return name

    @property
    def log_group(self) -> str:
        """What its two log groups begin with."""
        return model.LOG_GROUPS.get(self.job["Command"].get("Name", ""), model.SPARK_LOGS)

    @property
    def timeout(self) -> int:
        """Minutes it may run."""
        minutes: int = self.request.get("Timeout") or self.job.get("Timeout") or model.DEFAULT_TIMEOUT
        return minutes

    @property
    def retries_left(self) -> bool:
        """Whether it is tried again if it fails."""
        return self.attempt < (self.job.get("MaxRetries") or 0)

    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.clock

    def shown(self) -> Json:
        """The run as GetJobRun shows it."""
        size = model.capacity(self.job, self.request)
        seconds = 0.0 if self.ran_from is None else (self.ended_at or now()) - self.ran_from
        told: Json = {
            "Id": self.run_id,
            "Attempt": self.attempt,
            "PreviousRunId": self.previous,
            "JobName": self.name,
            "JobRunQueuingEnabled": bool(self.request.get("JobRunQueuingEnabled")),
            "StartedOn": self.started_at,
            "LastModifiedOn": self.changed_at,
            "CompletedOn": self.ended_at,
            "JobRunState": self.state,
            "Arguments": self.request.get("Arguments"),
            "ErrorMessage": self.error,
            "PredecessorRuns": [],
            "ExecutionTime": round(seconds),
            "Timeout": self.timeout,
            "LogGroupName": self.log_group,
            "GlueVersion": self.job.get("GlueVersion"),
            "ExecutionClass": self.request.get("ExecutionClass") or self.job.get("ExecutionClass"),
            "NotificationProperty": self.request.get("NotificationProperty") or self.job.get("NotificationProperty"),
            "SecurityConfiguration": self.request.get("SecurityConfiguration") or self.job.get("SecurityConfiguration"),
            **size,
        }
        if self.ended_at is not None:
            told["DPUSeconds"] = round(seconds * size["MaxCapacity"], 3)
        return {name: value for name, value in told.items() if value is not None}
