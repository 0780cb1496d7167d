"""What the events and the ledger of a local AWS say of jobs, service by service, and how that is told to a person.

What always holds: a job's statuses are told in order and once, however often and in whatever order events come.
Statuses that pass in a moment, and mean nothing to a person, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

SUBMITTED: Final = "SUBMITTED"
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
INTERRUPTED: Final = "INTERRUPTED"
"""Our word for an ECS task whose Spot capacity was taken back."""

ENDED: Final = frozenset({SUCCEEDED, FAILED, INTERRUPTED, "STOPPED", "TIMEOUT"})
ON_THE_WAY: Final = ("PROVISIONING", SUBMITTED, "PENDING", "RUNNABLE", STARTING, RUNNING)
"""The statuses of all services before the end, in order; a service has some of them."""
RANKS: Final = {**{status: rank for rank, status in enumerate(ON_THE_WAY)}, **dict.fromkeys(ENDED, len(ON_THE_WAY))}

ARROW: Final = " → "

Log = tuple[str, str]
"""Group and stream."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What is said of a job at a moment.

    :param job_id: empty where only the name is said, which is the latest job's of that name.
    :param family: what it shares with others that differ in their input only.
    :param index: of the child of an array.
    :param size: of an array.
    :param log: where what it prints goes, if it got so far.
    :param note: what else is worth telling of its end.
    """

    job_id: str
    name: str
    status: str
    family: str = ""
    index: int | None = None
    size: int | None = None
    exit_code: int | None = None
    log: Log | None = None
    note: str = ""


@dataclass
class Job:
    """What has been told of one job: plain, array parent (`size`) or child (`index`)."""

    job_id: str
    name: str
    index: int | None = None
    size: int | None = None
    family: str = ""
    status: str = ""
    exit_code: int | None = None
    log: Log | None = None
    note: str = ""
    told: str = ""
    news: list[str] = field(default_factory=list)
    """Statuses since the one that was told last."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ENDED

    @property
    def label(self) -> str:
        """Its name; a child's with its index."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"

    def take(self, seen: Sighting) -> None:
        """Take in what is said of it; what is older than what is known is passed over."""
        if self.status and RANKS[seen.status] <= RANKS[self.status]:
            return
        self.news.append(seen.status)
        self.status, self.exit_code, self.note = seen.status, seen.exit_code, seen.note
        self.log = seen.log or self.log


@dataclass(frozen=True)
class Change:
    """What one job did since the last look."""

    job: Job
    statuses: tuple[str, ...]
    printed: str | None = None
    """The last line of its log, if it has ended."""

    def __str__(self) -> str:
        text = f"{self.job.label}  {ARROW.join(self.statuses)}"
        if self.job.status == FAILED and self.job.exit_code is not None:
            text += f", exit code {self.job.exit_code}"
        text += f", {self.job.note}" if self.job.note else ""
        return text if self.printed is None else f'{text}, printed "{self.printed}"'


@dataclass(frozen=True)
class Crowd:
    """How many jobs have come how far, where there are too many to tell of each."""

    name: str
    statuses: Counter[str]

    @property
    def started(self) -> int:
        """How many there are."""
        return self.statuses.total()

    @property
    def ended(self) -> int:
        """How many are over."""
        return sum(number for status, number in self.statuses.items() if status in ENDED)

    def is_news_after(self, told: Crowd, step: int) -> bool:
        """Whether so many more have started or ended since, or all have ended, that it is worth a line."""
        more = self.started >= told.started + step or self.ended >= told.ended + step
        return more or (self.started == self.ended != told.ended)

    def __str__(self) -> str:
        ended = [f"{number} {status}" for status, number in sorted(self.statuses.items()) if status in ENDED]
        running = f"{self.statuses[RUNNING]} {RUNNING}" if self.statuses[RUNNING] else ""
        told = ", ".join(filter(None, [running, *reversed(ended)]))
        return f"{self.name}  {self.started} tasks started{f': {told}' if told else ''}"


def of_batch(detail: Mapping[str, Any]) -> Sighting:
    """Read an event of Batch's."""
    array, container = detail.get("arrayProperties", {}), detail.get("container", {})
    options = container.get("logConfiguration", {}).get("options", {})
    stream = container.get("logStreamName")
    return Sighting(
        job_id=detail["jobId"],
        name=detail["jobName"],
        status=detail["status"],
        index=array.get("index"),
        size=array.get("size"),
        exit_code=container.get("exitCode"),
        log=(options.get("awslogs-group", "/aws/batch/job"), stream) if stream else None,
    )


