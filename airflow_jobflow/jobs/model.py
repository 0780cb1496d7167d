"""The data of a remote job, the same for every service: its state, its last snapshot, its outcome.

Plain data that converts to JSON: snapshots are in trigger events, outcomes in XComs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_jobflow.jobs.usage import Usage


class JobState(StrEnum):
    """The state of a job, the same for every service."""

    SUBMITTED = "SUBMITTED"
    """Accepted but not running: queued, waiting for other jobs, or being prepared."""
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


@dataclass(frozen=True, slots=True)
class LogStream:
    """The log stream of a job in CloudWatch Logs.

    :param group: name of the log group.
    :param stream: name of the log stream in it.
    :param region: its region, if that is not the job's. Default None.
    """

    group: str
    stream: str
    region: str | None = None

    def __str__(self) -> str:
        region = f" in {self.region}" if self.region else ""
        return f"stream {self.stream} of log group {self.group}{region}"

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON-ready data."""
        region = {"region": self.region} if self.region else {}
        return {"group": self.group, "stream": self.stream, **region}


@dataclass(frozen=True, slots=True)
class Container:
    """One of several containers of a job.

    :param name: its name in the definition.
    :param exit_code: None if it has none, or not yet.
    :param reason: the service's reason for its end. Default None.
    :param log: where it logs. Default None: not known.
    :param state: the job's state if this container decides. Default None: the service itself decides.
    """

    name: str
    exit_code: int | None = None
    reason: str | None = None
    log: LogStream | None = None
    state: JobState | None = None


