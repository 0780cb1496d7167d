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

from airflow_jobflow.local.batch import model
from airflow_jobflow.local.dependencies import Progress

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from airflow_jobflow.local.batch.model import Json
    from airflow_jobflow.local.processes import Process


@dataclass(frozen=True, slots=True)
class Submission:
    """What SubmitJob was asked, with the definition and queue as they were then."""

    job_id: str
    request: Json
    definition: Json
    queue_arn: str
    containers: Sequence[Json]
    """With the request's overrides; a plain job has one, without a name."""
    account: str
    region: str

    @property
    def task_properties(self) -> Json | None:
        """What a job with ``ecsProperties`` has beside its containers; None for a plain job."""
        properties = self.definition.get("ecsProperties")
        if properties is None:
            return None
        return {name: value for name, value in properties["taskProperties"][0].items() if name != "containers"}

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


@dataclass(slots=True, eq=False)
class Container:
    """A container of an attempt."""

    definition: Json
    begun: bool = False
    """Whether its process is being started, runs, or has ended."""
    started: bool = False
    stopped: bool = False
    """Whether it is over, or will never run."""
    process: Process | None = None
    exit_code: int | None = None
    reason: str | None = None
    log: tuple[str, str] | None = None
    """Group and stream."""

    @property
    def name(self) -> str:
        """Its name in the definition; empty for that of a plain job."""
        name: str = self.definition.get("name", "")
        return name

    @property
    def essential(self) -> bool:
        """Whether its end is the end of the attempt."""
        return bool(self.definition.get("essential", True))

    @property
    def progress(self) -> Progress:
        """As those see it that depend on it."""
        return Progress(self.started, self.stopped, self.exit_code)

    def shown(self) -> Json:
        """What is known of how it ran."""
        stream = self.log and self.log[1]
        return _without_none({"exitCode": self.exit_code, "reason": self.reason, "logStreamName": stream})


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that is starting or running, or was."""

    containers: list[Container]
    task_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    place: Json = field(default_factory=dict)
    """Task and instance that it runs on."""
    started_at: int | None = None
    timer: threading.Timer | None = None
    ending: Ending | None = None
    """How it is being ended from outside."""
    over: str | None = None
    """The status reason, once it is over by itself."""
    telling: Container | None = None
    """The container whose end was the attempt's."""

    def shown(self, submission: Submission) -> Json:
        """It as one of ``attempts``, without its times."""
        if submission.task_properties is None:
            return {"container": {**self.place, **self.containers[0].shown(), "networkInterfaces": []}}
        containers = [{"name": each.name, **each.shown(), "networkInterfaces": []} for each in self.containers]
        return {"taskProperties": [{**self.place, "containers": containers}]}


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
    attempts: list[Json] = field(default_factory=list)
    attempt: Attempt | None = None
    """The one that is starting or running."""
    newest: Attempt | None = None
    """That one, or the last one that has ended."""
    waits_for: set[str] = field(default_factory=set)
    waited_for_by: list[Job] = field(default_factory=list)
    children: list[Job] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    counted_at: int | None = None

    @property
    def arn(self) -> str:
        """The job's ARN."""
        return self.submission.arn(self.job_id)

    def names(self) -> list[str]:
        """All names by which a fault may know it."""
        submission = self.submission
        definition = submission.definition
        parent = [] if self.parent is None else [self.parent.job_id]
        arns = [self.arn, submission.queue_arn, definition["jobDefinitionArn"]]
        return [self.job_id, submission.request["jobName"], definition["jobDefinitionName"], *arns, *parent]

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
            **self._containers(),
        }
        if submission.timeout is not None:
            shown["timeout"] = {"attemptDurationSeconds": submission.timeout}
        return _without_none(shown)

    def summary(self) -> Json:
        """The job as ListJobs shows it."""
        submission = self.submission
        ran = self.newest.containers[0].shown() if self.newest and submission.task_properties is None else {}
        container = {name: ran[name] for name in ("exitCode", "reason") if name in ran}
        shown = {**self._identity(), "statusReason": self.status_reason}
        if container:
            shown["container"] = container
        array = shown.get("arrayProperties")
        if array and "size" in array:
            shown["arrayProperties"] = {"size": array["size"]}
        return _without_none(shown)

    def _containers(self) -> Json:
        """Its containers as they are defined, and as they ran in the newest attempt."""
        submission, newest = self.submission, self.newest
        place = newest.place if newest else {}
        ran = [each.shown() for each in newest.containers] if newest else [{} for _ in submission.containers]
        containers = [
            {**defined, **shown, **({"networkInterfaces": []} if newest else {})}
            for defined, shown in zip(submission.containers, ran, strict=True)
        ]
        if submission.task_properties is None:
            return {"container": {**containers[0], **place}}
        return {
            "ecsProperties": {"taskProperties": [{**submission.task_properties, **place, "containers": containers}]}
        }

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