def of_task(detail: Mapping[str, Any]) -> Sighting | None:
    """Read an event of ECS's: which item it is for, and whether its end is a success, it does not say in so many words.

    Its log is where the sample's is.
    """
    family, [container, *_] = detail["taskDefinitionArn"].rsplit("/", 1)[-1].partition(":")[0], detail["containers"]
    environment = (detail["overrides"]["containerOverrides"] or [{}])[0].get("environment", ())
    item = next((each["value"] for each in environment if each["name"] == "INPUT_KEY"), "")
    status, note = detail["lastStatus"], ""
    if status == "STOPPED":
        codes = {each.get("exitCode") for each in detail["containers"]}
        exited = detail.get("stopCode") == "EssentialContainerExited"
        interrupted = detail.get("stopCode") == "SpotInterruption"
        status = SUCCEEDED if exited and codes == {0} else INTERRUPTED if interrupted else FAILED
        note = "" if exited else detail.get("stoppedReason", "").rstrip(".")
    if status not in RANKS:
        return None
    stream = f"jobflow/{container['name']}/{detail['taskArn'].rsplit('/', 1)[-1]}"
    return Sighting(
        job_id=detail["taskArn"],
        name=f"{family}({PurePosixPath(item).stem})" if item else family,
        status=status,
        family=family,
        exit_code=container.get("exitCode"),
        log=(f"/jobflow/{family}", stream) if "runtimeId" in container and status != INTERRUPTED else None,
        note=note,
    )


def of_crawl(detail: Mapping[str, Any]) -> Sighting | None:
    """Read the event at a crawl's end, which names the crawler only: it makes one crawl at a time."""
    if detail["state"] == "Started":
        return None  # the ledger says it better
    changes = {verb: int(detail.get(f"tables{verb.title()}", 0)) for verb in ("created", "updated", "deleted")}
    notes = [f"{number} table{'s' if number > 1 else ''} {verb}" for verb, number in changes.items() if number]
    return Sighting(
        job_id="",
        name=_crawl(detail["crawlerName"]),
        status=SUCCEEDED if detail["state"] == "Succeeded" else FAILED,
        note=detail.get("errorMessage") or ", ".join(notes),
    )


def _crawl(crawler: str) -> str:
    return f"crawl of {crawler}"


def of_run(detail: Mapping[str, Any]) -> Sighting:
    """Read an event of a Glue job run's; there is one at its end only."""
    status = detail["state"]
    return Sighting(
        job_id=detail["jobRunId"],
        name=f"run of {detail['jobName']}",
        status=status,
        log=("/aws-glue/python-jobs/output", detail["jobRunId"]) if status == SUCCEEDED else None,
        note="" if status == SUCCEEDED else detail["message"],
    )


def of_started(started: Mapping[str, Any]) -> Sighting:
    """Read what Glue's ledger says of a crawl or run."""
    if "run_id" in started:
        return Sighting(job_id=started["run_id"], name=f"run of {started['job']}", status=STARTING)
    return Sighting(job_id=started["crawl_id"], name=_crawl(started["crawler"]), status=RUNNING)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Sighting | None]]] = {
    "Batch Job State Change": of_batch,
    "ECS Task State Change": of_task,
    "Glue Crawler State Change": of_crawl,
    "Glue Job State Change": of_run,
}
"""What reads an event's detail, by its detail-type."""
