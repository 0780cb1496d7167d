"""One Batch job of the local AWS, and how DescribeJobs, ListJobs and events show it.

What always holds: a `Job` is changed by `batch.Batch` only, under its lock; everything else here reads. A
child shares what it has in common with its parent. What is shown is built afresh for every answer, so that it
can be changed freely.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_jobflow.local import batch_model as model

if TYPE_CHECKING:
    import threading

    from airflow_jobflow.local.batch_model import Json
    from airflow_jobflow.local.processes import Process


@dataclass(frozen=True, slots=True)
class Submission:
    """What SubmitJob was asked, with the definition and queue as they were then."""

    job_id: str
    request: Json
    definition: Json
    queue_arn: str
    container: Json
    account: str
    region: str

    def arn(self, job_id: str) -> str:
        """ARN of a job submitted so."""
        return f"arn:aws:batch:{self.region}:{self.account}:job/{job_id}"

    @property
    def retry_strategy(self) -> Json:
        """The request's, else the definition's, else one attempt."""
        strategy = self.request.get("retryStrategy") or self.definition.get("retryStrategy") or {}
        return {"attempts": 1, "evaluateOnExit": [], **strategy}

    @property
    def timeout(self) -> int | None:
        """Seconds an attempt may take."""
        timeout = self.request.get("timeout") or self.definition.get("timeout") or {}
        seconds: int | None = timeout.get("attemptDurationSeconds")
        return seconds

    @property
    def on_fargate(self) -> bool:
        """Whether it runs on Fargate, where no container has an instance."""
        return "FARGATE" in (self.definition.get("platformCapabilities") or ())

    @property
    def size(self) -> int | None:
        """How many children it has; None if it is no array."""
        size: int | None = self.request.get("arrayProperties", {}).get("size")
        return size


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a running attempt is being ended from outside, in the words it will show."""

    status_reason: str
    reason: str | None = None
    exit_code: int | None = None
    retried: bool = False
    """Whether the retry strategy decides what comes next; otherwise the job is over."""
    terminated: bool = False


@dataclass(slots=True)
class Attempt:
    """The attempt that is starting or running."""

    task_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_at: int | None = None
    log_group: str = ""
    log_stream: str | None = None
    process: Process | None = None
    timer: threading.Timer | None = None
    ending: Ending | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A plain job, an array parent, or an array child (which has an `index`)."""

    submission: Submission
    job_id: str
    number: int
    """Jobs are numbered as they come: newest first is highest first."""
    created_at: int
    index: int | None = None
    parent: Job | None = None
    status: str = model.SUBMITTED
    status_reason: str | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    runnable_at: int | None = None
    cancelled: str | None = None
    """The reason given by a CancelJob that has been accepted but has not taken effect yet, or has."""
    terminated: str | None = None
    ran: Json = field(default_factory=dict)
    """What `container` shows of the newest attempt: exit code, reason, log stream, task and instance."""
    attempts: list[Json] = field(default_factory=list)
    attempt: Attempt | None = None
    waits_for: set[str] = field(default_factory=set)
    waited_for_by: list[Job] = field(default_factory=list)
    children: list[Job] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    counted_at: int | None = None

    @property
    def arn(self) -> str:
        """The job's ARN."""
        return self.submission.arn(self.job_id)

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in model.ENDED

    def array_properties(self) -> Json:
        """What DescribeJobs says of it as a parent or a child; nothing of others."""
        if self.index is not None:
            return {"index": self.index}
        if not self.children:
            return {}
        return {
            "size": len(self.children),
            "statusSummary": model.status_summary(self.counts),
            "statusSummaryLastUpdatedAt": self.counted_at or self.created_at,
        }

    def detail(self, reason_while_waiting: str | None = None) -> Json:
        """The job as DescribeJobs and events show it."""
        submission, definition = self.submission, self.submission.definition
        shown: Json = {
            **self._identity(),
            "jobQueue": submission.queue_arn,
            "attempts": [dict(attempt) for attempt in self.attempts],
            "statusReason": self.status_reason or reason_while_waiting,
            "retryStrategy": submission.retry_strategy,
            "dependsOn": submission.request.get("dependsOn", []),
            "parameters": {**definition.get("parameters", {}), **submission.request.get("parameters", {})},
            "schedulingPriority": submission.request.get("schedulingPriorityOverride"),
            "tags": submission.request.get("tags", {}),
            "propagateTags": submission.request.get("propagateTags", bool(definition.get("propagateTags"))),
            "platformCapabilities": definition.get("platformCapabilities") or [],
            "eksAttempts": [],
            "isCancelled": self.cancelled is not None,
            "isTerminated": self.terminated is not None,
            "container": {**submission.container, **self.ran},
        }
        if submission.timeout is not None:
            shown["timeout"] = {"attemptDurationSeconds": submission.timeout}
        return _without_none(shown)

    def summary(self) -> Json:
        """The job as ListJobs shows it."""
        container = {name: self.ran[name] for name in ("exitCode", "reason") if name in self.ran}
        shown = {**self._identity(), "statusReason": self.status_reason}
        if container:
            shown["container"] = container
        array = shown.get("arrayProperties")
        if array and "size" in array:
            shown["arrayProperties"] = {"size": array["size"]}
        return _without_none(shown)

    def _identity(self) -> Json:
        submission = self.submission
        shown: Json = {
            "jobArn": self.arn,
            "jobName": submission.request["jobName"],
            "jobId": self.job_id,
            "status": self.status,
            "createdAt": self.created_at,
            "startedAt": self.started_at,
            "stoppedAt": self.stopped_at,
            "jobDefinition": submission.definition["jobDefinitionArn"],
            "shareIdentifier": submission.request.get("shareIdentifier"),
        }
        if array := self.array_properties():
            shown["arrayProperties"] = array
        return shown


def _without_none(shown: Json) -> Json:
    return {name: value for name, value in shown.items() if value is not None}
