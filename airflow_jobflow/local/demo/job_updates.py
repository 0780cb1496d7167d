"""Read job updates from the events and the ledger of a local AWS, and format them for a person.

Invariants: a job's statuses are reported once and in order, although events arrive in any order and more than once.
Short-lived statuses such as DEPROVISIONING are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_jobflow.jobs.definitions import LOG_GROUP, PREFIX

SUBMITTED: Final = "SUBMITTED"
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
INTERRUPTED: Final = "INTERRUPTED"
"""An ECS task whose Spot capacity was reclaimed; ECS has no status for it."""

ENDED: Final = frozenset({SUCCEEDED, FAILED, INTERRUPTED, "STOPPED", "TIMEOUT"})
BEFORE_END: Final = ("PROVISIONING", SUBMITTED, "PENDING", "RUNNABLE", STARTING, RUNNING)
"""The statuses before the end, in order. Each service has some of them."""
RANKS: Final = {**{status: rank for rank, status in enumerate(BEFORE_END)}, **dict.fromkeys(ENDED, len(BEFORE_END))}

ARROW: Final = " → "

Log = tuple[str, str]
"""Log group and log stream."""


@dataclass(frozen=True, kw_only=True)
class JobUpdate:
    """What an event or the ledger says about a job.

    :param job_id: the id; empty if only the name is known, which then means the latest job of that name.
    :param name: the name.
    :param status: the status in the service's terms, or one of those above.
    :param family: the ECS task family. Default: none.
    :param index: the index of an array child. Default: not a child.
    :param size: the size of an array. Default: not an array.
    :param exit_code: of the container. Default: unknown.
    :param log: where its output goes. Default: it has not started.
    :param note: more about how it ended. Default: nothing.
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
    """What is known about a job: a plain one, an array parent (with `size`) or an array child (with `index`)."""

    job_id: str
    name: str
    index: int | None = None
    size: int | None = None
    family: str = ""
    status: str = ""
    exit_code: int | None = None
    log: Log | None = None
    note: str = ""
    reported: str = ""
    unreported: list[str] = field(default_factory=list)
    """The statuses after the last reported one."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    @property
    def label(self) -> str:
        """The name, followed by the index if it is an array child."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"

    def record(self, update: JobUpdate) -> None:
        """Record an update; ignore one that is older than what is known.

        :param update: the update.
        """
        if self.status and RANKS[update.status] <= RANKS[self.status]:
            return
        self.unreported.append(update.status)
        self.status, self.exit_code, self.note = update.status, update.exit_code, update.note
        self.log = update.log or self.log


@dataclass(frozen=True)
class Change:
    """What one job did since the last poll.

    :param job: the job.
    :param statuses: the last reported status, and those since.
    :param printed: the last line of its log, if it has ended. Default: none.
    """

    job: Job
    statuses: tuple[str, ...]
    printed: str | None = None

    def __str__(self) -> str:
        text = f"{self.job.label}  {ARROW.join(self.statuses)}"
        if self.job.status == FAILED and self.job.exit_code is not None:
            text += f", exit code {self.job.exit_code}"
        text += f", {self.job.note}" if self.job.note else ""
        return text if self.printed is None else f'{text}, printed "{self.printed}"'


@dataclass(frozen=True)
class FamilySummary:
    """How many tasks of a family are in which status, where there are too many to print each."""

    name: str
    statuses: Counter[str]

    @property
    def started(self) -> int:
        """The number of tasks."""
        return self.statuses.total()

    @property
    def ended(self) -> int:
        """The number of tasks that have ended."""
        return sum(number for status, number in self.statuses.items() if status in ENDED)

    def differs_enough_from(self, previous: FamilySummary, step: int) -> bool:
        """Return whether so many more tasks have started or ended, or all have ended, that it should be printed.

        :param previous: the last summary that was printed.
        :param step: the number of tasks that makes a difference.
        """
        more = self.started >= previous.started + step or self.ended >= previous.ended + step
        return more or (self.started == self.ended != previous.ended)

    def __str__(self) -> str:
        ended = [f"{number} {status}" for status, number in sorted(self.statuses.items()) if status in ENDED]
        running = f"{self.statuses[RUNNING]} {RUNNING}" if self.statuses[RUNNING] else ""
        counts = ", ".join(filter(None, [running, *reversed(ended)]))
        return f"{self.name}  {self.started} tasks started{f': {counts}' if counts else ''}"


