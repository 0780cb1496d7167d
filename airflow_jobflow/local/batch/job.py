"""A Batch job of the local AWS, and its representation in DescribeJobs, ListJobs and events.

Invariants: a `Job` is changed only by `jobs.Jobs` and `attempts.Attempts`, under a lock. A child shares the submission
with its parent. Representations are built for each response, so that they may be changed.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_jobflow.local.batch import model
from airflow_jobflow.local.containers import Progress

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from airflow_jobflow.local.batch.model import Json
    from airflow_jobflow.local.processes import Process


@dataclass(frozen=True, slots=True)
class Submission:
    """A SubmitJob request, with the definition and the queue at that time."""

    job_id: str
    request: Json
    definition: Json
    queue_arn: str
    containers: Sequence[Json]
    """The containers with the overrides of the request; a job with ``containerProperties`` has one without a name."""
    account: str
    region: str

    @property
    def task_properties(self) -> Json | None:
        """The task properties of a job with ``ecsProperties``, without containers; None for other jobs."""
        properties = self.definition.get("ecsProperties")
        if properties is None:
            return None
        return {name: value for name, value in properties["taskProperties"][0].items() if name != "containers"}

    def arn(self, job_id: str) -> str:
        """Return the ARN of a job.

        :param job_id: its id.
        """
        return f"arn:aws:batch:{self.region}:{self.account}:job/{job_id}"

    @property
    def retry_strategy(self) -> Json:
        """The retry strategy of the request or else the definition; default one attempt."""
        strategy = self.request.get("retryStrategy") or self.definition.get("retryStrategy") or {}
        return {"attempts": 1, "evaluateOnExit": [], **strategy}

    @property
    def timeout(self) -> int | None:
        """The timeout of an attempt in seconds; None if there is none."""
        timeout = self.request.get("timeout") or self.definition.get("timeout") or {}
        seconds: int | None = timeout.get("attemptDurationSeconds")
        return seconds

    @property
    def on_fargate(self) -> bool:
        """Whether it runs on Fargate."""
        return "FARGATE" in (self.definition.get("platformCapabilities") or ())

    @property
    def size(self) -> int | None:
        """The size of an array; None for other jobs."""
        size: int | None = self.request.get("arrayProperties", {}).get("size")
        return size


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt is ended from outside, and the reasons to show."""

    status_reason: str
    reason: str | None = None
    exit_code: int | None = None
    retried: bool = False
    """Whether the retry strategy applies. Otherwise the job fails."""
    terminated: bool = False


@dataclass(slots=True, eq=False)
class Container:
    """A container of an attempt."""

    definition: Json
    begun: bool = False
    """Whether its process is starting, running or has ended."""
    started: bool = False
    stopped: bool = False
    """Whether it has ended, or will never run."""
    process: Process | None = None
    exit_code: int | None = None
    reason: str | None = None
    log: tuple[str, str] | None = None
    """Log group and log stream."""

    @property
    def name(self) -> str:
        """Its name in the definition; empty for a job with ``containerProperties``."""
        name: str = self.definition.get("name", "")
        return name

    @property
    def essential(self) -> bool:
        """Whether its end is the end of the attempt."""
        return bool(self.definition.get("essential", True))

    @property
    def progress(self) -> Progress:
        """Its progress, for containers that depend on it."""
        return Progress(self.started, self.stopped, self.exit_code)

    def shown(self) -> Json:
        """Return its results as in DescribeJobs."""
        stream = self.log and self.log[1]
        return _without_none({"exitCode": self.exit_code, "reason": self.reason, "logStreamName": stream})


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that is starting, running or has ended."""

    containers: list[Container]
    task_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    place: Json = field(default_factory=dict)
    """The ECS task and instance that it runs on."""
    started_at: int | None = None
    timer: threading.Timer | None = None
    ending: Ending | None = None
    """How it is ended from outside."""
    end_reason: str | None = None
    """The status reason, once it has ended by itself."""
    deciding: Container | None = None
    """The container whose end ended the attempt."""

    def shown(self, submission: Submission) -> Json:
        """Return an element of ``attempts`` in DescribeJobs, without times.

        :param submission: the submission of the job.
        """
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
    """Jobs are numbered in the order of their submission."""
    created_at: int
    index: int | None = None
    parent: Job | None = None
    status: str = model.SUBMITTED
    status_reason: str | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    runnable_at: int | None = None
    cancelled: str | None = None
    """The reason of an accepted CancelJob, whether or not it has taken effect."""
    terminated: str | None = None
    attempts: list[Json] = field(default_factory=list)
    attempt: Attempt | None = None
    """The attempt that is starting or running."""
    newest: Attempt | None = None
    """The same, or the last attempt that has ended."""
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
        """Return all names that faults may use for the job."""
        submission = self.submission
        definition = submission.definition
        parent = [] if self.parent is None else [self.parent.job_id]
        arns = [self.arn, submission.queue_arn, definition["jobDefinitionArn"]]
        return [self.job_id, submission.request["jobName"], definition["jobDefinitionName"], *arns, *parent]

    @property
    def ended(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.status in model.ENDED

    def array_properties(self) -> Json:
        """Return ``arrayProperties`` of a parent or a child; empty for other jobs."""
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
        """Return the job as in DescribeJobs and events.

        :param reason_while_waiting: the status reason if the job has none itself. Default: none.
        """
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
        """Return the job as in ListJobs."""
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
        """Return its containers, with the results of the newest attempt."""
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
