"""What a remote job is, whatever the service: where it is, what was last seen of it, how it ended.

Plain data, all of it ready for JSON: snapshots travel in trigger events, outcomes in XComs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from airflow_jobflow.jobs.calls import Call


class JobState(StrEnum):
    """How far a job has come, in words that hold for every service."""

    SUBMITTED = "SUBMITTED"
    """Accepted, and not yet running: queued, waiting for others, or being prepared."""
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Whether nothing can change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


@dataclass(frozen=True, slots=True)
class LogStream:
    """Where in CloudWatch Logs a job writes.

    :param group: name of the log group.
    :param stream: name of the log stream in it.
    :param region: the region it is in, if that is not the job's. Default None.
    """

    group: str
    stream: str
    region: str | None = None

    def to_dict(self) -> dict[str, str]:
        """Return it as plain JSON-ready data, with the region only if it is not the job's."""
        region = {"region": self.region} if self.region else {}
        return {"group": self.group, "stream": self.stream, **region}


@dataclass(frozen=True, slots=True)
class Container:
    """How one of several containers of a job stands.

    :param name: its name in the definition.
    :param exit_code: None if it has none, or not yet.
    :param reason: why it ended, in the service's words.
    :param log: where it writes.
    :param state: the job's state if this container decides; None if the service itself says how the job went.
    """

    name: str
    exit_code: int | None = None
    reason: str | None = None
    log: LogStream | None = None
    state: JobState | None = None


@dataclass(frozen=True, slots=True)
class ArrayProgress:
    """How far the children of an array have come, as the service counts them; the count may lag."""

    size: int
    running: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Children that have ended, either way."""
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one describe call said of a job. Times are ISO 8601 in UTC."""

    job_id: str
    state: JobState
    status: str
    """The service's own word."""
    name: str = ""
    code: str | None = None
    """The service's code for why it ended, where it has codes."""
    reason: str | None = None
    """Why it is as it is, in the service's words."""
    container_reason: str | None = None
    """Why the container ended, in the service's words; often the more telling of the two."""
    exit_code: int | None = None
    attempt: int = 0
    """Which of the service's own attempts ran last, from 1; 0 before the first."""
    max_attempts: int = 1
    stopped_by_request: bool = False
    """Whether somebody asked the service to end it."""
    created_at: str | None = None
    started_at: str | None = None
    stopped_at: str | None = None
    log: LogStream | None = None
    array: ArrayProgress | None = None
    region: str | None = None
    partition: str = "aws"
    definition: str | None = None
    """ARN of what it was made from."""
    queue: str | None = None
    """ARN of the queue it stands in, where the service has queues."""
    details: dict[str, Any] | None = None
    """What only its service tells, by our names."""
    containers: tuple[Container, ...] = ()
    """Its containers, if they are named, for ``counting``. They are not stored: who waits has chosen one by then."""

    def counting(self, container: str | None) -> Snapshot:
        """Return what it says if one container counts.

        :param container: its name; None, or one that is not there, for the one that AWS's rules make decide.
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
        """Whether it, or of an array any child, has been taken out of the queue to be run."""
        if self.array and self.array.running + self.array.done:
            return True
        return self.state is not JobState.SUBMITTED or self.attempt > 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        # Not dataclasses.asdict, which copies every value deeply: this runs on the triggerer's event loop.
        data = {name: getattr(self, name) for name in self.__slots__ if name != "containers"}
        data["state"] = self.state.value
        data["log"] = self.log and self.log.to_dict()
        data["array"] = self.array and dataclasses.asdict(self.array)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Build it from what ``to_dict`` gave."""
        fields = dict(data)
        fields["state"] = JobState(fields["state"])
        fields["log"] = fields.get("log") and LogStream(**fields["log"])
        fields["array"] = fields.get("array") and ArrayProgress(**fields["array"])
        return cls(**fields)

    def progress(self) -> str:
        """Say in a few words how far the job is, as one line of a task's log."""
        words = [self.status]
        if self.array:
            words.append(f"{self.array.done}/{self.array.size} done, {self.array.failed} failed")
        if self.attempt > 1:
            words.append(f"(attempt {self.attempt} of {self.max_attempts})")
        if self.reason and not self.array:
            words.append(f"({self.reason})")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class ArrayOutcome:
    """How the children of an array, or the items of a map, ended.

    :param size: how many there are.
    :param succeeded, failed: how many of them did so; of a map, those that were stopped count as failed.
    :param failed_indexes: which failed, in order; empty where that could not be found out.
    """

    size: int
    succeeded: int
    failed: int
    failed_indexes: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on a job: what an operator or a sensor returns, as a plain dict, through XCom.

    Times are ISO 8601 in UTC, None where the service tells none.

    :param service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :param job_id: the Batch job's id, the ECS task's ARN, the Glue run's id; of a crawl, which one is meant; of a map
        empty.
    :param name: of the job; of an ECS task the last part of its ARN.
    :param state: ``SUCCEEDED`` or ``FAILED``; ``SUBMITTED`` only from an operator that does not wait.
    :param status: the service's own word.
    :param reason: why it ended, in the service's words; None where it says nothing.
    :param exit_code: of the container that tells how it went; None where there is none.
    :param created_at, started_at, stopped_at: when it was created, began to run, and ended.
    :param log: where it writes, with the region only if it is not the job's; None where that is not known.
    :param console_url: its page in AWS's console; None where that is not known.
    :param array: of arrays and maps, how the children or items ended.
    :param details: what only its service tells, by our names.
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

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        data = {**dataclasses.asdict(self), "state": self.state.value, "log": self.log and self.log.to_dict()}
        if self.array:
            data["array"]["failed_indexes"] = list(self.array.failed_indexes)
        return data


@dataclass(frozen=True, slots=True)
class ChildFailure:
    """One failed child of an array or map."""

    index: int
    snapshot: Snapshot


class Service(Protocol):
    """What a module in ``jobs/`` offers for its service. The module itself is the object."""

    CLIENT: str
    """Name of the boto3 client."""
    DISPLAY_NAME: str
    """What a person calls such a job: ``Batch job``."""
    BATCH_SIZE: int
    """The most ids one ``describe`` takes."""
    RETENTION: str
    """How long a job that has ended can be described."""

    def describe(self, call: Call, job_ids: Sequence[str], scope: str | None) -> Mapping[str, Snapshot | None]:
        """Look at jobs by id; unknown ids are left out, None stands for those that must be asked for alone."""

    def with_final_details(self, call: Call, snapshot: Snapshot) -> Snapshot:
        """Add to the last snapshot of a job that has ended what a sweep cannot tell.

        :param call: not called where there is nothing to ask.
        """

    def stop(self, call: Call, job_id: str, scope: str | None, reason: str) -> None:
        """End a job. Ending one that has ended already changes nothing."""


def unchanged(call: Call, snapshot: Snapshot) -> Snapshot:  # noqa: ARG001
    """Add nothing: the ``settled`` of services whose sweep tells all there is of a job."""
    return snapshot


def iso(milliseconds: float | None) -> str | None:
    """Give a time in milliseconds since the epoch as ISO 8601 in UTC; 0 and nothing as None."""
    return iso_seconds(milliseconds / 1000) if milliseconds else None


def iso_seconds(seconds: float | None) -> str | None:
    """Give a time in seconds since the epoch as ISO 8601 in UTC; nothing as None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).isoformat()


def index_ranges(indexes: Iterable[int]) -> str:
    """Write indexes as ranges: ``0-3,7``."""
    ranges: list[list[int]] = []
    for index in sorted(indexes):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