@dataclass(frozen=True, slots=True)
class ArrayProgress:
    """The service's counts of an array's children, which may lag.

    :param size: how many there are.
    :param running, succeeded, failed: how many of them are in this state.
    """

    size: int
    running: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """How many children have ended."""
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job as one describe call returned it. Times are ISO 8601 in UTC."""

    job_id: str
    state: JobState
    status: str
    """As the service calls it."""
    name: str = ""
    code: str | None = None
    """The service's code for the reason, if it has codes."""
    reason: str | None = None
    """The service's reason for the status."""
    container_reason: str | None = None
    """The service's reason for the container's end; often the more specific of the two."""
    exit_code: int | None = None
    attempt: int = 0
    """The number of the service's own latest attempt, from 1; 0 before the first."""
    max_attempts: int = 1
    stopped_by_request: bool = False
    """Whether it was stopped on request."""
    created_at: str | None = None
    started_at: str | None = None
    stopped_at: str | None = None
    log: LogStream | None = None
    array: ArrayProgress | None = None
    region: str | None = None
    partition: str = "aws"
    definition: str | None = None
    """ARN of the job or task definition."""
    queue: str | None = None
    """ARN of its queue or cluster, if the service has them."""
    details: dict[str, Any] | None = None
    """Details that only its service has, by our names."""
    resources: Mapping[str, float] | None = None
    """What it had: ``vcpu``, ``gib``, ``gpu``, ``dpu``; of an array, what each child had. None while it runs."""
    run_seconds: float | None = None
    """For how long it ran, in all attempts of the service; of an array, the estimated sum of its children."""
    capacity: str | None = None
    """The type of capacity it ran on, if the service says so; see ``usage.Usage``."""
    fargate: bool = False
    """Whether it runs on Fargate, which has certain sizes only."""
    attempt_timeout: float | None = None
    """Seconds after which the service ends an attempt; None for never, or if the service does not say."""
    result_uri: str | None = None
    """The address in S3 for its result."""
    previous_attempt_ended_at: str | None = None
    """When the service's attempt before the last one ended; None if there was none."""
    containers: tuple[Container, ...] = ()
    """Its containers, if they have names, for ``counting``. Not in ``to_dict``: a container is chosen before that."""

    def counting(self, container: str | None) -> Snapshot:
        """Return a copy in which the result of one container counts.

        :param container: its name. For None or an unknown name, the snapshot stays as it is.
        """
        chosen = next((each for each in self.containers if each.name == container), None)
        if chosen is None:
            return self
        return dataclasses.replace(
            self,
            state=chosen.state or self.state,
            exit_code=chosen.exit_code,
            container_reason=chosen.reason,
            log=chosen.log,
        )

    @property
    def left_queue(self) -> bool:
        """Whether the job, or any child of the array, has left the queue to run."""
        if self.array and self.array.running + self.array.done:
            return True
        return self.state is not JobState.SUBMITTED or self.attempt > 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        # Not dataclasses.asdict, which copies every value deeply: this runs on the triggerer's event loop.
        data = {name: getattr(self, name) for name in self.__slots__ if name != "containers"}
        data["state"] = self.state.value
        data["log"] = self.log and self.log.to_dict()
        data["array"] = self.array and dataclasses.asdict(self.array)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Build a snapshot from what ``to_dict`` returned.

        :param data: the members.
        """
        fields = dict(data)
        fields["state"] = JobState(fields["state"])
        fields["log"] = fields.get("log") and LogStream(**fields["log"])
        fields["array"] = fields.get("array") and ArrayProgress(**fields["array"])
        return cls(**fields)

    def progress(self) -> str:
        """Return the progress of the job as a short text, for a task's log."""
        parts = [self.status]
        if self.array:
            parts.append(f"{self.array.done}/{self.array.size} done, {self.array.failed} failed")
        if self.attempt > 1:
            parts.append(f"(attempt {self.attempt} of {self.max_attempts})")
        if self.reason and not self.array:
            parts.append(f"({self.reason})")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class ArrayOutcome:
    """How the children of an array, or the items of a map, ended.

    :param size: how many there are.
    :param succeeded, failed: how many succeeded and failed. Items of a map that were stopped, or could not be
        described, count as failed.
    :param failed_indexes: which failed, in order; empty if that is not known.
    """

    size: int
    succeeded: int
    failed: int
    failed_indexes: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a job: what an operator or a sensor returns, as a plain dict, in an XCom.

    Times are ISO 8601 in UTC, None if the service has none.

    :param service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :param job_id: the Batch job's id, the ECS task's ARN, the Glue run's id, or what identifies the crawl; empty for a
        map.
    :param name: of the job; for an ECS task the last part of its ARN.
    :param state: ``SUCCEEDED`` or ``FAILED``; ``SUBMITTED`` only from an operator that does not wait.
    :param status: as the service calls it.
    :param reason: the service's reason for its end; None if it gives none.
    :param exit_code: of the container that decides the result; None if there is none.
    :param created_at, started_at, stopped_at: when it was created, started to run, and ended.
    :param log: where it logs, with the region only if it is not the job's; None if that is not known.
    :param console_url: its page in AWS's console; None if that is not known.
    :param array: for arrays and maps, how the children or items ended.
    :param details: details that only its service has, by our names.
    :param usage: what it used, as a dict of :class:`airflow_jobflow.jobs.usage.Usage`; None if that is not known.
    :param result: what it returned, with the parameter ``result``; of arrays and maps, a list by index. None if it
        returned nothing, or nothing usable, or more than 48 KB: then read it from ``result_uri``.
    :param result_uri: where the result is in S3; of more than 1,000 children or items, or more than 48 KB in all, the
        manifest. None if it is not in S3.
    :param result_error: why there is no result, or which are missing; None if all is well.
    :param changes: what retries changed, as ``on_…`` parameters say: for each the ``attempt``, the ``cause``, what it
        ``changed``, a ``text``, and for children of an array their ``indexes``. None for nothing.
    """

    service: str
    job_id: str
    name: str
    state: JobState
    status: str
    reason: str | None = None
    exit_code: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    stopped_at: str | None = None
    log: LogStream | None = None
    console_url: str | None = None
    array: ArrayOutcome | None = None
    details: dict[str, Any] | None = None
    usage: Usage | None = None
    result: Any = None
    result_uri: str | None = None
    result_error: str | None = None
    changes: Sequence[Mapping[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        data = {**dataclasses.asdict(self), "state": self.state.value, "log": self.log and self.log.to_dict()}
        if self.array:
            data["array"]["failed_indexes"] = list(self.array.failed_indexes)
        return data


@dataclass(frozen=True, slots=True)
class ChildFailure:
    """A failed child of an array, or a failed item of a map.

    :param index: of the child or item.
    :param snapshot: its job as it was last described.
    :param not_started_again: why there was no other attempt at an item although a rule applies, as a sentence. Default
        None: no rule applies.
    """

    index: int
    snapshot: Snapshot
    not_started_again: str | None = None


def container_streams(snapshot: Snapshot) -> dict[str, LogStream]:
    """Return where the containers of a job log, by name: the ``log_streams`` of services that have containers.

    :param snapshot: of the job.
    """
    named = {each.name: each.log for each in snapshot.containers if each.log}
    return named or ({"": snapshot.log} if snapshot.log else {})


def iso(milliseconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC; None for 0 and None.

    :param milliseconds: since the epoch.
    """
    return iso_seconds(milliseconds / 1000) if milliseconds else None


def iso_seconds(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC; None for None.

    :param seconds: since the epoch.
    """
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).isoformat()