def of_batch(detail: Mapping[str, Any]) -> JobUpdate:
    """Read a Batch event.

    :param detail: the event's ``detail``.
    """
    array, container = detail.get("arrayProperties", {}), detail.get("container", {})
    options = container.get("logConfiguration", {}).get("options", {})
    stream = container.get("logStreamName")
    return JobUpdate(
        job_id=detail["jobId"],
        name=detail["jobName"],
        status=detail["status"],
        index=array.get("index"),
        size=array.get("size"),
        exit_code=container.get("exitCode"),
        log=(options.get("awslogs-group", "/aws/batch/job"), stream) if stream else None,
    )


def of_task(detail: Mapping[str, Any]) -> JobUpdate | None:
    """Read an ECS event. The item is in the overrides; whether the task succeeded follows from its exit codes.

    The log group is that of the sample task definition, or of those that operators register for images.

    :param detail: the event's ``detail``.
    :return: None for a short-lived status.
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
    return JobUpdate(
        job_id=detail["taskArn"],
        name=f"{family}({PurePosixPath(item).stem})" if item else family,
        status=status,
        family=family,
        exit_code=container.get("exitCode"),
        log=(LOG_GROUP if family.startswith(PREFIX) else f"/jobflow/{family}", stream)
        if "runtimeId" in container and status != INTERRUPTED
        else None,
        note=note,
    )


def of_crawl(detail: Mapping[str, Any]) -> JobUpdate | None:
    """Read a crawler event. It names only the crawler, which runs one crawl at a time.

    :param detail: the event's ``detail``.
    :return: None for the start of a crawl.
    """
    if detail["state"] == "Started":
        return None  # the ledger has the crawl's id
    changes = {verb: int(detail.get(f"tables{verb.title()}", 0)) for verb in ("created", "updated", "deleted")}
    notes = [f"{number} table{'s' if number > 1 else ''} {verb}" for verb, number in changes.items() if number]
    return JobUpdate(
        job_id="",
        name=_crawl(detail["crawlerName"]),
        status=SUCCEEDED if detail["state"] == "Succeeded" else FAILED,
        note=detail.get("errorMessage") or ", ".join(notes),
    )


def _crawl(crawler: str) -> str:
    return f"crawl of {crawler}"


def of_run(detail: Mapping[str, Any]) -> JobUpdate:
    """Read the event at the end of a Glue job run.

    :param detail: the event's ``detail``.
    """
    status = detail["state"]
    return JobUpdate(
        job_id=detail["jobRunId"],
        name=f"run of {detail['jobName']}",
        status=status,
        log=("/aws-glue/python-jobs/output", detail["jobRunId"]) if status == SUCCEEDED else None,
        note="" if status == SUCCEEDED else detail["message"],
    )


def of_ledger_entry(started: Mapping[str, Any]) -> JobUpdate:
    """Read the entry of the ledger for a started crawl or Glue job run.

    :param started: the entry.
    """
    if "run_id" in started:
        return JobUpdate(job_id=started["run_id"], name=f"run of {started['job']}", status=STARTING)
    return JobUpdate(job_id=started["crawl_id"], name=_crawl(started["crawler"]), status=RUNNING)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], JobUpdate | None]]] = {
    "Batch Job State Change": of_batch,
    "ECS Task State Change": of_task,
    "Glue Crawler State Change": of_crawl,
    "Glue Job State Change": of_run,
}
"""The function that reads an event's ``detail``, by its ``detail-type``."""
