"""A run of a Glue job, and its representation in GetJobRun.

Invariants: a `JobRun` is changed only by `executions.Executions`, under its lock. Representations are built for each
response.
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
    """Return a new id for a run."""
    return f"jr_{secrets.token_hex(32)}"


@dataclass(slots=True, eq=False)
class JobRun:
    """A run, or a retry of one (with an `attempt` and a `previous` run)."""

    job: Mapping[str, Any]
    """The job at the start of the run."""
    request: Mapping[str, Any]
    number: int
    """Runs are numbered in the order of their start."""
    run_id: str = field(default_factory=new_id)
    attempt: int = 0
    previous: str | None = None
    state: str = model.STARTING
    started_at: float = field(default_factory=now)
    changed_at: float = field(default_factory=now)
    ended_at: float | None = None
    ran_from: float | None = None
    """When its script started."""
    clock: float = field(default_factory=time.monotonic)
    error: str | None = None
    ending: tuple[str, str | None] | None = None
    """The final state and the error, if it is ended from outside."""
    process: Process | None = None
    timer: threading.Timer | None = None
    script: Path | None = None
    """Where the script is stored until its process starts."""
    errors: list[str] = field(default_factory=list)
    """The last lines of standard error."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state in model.ENDED

    @property
    def name(self) -> str:
        """The name of its job."""
        name: str = self.job["Name"]
        return name

    @property
    def log_group(self) -> str:
        """The prefix of its two log groups."""
        return model.LOG_GROUPS.get(self.job["Command"].get("Name", ""), model.SPARK_LOGS)

    @property
    def timeout(self) -> int:
        """Its timeout in minutes."""
        minutes: int = self.request.get("Timeout") or self.job.get("Timeout") or model.DEFAULT_TIMEOUT
        return minutes

    @property
    def retries_left(self) -> bool:
        """Whether it is retried if it fails."""
        return self.attempt < (self.job.get("MaxRetries") or 0)

    def age(self) -> float:
        """Return the seconds since it was started."""
        return time.monotonic() - self.clock

    def shown(self) -> Json:
        """Return the run as in GetJobRun."""
        size = model.capacity(self.job, self.request)
        seconds = 0.0 if self.ran_from is None else (self.ended_at or now()) - self.ran_from
        shown: Json = {
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
        arguments = {**(self.job.get("DefaultArguments") or {}), **(self.request.get("Arguments") or {})}
        scales = str(arguments.get("--enable-auto-scaling", "")).lower() == "true"
        if self.ended_at is not None and (scales or shown["ExecutionClass"] == "FLEX"):  # AWS counts only for these
            shown["DPUSeconds"] = round(seconds * size["MaxCapacity"], 3)
        return {name: value for name, value in shown.items() if value is not None}
